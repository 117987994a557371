-- Invariant: every change of a cap or weight is logged with who made it. $3: whether $4 (null: none) is the new cap; a null
-- $5 leaves the weight. The row may come before the tenant's first job. Needs the owner's rights.
WITH written AS (
    INSERT INTO tenant_queues AS share (queue, tenant, cap, weight)
    VALUES ($1, $2, CASE WHEN $3 THEN $4::integer END, coalesce($5::double precision, 1))
    ON CONFLICT (queue, tenant) DO UPDATE
    SET cap = CASE WHEN $3 THEN $4::integer ELSE share.cap END, weight = coalesce($5::double precision, share.weight)
    RETURNING queue, tenant, cap, weight
), logged AS (
    INSERT INTO queue_changes (queue, tenant, cap, weight, changed_by)
    SELECT queue, tenant, cap, weight, $6 FROM written
)
SELECT cap, weight, EXISTS (SELECT FROM workers WHERE $1 = ANY (workers.providers)) AS is_offered FROM written
