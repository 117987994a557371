-- Invariant: queued jobs that nobody could take for the grace time ($1 seconds), locked, with what is known: whether
-- a worker ever offered the provider, what live workers ($2) have of it, why one that has it cannot offer it, and the
-- names that live workers offer.
WITH live AS (
    SELECT UNNEST(providers) AS provider, devices FROM workers
    WHERE stopped_at IS NULL AND heard_at > now() - make_interval(secs => $2)
)
SELECT waiting.id, waiting.state, waiting.queue, waiting.tenant, waiting.ready_at IS NOT NULL AS is_ready,
       waiting.lease_epoch, waiting.devices,
       EXISTS (SELECT FROM workers WHERE waiting.queue = ANY (workers.providers)) AS known,
       (SELECT max(live.devices) FROM live WHERE live.provider = waiting.queue) AS most_devices,
       (SELECT string_agg(DISTINCT live.provider, ', ' ORDER BY live.provider) FROM live) AS valid_providers,
       (SELECT jsonb_path_query_first(worker.details,
                   '$.trainer.providers[*] ? (@.name == $name && @.available == false).reason',
                   jsonb_build_object('name', waiting.queue), true) #>> '{}' AS reason
        FROM workers AS worker
        WHERE worker.stopped_at IS NULL AND worker.heard_at > now() - make_interval(secs => $2)
        ORDER BY reason NULLS LAST LIMIT 1) AS hindrance
FROM jobs AS waiting
WHERE waiting.state = 'queued' AND waiting.waiting_since <= now() - make_interval(secs => $1)
ORDER BY waiting.waiting_since LIMIT 200
FOR NO KEY UPDATE OF waiting SKIP LOCKED
