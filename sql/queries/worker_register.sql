-- Invariant: one row a worker id; a start after a stop (or another boot) begins a new life.
INSERT INTO workers (worker_id, host, boot_id, version, providers, slots, devices, details, on_cpu, on_gpu, many_gpus,
                     gpus, gpu_memory, labels, alive_seconds)
VALUES ($1, $2, $3, $4, $5::text[], $6, $7, $8, $9::text[], $10::text[], $11::text[], $12, $13::bigint[], $14, $15)
ON CONFLICT (worker_id) DO UPDATE
SET host = excluded.host, boot_id = excluded.boot_id, version = excluded.version, providers = excluded.providers,
    slots = excluded.slots, devices = excluded.devices, details = excluded.details, on_cpu = excluded.on_cpu,
    on_gpu = excluded.on_gpu, many_gpus = excluded.many_gpus, gpus = excluded.gpus, gpu_memory = excluded.gpu_memory,
    labels = excluded.labels, alive_seconds = excluded.alive_seconds, heard_at = now(),
    started_at = CASE WHEN workers.stopped_at IS NOT NULL OR workers.boot_id <> excluded.boot_id THEN now()
                      ELSE workers.started_at END,
    stopped_at = NULL
