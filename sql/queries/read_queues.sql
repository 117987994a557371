-- Invariant: read only, through the public view. $1 tenant: null for all. Those with work first.
SELECT provider, tenant, running, ready AS waiting, delayed, paused, unplaceable,
       cap, weight, round((share * 100)::numeric, 1) AS share_percent, oldest_ready_at::timestamptz(0) AS oldest_waiting
FROM queue_depth
WHERE $1::text IS NULL OR tenant = $1
ORDER BY ready + running = 0, provider, tenant
