-- Invariant: a parked row is kept and never fetched again.
UPDATE outbox SET parked_at = now(), parked_reason = $2 WHERE id = $1 AND parked_at IS NULL
