-- Invariant: an unleased job ends once, from the state that was read under its lock.
UPDATE jobs
SET state = $3, finished_at = now(), ready_at = NULL, error_code = $4, error_message = $5,
    desired = coalesce($6, desired), waiting_reason = NULL, waiting_since = NULL
WHERE id = $1 AND state = $2 AND state IN ('queued', 'paused')
