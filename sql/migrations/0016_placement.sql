-- min_compatible: 16
-- Where a job may run: what it needs beside its provider, what workers have, and a host kept free for a job that needs
-- several GPUs. A worker from before this does not look at needs and would take what it cannot run.

-- What a request demands of its place, null for nothing: {"device": "cpu" | "cuda", "gpus": n > 1,
-- "gpu_memory_bytes": n, "labels": {...}}. Several GPUs, memory of a GPU, or one by its
-- number mean a GPU.
CREATE FUNCTION job_needs(config jsonb) RETURNS jsonb IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
SELECT nullif(jsonb_strip_nulls(jsonb_build_object(
           'device', CASE WHEN asked.device <> 'auto' THEN asked.device
                          WHEN asked.gpus > 1 OR asked.memory_gib IS NOT NULL OR config ->> 'device_map' LIKE 'cuda%'
                              THEN 'cuda' END,
           'gpus', CASE WHEN asked.gpus > 1 THEN asked.gpus END,
           'gpu_memory_bytes', ceil(asked.memory_gib * 1073741824)::bigint,
           'labels', nullif(config -> 'labels', '{}'))), '{}')
FROM (SELECT coalesce(config ->> 'device', 'auto') AS device, coalesce((config ->> 'gpus')::integer, 1) AS gpus,
             (config ->> 'min_gpu_memory_gib')::numeric AS memory_gib) AS asked
$$;

-- How many GPUs a job takes on a worker that computes its provider on GPUs (on_gpu) and has some (has_gpus); 0: it
-- runs on the CPU there. A job that leaves the device open takes a GPU wherever there are GPUs, also if none works now.
CREATE FUNCTION job_gpus(needs jsonb, on_gpu boolean, has_gpus boolean) RETURNS integer
IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
SELECT CASE coalesce(needs ->> 'device', 'auto')
           WHEN 'cpu' THEN 0
           WHEN 'cuda' THEN coalesce((needs ->> 'gpus')::integer, 1)
           ELSE CASE WHEN on_gpu AND has_gpus THEN 1 ELSE 0 END END
$$;

-- Whether a job may run on a worker: on_cpu, on_gpu, many_gpus: how the worker computes the job's provider; gpu_memory:
-- bytes of each GPU that counts, largest first.
CREATE FUNCTION job_fits(needs jsonb, on_cpu boolean, on_gpu boolean, many_gpus boolean, has_gpus boolean,
                         gpu_memory bigint[], labels jsonb) RETURNS boolean
IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
SELECT labels @> coalesce(needs -> 'labels', '{}')
       AND CASE job_gpus(needs, on_gpu, has_gpus)
               WHEN 0 THEN on_cpu
               ELSE on_gpu AND (many_gpus OR job_gpus(needs, on_gpu, has_gpus) = 1)
                    AND coalesce(gpu_memory[job_gpus(needs, on_gpu, has_gpus)]
                                 >= coalesce((needs ->> 'gpu_memory_bytes')::bigint, 0), false) END
$$;

ALTER TABLE jobs
    ADD COLUMN needs jsonb,
    ADD COLUMN needs_hash bigint NOT NULL GENERATED ALWAYS AS (coalesce(jsonb_hash_extended(needs, 0), 0)) STORED,
    ADD COLUMN reserved_for text; -- queued, several GPUs: the worker that takes no other job of GPUs until this one
UPDATE jobs SET needs = job_needs(config.config)
FROM job_configs AS config
WHERE config.job_id = jobs.id AND jobs.state IN ('queued', 'running', 'paused');

-- The head of a queue is found kind by kind: those that do not fit a worker are passed over together.
DROP INDEX jobs_claim;
CREATE INDEX jobs_claim ON jobs (queue, tenant, needs_hash, claim_order, id)
    WHERE state = 'queued' AND ready_at IS NOT NULL;
CREATE INDEX jobs_waiting ON jobs (queue, tenant, needs_hash) WHERE state = 'queued' AND waiting_since IS NOT NULL;
CREATE UNIQUE INDEX jobs_reserved ON jobs (reserved_for) WHERE reserved_for IS NOT NULL;

ALTER TABLE workers
    ADD COLUMN on_cpu text[] NOT NULL DEFAULT '{}',       -- providers that it computes on its CPU
    ADD COLUMN on_gpu text[] NOT NULL DEFAULT '{}',       -- ... on a GPU
    ADD COLUMN many_gpus text[] NOT NULL DEFAULT '{}',    -- ... on several GPUs at once
    ADD COLUMN gpus jsonb NOT NULL DEFAULT '[]',          -- every GPU: uuid, name, memory_bytes, used_bytes, fault
    ADD COLUMN gpu_memory bigint[] NOT NULL DEFAULT '{}', -- bytes of each GPU that works, largest first
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}';

REVOKE ALL ON FUNCTION job_needs(jsonb), job_gpus(jsonb, boolean, boolean),
    job_fits(jsonb, boolean, boolean, boolean, boolean, bigint[], jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION job_needs(jsonb), job_gpus(jsonb, boolean, boolean),
    job_fits(jsonb, boolean, boolean, boolean, boolean, bigint[], jsonb) TO modelforge_worker;

CREATE OR REPLACE VIEW worker_status AS
SELECT worker.worker_id, worker.host, worker.boot_id, worker.version, worker.providers, worker.slots,
       worker.devices, worker.details, worker.started_at, worker.heard_at, worker.stopped_at,
       (SELECT count(*) FROM job_leases AS lease WHERE lease.worker_id = worker.worker_id) AS running,
       worker.gpus, worker.labels, worker.on_cpu, worker.on_gpu, worker.many_gpus
FROM workers AS worker;
