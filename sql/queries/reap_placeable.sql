-- Invariant: a job that a live worker could take again waits for nothing.
WITH able AS (
    SELECT provider, max(devices) AS devices
    FROM (SELECT UNNEST(providers) AS provider, devices FROM workers
          WHERE stopped_at IS NULL AND heard_at > now() - make_interval(secs => $1)) AS live
    GROUP BY provider
)
UPDATE jobs SET waiting_since = NULL, waiting_reason = NULL
WHERE id IN (SELECT waiting.id FROM jobs AS waiting
             JOIN able ON able.provider = waiting.queue AND able.devices >= waiting.devices
             WHERE waiting.state = 'queued' AND waiting.waiting_since IS NOT NULL
             LIMIT 1000
             FOR NO KEY UPDATE OF waiting SKIP LOCKED)
