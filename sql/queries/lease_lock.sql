-- Invariant (the fence): the job's row is locked and this lease is its lease; no row means it is lost. Jobs first: a
-- rescue that was faster has changed state or epoch, which this statement sees after waiting for the lock.
-- `state || ''`: by the id, whatever an index of states would promise.
SELECT job.state, job.desired, job.attempts, job.max_attempts, job.interruptions, job.drains,
       coalesce(job.deadline <= now(), false) AS deadline_passed
FROM jobs AS job
JOIN job_leases AS lease ON lease.job_id = job.id
WHERE job.id = $1 AND job.state || '' = 'running' AND job.lease_epoch = $2
  AND lease.epoch = $2 AND lease.incarnation = $3 AND lease.worker_id = $4
FOR NO KEY UPDATE OF job
