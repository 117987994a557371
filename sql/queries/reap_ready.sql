-- Invariant: run_at or back-off has passed -> ready, counted in the same transaction (by the rows returned).
WITH due AS (
    UPDATE jobs SET ready_at = now()
    WHERE id IN (SELECT id FROM jobs
                 WHERE state = 'queued' AND ready_at IS NULL AND (not_before IS NULL OR not_before <= now())
                 ORDER BY not_before LIMIT 1000
                 FOR NO KEY UPDATE SKIP LOCKED)
      AND state = 'queued' AND ready_at IS NULL
    RETURNING id, queue, tenant, needs_hash, needs, claim_order
), ready AS (
    INSERT INTO ready_jobs (queue, tenant, needs_hash, claim_order, job_id, needs)
    SELECT queue, tenant, needs_hash, claim_order, id, needs FROM due
)
SELECT queue, tenant FROM due
