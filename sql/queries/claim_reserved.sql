-- Invariant: read only: the queued jobs that GPUs of the host of worker $1 are kept free for, whether it is this worker
-- that is to take one, and whether its tenant may run another one (the claim looks again). Workers of a host share its
-- GPUs.
SELECT job.id, share.cap IS NULL OR share.running < share.cap AS may_run, job.reserved_for = $1 AS is_mine
FROM jobs AS job
JOIN tenant_load AS share ON share.queue = job.queue AND share.tenant = job.tenant
WHERE job.reserved_for IN (SELECT neighbour.worker_id FROM workers AS neighbour
                           WHERE neighbour.worker_id = $1
                              OR neighbour.host = (SELECT host FROM workers WHERE worker_id = $1))
  AND job.state = 'queued' AND job.ready_at IS NOT NULL
