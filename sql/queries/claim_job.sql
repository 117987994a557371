-- Invariant: queued and ready -> running with the next epoch; the head of the queue that fits this worker. $3 ... $8 are
-- what job_fits() asks of it, $9 the one job that it may be (null: any). Jobs with equal needs fit together or not at
-- all, so that only the first of each kind is looked at, however many wait.
WITH RECURSIVE kind AS (
    (SELECT first.needs_hash, first.needs FROM jobs AS first
     WHERE first.queue = $1 AND first.tenant = $2 AND first.state = 'queued' AND first.ready_at IS NOT NULL
     ORDER BY first.needs_hash LIMIT 1)
    UNION ALL
    SELECT next.needs_hash, next.needs
    FROM kind
    CROSS JOIN LATERAL (SELECT job.needs_hash, job.needs FROM jobs AS job
                        WHERE job.queue = $1 AND job.tenant = $2 AND job.state = 'queued' AND job.ready_at IS NOT NULL
                          AND job.needs_hash > kind.needs_hash
                        ORDER BY job.needs_hash LIMIT 1) AS next
), head AS (
    SELECT first.id, first.claim_order
    FROM kind
    CROSS JOIN LATERAL (SELECT job.id, job.claim_order FROM jobs AS job
                        WHERE job.queue = $1 AND job.tenant = $2 AND job.state = 'queued' AND job.ready_at IS NOT NULL
                          AND job.needs_hash = kind.needs_hash AND ($9::uuid IS NULL OR job.id = $9)
                        ORDER BY job.claim_order, job.id
                        LIMIT 1
                        FOR NO KEY UPDATE SKIP LOCKED) AS first
    WHERE job_fits(kind.needs, $3, $4, $5, $6, $7::bigint[], $8::jsonb)
)
UPDATE jobs AS job
SET state = 'running', lease_epoch = job.lease_epoch + 1, ready_at = NULL, not_before = NULL, preempted_at = NULL,
    waiting_reason = NULL, waiting_since = NULL, reserved_for = NULL, started_at = coalesce(job.started_at, now())
WHERE job.id = (SELECT head.id FROM head ORDER BY head.claim_order, head.id LIMIT 1)
  AND job.state = 'queued' AND job.desired = 'run'
RETURNING job.id, job.lease_epoch, job.request_id, (extract(epoch FROM job.created_at) * 1000)::bigint,
          (extract(epoch FROM job.deadline) * 1000)::bigint, job_gpus(job.needs, $4, $6),
          coalesce((job.needs ->> 'gpu_memory_bytes')::bigint, 0)
