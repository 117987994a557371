-- Invariant: queued jobs that no live worker could take say why and since when; $1: seconds a worker may be silent.
WITH live AS (
    SELECT UNNEST(providers) AS provider, devices FROM workers
    WHERE stopped_at IS NULL AND heard_at > now() - make_interval(secs => $1)
), able AS (
    SELECT provider, max(devices) AS devices FROM live GROUP BY provider
)
UPDATE jobs
SET waiting_since = now(),
    waiting_reason = CASE WHEN queue IN (SELECT provider FROM able)
                          THEN format('needs %s devices at once; no live worker of provider ''%s'' has so many',
                                      devices, queue)
                          ELSE format('no live worker offers provider ''%s''', queue) END
WHERE id IN (SELECT waiting.id FROM jobs AS waiting
             WHERE waiting.state = 'queued' AND waiting.waiting_since IS NULL
               AND NOT EXISTS (SELECT FROM able
                               WHERE able.provider = waiting.queue AND able.devices >= waiting.devices)
             LIMIT 1000
             FOR NO KEY UPDATE OF waiting SKIP LOCKED)
