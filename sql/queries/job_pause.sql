-- Invariant: queued -> paused, from the state that was read under its lock. run_at or a back-off stays for the resume.
WITH paused AS (
    UPDATE jobs
    SET state = 'paused', desired = 'pause', ready_at = NULL, waiting_reason = NULL, waiting_since = NULL
    WHERE id = $1 AND state = 'queued'
    RETURNING id, queue, tenant, needs_hash, claim_order
)
DELETE FROM ready_jobs USING paused AS job
WHERE (ready_jobs.queue, ready_jobs.tenant, ready_jobs.needs_hash, ready_jobs.claim_order, ready_jobs.job_id)
      = (job.queue, job.tenant, job.needs_hash, job.claim_order, job.id)
