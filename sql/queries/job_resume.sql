-- Invariant: paused -> queued at its old place, ready unless run_at or a back-off is still ahead.
WITH resumed AS (
    UPDATE jobs
    SET state = 'queued', desired = 'run', ready_at = CASE WHEN coalesce(not_before <= now(), true) THEN now() END
    WHERE id = $1 AND state = 'paused'
    RETURNING id, queue, tenant, needs_hash, needs, claim_order, ready_at IS NOT NULL AS is_ready
), ready AS (
    INSERT INTO ready_jobs (queue, tenant, needs_hash, claim_order, job_id, needs)
    SELECT queue, tenant, needs_hash, claim_order, id, needs FROM resumed WHERE is_ready
)
SELECT is_ready FROM resumed
