-- Invariant: a (tenant, request_id) makes one job ever: only rows that enter request_keys here become jobs, and the
-- first record of a key within the batch wins. Keys are inserted in their order, so two batches cannot deadlock.
WITH incoming AS (
    SELECT *
    FROM UNNEST($3::integer[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $9::text[], $10::text[],
                $11::text[], $12::text[], $13::timestamptz[], $14::timestamptz[], $15::integer[], $16::integer[],
                $17::integer[], $18::integer[], $19::bytea[], $20::bigint[], $21::timestamptz[])
         AS record (ordinal, job_id, tenant, request_id, request_hash, config, queue, batch_id,
                    submitted_by, trace_context, run_at, deadline, priority, devices,
                    max_attempts, schema_id, request_sha256, source_offset, source_timestamp)
), first_of_key AS (
    SELECT DISTINCT ON (tenant, request_id) * FROM incoming ORDER BY tenant, request_id, ordinal
), new_keys AS (
    INSERT INTO request_keys (tenant, request_id, request_hash, job_id)
    SELECT tenant, request_id, decode(request_hash, 'hex'), job_id FROM first_of_key ORDER BY tenant, request_id
    ON CONFLICT (tenant, request_id) DO NOTHING
    RETURNING tenant, request_id
), accepted AS (
    SELECT first_of_key.*, coalesce(run_at <= now(), true) AS is_ready
    FROM first_of_key JOIN new_keys USING (tenant, request_id)
), new_jobs AS (
    INSERT INTO jobs (id, tenant, request_id, batch_id, queue, priority, devices, not_before, ready_at, claim_order,
                      deadline, max_attempts, preemptible, needs)
    SELECT job_id, tenant, request_id, batch_id, queue, priority, devices, run_at, CASE WHEN is_ready THEN now() END,
           coalesce(run_at, now()) - priority * interval '1 hour', deadline, max_attempts,
           coalesce((config ->> 'preemptible')::boolean, false), job_needs(config)
    FROM accepted
    RETURNING id, queue, tenant, needs_hash, needs, claim_order, ready_at
), new_ready AS (
    INSERT INTO ready_jobs (queue, tenant, needs_hash, claim_order, job_id, needs)
    SELECT queue, tenant, needs_hash, claim_order, id, needs FROM new_jobs WHERE ready_at IS NOT NULL
), new_configs AS (
    INSERT INTO job_configs (job_id, config, submitted_by, source_topic, source_partition, source_offset,
                             source_timestamp, schema_id, request_sha256, trace_context)
    SELECT job_id, config, submitted_by, $1, $2, source_offset, source_timestamp, schema_id, request_sha256,
           trace_context
    FROM accepted
), new_queues AS (
    INSERT INTO tenant_queues (queue, tenant)
    SELECT DISTINCT queue, tenant FROM accepted ORDER BY queue, tenant
    ON CONFLICT DO NOTHING
)
SELECT ordinal, is_ready FROM accepted ORDER BY ordinal
