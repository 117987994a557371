-- Invariant: no lease of before equals a lease of after; those that a backup brought back are nobody's any more, so that
-- they are rescued.
WITH renewed AS (
    UPDATE modelforge.incarnation SET incarnation = gen_random_uuid(), renewed_at = now() RETURNING incarnation
)
UPDATE modelforge.job_leases SET incarnation = renewed.incarnation FROM renewed
