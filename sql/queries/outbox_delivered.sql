-- Invariant: only what the broker acknowledged leaves; the event stays in the audit trail.
DELETE FROM outbox WHERE id = ANY ($1::bigint[])
