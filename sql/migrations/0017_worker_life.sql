-- min_compatible: 16
-- One definition of a worker that lives, for all who ask: it said so within the time that it promised itself.
ALTER TABLE workers ADD COLUMN alive_seconds integer NOT NULL DEFAULT 60 CHECK (alive_seconds > 0);

CREATE FUNCTION is_live(worker workers) RETURNS boolean STABLE PARALLEL SAFE LANGUAGE sql AS $$
SELECT worker.stopped_at IS NULL AND worker.heard_at > now() - make_interval(secs => worker.alive_seconds)
$$;
REVOKE ALL ON FUNCTION is_live(workers) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_live(workers) TO modelforge_worker, modelforge_reader;

CREATE OR REPLACE VIEW worker_status AS
SELECT worker.worker_id, worker.host, worker.boot_id, worker.version, worker.providers, worker.slots,
       worker.devices, worker.details, worker.started_at, worker.heard_at, worker.stopped_at,
       (SELECT count(*) FROM job_leases AS lease WHERE lease.worker_id = worker.worker_id) AS running,
       worker.gpus, worker.labels, worker.on_cpu, worker.on_gpu, worker.many_gpus, is_live(worker) AS live
FROM workers AS worker;
