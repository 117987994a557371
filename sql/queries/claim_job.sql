-- Invariant: queued and ready -> running with the next epoch; the head of the queue that fits this worker.
UPDATE jobs AS job
SET state = 'running', lease_epoch = job.lease_epoch + 1, ready_at = NULL, not_before = NULL, preempted_at = NULL,
    waiting_reason = NULL, waiting_since = NULL, started_at = coalesce(job.started_at, now())
WHERE job.id = (SELECT head.id FROM jobs AS head
                WHERE head.queue = $1 AND head.tenant = $2 AND head.state = 'queued' AND head.ready_at IS NOT NULL
                  AND head.devices <= $3
                ORDER BY head.claim_order, head.id
                LIMIT 1
                FOR NO KEY UPDATE SKIP LOCKED)
  AND job.state = 'queued' AND job.desired = 'run'
RETURNING job.id, job.lease_epoch, job.request_id, (extract(epoch FROM job.created_at) * 1000)::bigint,
          (extract(epoch FROM job.deadline) * 1000)::bigint
