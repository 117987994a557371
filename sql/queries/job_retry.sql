-- Invariant: an ended job stays as it is; its next generation ($2) is a new job with the same request, at most one a job
-- (unique retry_of and generation), and the key names it from now on. No row: its deadline has passed.
WITH ended AS (
    SELECT * FROM jobs
    WHERE id = $1 AND state IN ('failed', 'cancelled') AND coalesce(deadline > now(), true)
), fresh AS (
    INSERT INTO jobs (id, tenant, request_id, generation, retry_of, batch_id, queue, priority, devices, not_before,
                      ready_at, claim_order, deadline, max_attempts, preemptible, needs)
    SELECT $2, tenant, request_id, generation + 1, id, batch_id, queue, priority, devices,
           CASE WHEN not_before > now() THEN not_before END,
           CASE WHEN coalesce(not_before <= now(), true) THEN now() END,
           greatest(not_before, now()) - priority * interval '1 hour', deadline, max_attempts, preemptible, needs
    FROM ended
    RETURNING id, queue, tenant, request_id, ready_at IS NOT NULL AS is_ready, needs_hash, needs, claim_order
), ready AS (
    INSERT INTO ready_jobs (queue, tenant, needs_hash, claim_order, job_id, needs)
    SELECT queue, tenant, needs_hash, claim_order, id, needs FROM fresh WHERE is_ready
), config AS (
    INSERT INTO job_configs (job_id, config, submitted_by, source_topic, source_partition, source_offset,
                             source_timestamp, schema_id, request_sha256, trace_context)
    SELECT fresh.id, config, submitted_by, source_topic, source_partition, source_offset, source_timestamp, schema_id,
           request_sha256, trace_context
    FROM job_configs CROSS JOIN fresh
    WHERE job_id = $1
), known AS (
    UPDATE request_keys SET job_id = fresh.id
    FROM fresh
    WHERE request_keys.tenant = fresh.tenant AND request_keys.request_id = fresh.request_id
)
SELECT is_ready FROM fresh
