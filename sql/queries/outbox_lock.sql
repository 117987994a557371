-- Invariant: one holder a shard, for as long as its session lives.
SELECT pg_try_advisory_lock(hashtext('modelforge.outbox'), $1)
