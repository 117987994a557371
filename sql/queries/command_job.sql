-- Invariant: the newest generation, locked: what the command decides on cannot move before it is written.
SELECT job.id, job.generation, job.state, job.desired, job.queue, job.tenant, job.ready_at IS NOT NULL AS is_ready,
       job.lease_epoch
FROM request_keys AS known
JOIN jobs AS job ON job.id = known.job_id
WHERE known.tenant = $1 AND known.request_id = $2
FOR NO KEY UPDATE OF job
