-- Invariant: read only, through the public view: live workers, and what their trainers say of providers.
SELECT worker_id, host, version, details ->> 'trainer' AS trainer
FROM worker_status
WHERE live
ORDER BY worker_id
