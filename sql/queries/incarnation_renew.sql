-- Invariant: no lease of before equals a lease of after.
UPDATE modelforge.incarnation SET incarnation = gen_random_uuid(), renewed_at = now()
