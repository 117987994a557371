-- Invariant: only this session's own hold ends.
SELECT pg_advisory_unlock(hashtext('modelforge.outbox'), $1)
