-- Invariant: queued jobs that no live worker could take say why and since when; $1: seconds a worker may be silent.
-- Two small sets by index: all jobs of queues that nobody offers, and wide jobs that nobody has the devices for.
WITH able AS (
    SELECT provider, max(devices) AS devices
    FROM (SELECT UNNEST(providers) AS provider, devices FROM workers
          WHERE stopped_at IS NULL AND heard_at > now() - make_interval(secs => $1)) AS live
    GROUP BY provider
), unoffered AS (
    SELECT DISTINCT share.queue FROM tenant_queues AS share
    WHERE NOT EXISTS (SELECT FROM able WHERE able.provider = share.queue)
), found AS (
    (SELECT waiting.id FROM unoffered
     JOIN jobs AS waiting ON waiting.queue = unoffered.queue
     WHERE waiting.state = 'queued' AND waiting.waiting_since IS NULL
     LIMIT 1000)
    UNION ALL
    (SELECT waiting.id FROM able
     JOIN jobs AS waiting ON waiting.queue = able.provider AND waiting.devices > able.devices
     WHERE waiting.state = 'queued' AND waiting.devices > 1 AND waiting.waiting_since IS NULL
     LIMIT 1000)
)
UPDATE jobs
SET waiting_since = now(),
    waiting_reason = CASE WHEN queue IN (SELECT provider FROM able)
                          THEN format('needs %s devices at once; no live worker of provider ''%s'' has so many',
                                      devices, queue)
                          ELSE format('no live worker offers provider ''%s''', queue) || coalesce(
                              (SELECT ': ' || (jsonb_path_query_first(worker.details,
                                   '$.trainer.providers[*] ? (@.name == $name && @.available == false).reason',
                                   jsonb_build_object('name', queue), true) #>> '{}') AS reason
                               FROM workers AS worker
                               WHERE worker.stopped_at IS NULL AND worker.heard_at > now() - make_interval(secs => $1)
                               ORDER BY reason NULLS LAST LIMIT 1), '') END
WHERE id IN (SELECT waiting.id FROM jobs AS waiting
             WHERE waiting.id IN (SELECT id FROM found) AND waiting.state = 'queued'
             FOR NO KEY UPDATE OF waiting SKIP LOCKED)
  AND state = 'queued'
