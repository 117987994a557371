-- Invariant: paused -> queued at its old place, ready unless run_at or a back-off is still ahead.
UPDATE jobs
SET state = 'queued', desired = 'run', ready_at = CASE WHEN coalesce(not_before <= now(), true) THEN now() END
WHERE id = $1 AND state = 'paused'
RETURNING ready_at IS NOT NULL
