-- Invariant: a job that a live worker could take again waits for nothing. Kind by kind.
WITH RECURSIVE live AS MATERIALIZED (
    SELECT * FROM workers AS worker WHERE is_live(worker)
), kind AS (
    (SELECT first.queue, first.tenant, first.needs_hash, first.needs FROM jobs AS first
     WHERE first.state = 'queued' AND first.waiting_since IS NOT NULL
     ORDER BY first.queue, first.tenant, first.needs_hash LIMIT 1)
    UNION ALL
    SELECT next.queue, next.tenant, next.needs_hash, next.needs
    FROM kind
    CROSS JOIN LATERAL (SELECT job.queue, job.tenant, job.needs_hash, job.needs FROM jobs AS job
                        WHERE job.state = 'queued' AND job.waiting_since IS NOT NULL
                          AND (job.queue, job.tenant, job.needs_hash) > (kind.queue, kind.tenant, kind.needs_hash)
                        ORDER BY job.queue, job.tenant, job.needs_hash LIMIT 1) AS next
)
UPDATE jobs SET waiting_since = NULL, waiting_reason = NULL
WHERE id IN (SELECT waiting.id FROM kind
             JOIN jobs AS waiting ON waiting.queue = kind.queue AND waiting.tenant = kind.tenant
                                     AND waiting.needs_hash = kind.needs_hash
             WHERE waiting.state = 'queued' AND waiting.waiting_since IS NOT NULL
               AND EXISTS (SELECT FROM live
                           WHERE job_fits(kind.needs, kind.queue = ANY (live.on_cpu), kind.queue = ANY (live.on_gpu),
                                          kind.queue = ANY (live.many_gpus), live.gpus <> '[]', live.gpu_memory,
                                          live.labels))
             LIMIT 1000
             FOR NO KEY UPDATE OF waiting SKIP LOCKED)
