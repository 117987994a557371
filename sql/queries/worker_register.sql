-- Invariant: one row a worker id; a start after a stop (or another boot) begins a new life.
INSERT INTO workers (worker_id, host, boot_id, version, providers, slots, devices, details)
VALUES ($1, $2, $3, $4, $5::text[], $6, $7, $8)
ON CONFLICT (worker_id) DO UPDATE
SET host = excluded.host, boot_id = excluded.boot_id, version = excluded.version, providers = excluded.providers,
    slots = excluded.slots, devices = excluded.devices, details = excluded.details, heard_at = now(),
    started_at = CASE WHEN workers.stopped_at IS NOT NULL OR workers.boot_id <> excluded.boot_id THEN now()
                      ELSE workers.started_at END,
    stopped_at = NULL
