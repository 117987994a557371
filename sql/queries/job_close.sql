-- Invariant: an unleased job ends once, from the state that was read under its lock.
WITH closed AS (
    UPDATE jobs
    SET state = $3, finished_at = now(), ready_at = NULL, error_code = $4, error_message = $5,
        desired = coalesce($6, desired), waiting_reason = NULL, waiting_since = NULL
    WHERE id = $1 AND state = $2 AND state IN ('queued', 'paused')
    RETURNING id, queue, tenant, needs_hash, claim_order
)
DELETE FROM ready_jobs USING closed AS job
WHERE (ready_jobs.queue, ready_jobs.tenant, ready_jobs.needs_hash, ready_jobs.claim_order, ready_jobs.job_id)
      = (job.queue, job.tenant, job.needs_hash, job.claim_order, job.id)
