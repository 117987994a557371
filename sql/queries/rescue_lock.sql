-- Invariant: the lease still stands at the beat that was observed; jobs first, then the lease's own row.
-- `state || ''`: by the id, whatever an index of states would promise.
SELECT job.state, job.desired, job.attempts, job.max_attempts, job.interruptions, job.drains,
       coalesce(job.deadline <= now(), false) AS deadline_passed
FROM jobs AS job
WHERE job.id = $1 AND job.state || '' = 'running' AND job.lease_epoch = $2
FOR NO KEY UPDATE OF job
