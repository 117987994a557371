-- Invariant: a job of several GPUs that was ready for $1 seconds gets exactly one worker that could hold it, and a
-- host keeps GPUs free for one job only; otherwise smaller jobs would take each GPU that becomes free. One a call,
-- in the order of claims.
UPDATE jobs SET reserved_for = chosen.worker_id
FROM (SELECT job.id, host.worker_id
      FROM jobs AS job
      JOIN tenant_load AS share ON share.queue = job.queue AND share.tenant = job.tenant
      CROSS JOIN LATERAL (SELECT worker.worker_id FROM workers AS worker
                          WHERE is_live(worker) AND worker.slots > 0
                            AND job_fits(job.needs, job.queue = ANY (worker.on_cpu), job.queue = ANY (worker.on_gpu),
                                         job.queue = ANY (worker.many_gpus), worker.gpus <> '[]', worker.gpu_memory,
                                         worker.labels)
                            AND NOT EXISTS (SELECT FROM jobs AS other
                                            JOIN workers AS neighbour ON neighbour.worker_id = other.reserved_for
                                            WHERE neighbour.host = worker.host)
                          ORDER BY (SELECT count(*) FROM job_leases AS lease WHERE lease.worker_id = worker.worker_id),
                                   worker.worker_id
                          LIMIT 1) AS host
      WHERE job.state = 'queued' AND job.devices > 1 AND job.ready_at <= now() - make_interval(secs => $1)
        AND job.reserved_for IS NULL AND (share.cap IS NULL OR share.running < share.cap)
      ORDER BY job.claim_order, job.id
      LIMIT 1
      FOR NO KEY UPDATE OF job SKIP LOCKED) AS chosen
WHERE jobs.id = chosen.id AND jobs.state = 'queued'
RETURNING jobs.id, jobs.lease_epoch, jobs.reserved_for
