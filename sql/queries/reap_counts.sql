-- Invariant: the sum of a tenant's queue stays: rows that were not used for $1 seconds are added to the oldest of them.
WITH idle AS (
    SELECT count.queue, count.tenant, count.id, count.ready, count.running
    FROM queue_counts AS count
    WHERE count.used_at <= now() - make_interval(secs => $1)
      AND (count.queue, count.tenant) IN (SELECT queue, tenant FROM queue_counts GROUP BY queue, tenant HAVING count(*) > 1)
    FOR UPDATE SKIP LOCKED
), kept AS (
    SELECT queue, tenant, min(id) AS id, sum(ready)::integer AS ready, sum(running)::integer AS running
    FROM idle GROUP BY queue, tenant HAVING count(*) > 1
), gone AS (
    DELETE FROM queue_counts AS count USING idle, kept
    WHERE count.queue = idle.queue AND count.tenant = idle.tenant AND count.id = idle.id
      AND kept.queue = idle.queue AND kept.tenant = idle.tenant AND kept.id <> idle.id
)
UPDATE queue_counts AS count SET ready = kept.ready, running = kept.running
FROM kept WHERE count.queue = kept.queue AND count.tenant = kept.tenant AND count.id = kept.id
