-- Invariant: read only, through the public view: workers that were heard of within $1 seconds, and what their trainers
-- say of providers.
SELECT worker_id, host, version, details ->> 'trainer' AS trainer
FROM worker_status
WHERE stopped_at IS NULL AND heard_at > now() - make_interval(secs => $1)
ORDER BY worker_id
