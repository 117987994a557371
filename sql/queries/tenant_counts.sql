-- Invariant: counts move in the transaction that moves the jobs, rows locked in one order.
WITH change AS (
    SELECT queue, tenant, sum(ready)::integer AS ready, sum(running)::integer AS running
    FROM UNNEST($1::text[], $2::text[], $3::integer[], $4::integer[]) AS part (queue, tenant, ready, running)
    GROUP BY queue, tenant
), locked AS (
    SELECT share.queue, share.tenant
    FROM tenant_queues AS share JOIN change ON change.queue = share.queue AND change.tenant = share.tenant
    ORDER BY share.queue, share.tenant
    FOR NO KEY UPDATE OF share
)
UPDATE tenant_queues AS share
SET ready = share.ready + change.ready, running = share.running + change.running
FROM change JOIN locked ON locked.queue = change.queue AND locked.tenant = change.tenant
WHERE share.queue = change.queue AND share.tenant = change.tenant
