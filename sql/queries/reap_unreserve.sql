-- Invariant: a reservation lasts only while its job waits, may run, and its worker lives and could hold it.
UPDATE jobs SET reserved_for = NULL
WHERE id IN (SELECT job.id FROM jobs AS job
             WHERE job.reserved_for IS NOT NULL
               AND (job.state <> 'queued' OR job.ready_at IS NULL
                    OR EXISTS (SELECT FROM tenant_load AS share
                               WHERE share.queue = job.queue AND share.tenant = job.tenant AND share.running >= share.cap)
                    OR NOT EXISTS (SELECT FROM workers AS worker
                                   WHERE worker.worker_id = job.reserved_for AND is_live(worker)
                                     AND job_fits(job.needs, job.queue = ANY (worker.on_cpu),
                                                  job.queue = ANY (worker.on_gpu), job.queue = ANY (worker.many_gpus),
                                                  worker.gpus <> '[]', worker.gpu_memory, worker.labels)))
             FOR NO KEY UPDATE OF job SKIP LOCKED)
