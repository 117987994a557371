-- Invariant: a stopped worker offers nothing; its providers stay known.
UPDATE workers SET stopped_at = now() WHERE worker_id = $1 AND stopped_at IS NULL
