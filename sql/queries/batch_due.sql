-- Invariant: batches that were quiet for $1 seconds, locked: a job that joins one waits for this transaction, and one that
-- joined since this statement began took away quiet_since, so that the row is not among these.
SELECT tenant, batch_id, round FROM batches
WHERE finished_at IS NULL AND quiet_since <= now() - make_interval(secs => $1)
ORDER BY quiet_since LIMIT 20
FOR NO KEY UPDATE SKIP LOCKED
