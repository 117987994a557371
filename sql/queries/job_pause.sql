-- Invariant: queued -> paused, from the state that was read under its lock. run_at or a back-off stays for the resume.
UPDATE jobs
SET state = 'paused', desired = 'pause', ready_at = NULL, waiting_reason = NULL, waiting_since = NULL
WHERE id = $1 AND state = 'queued'
