-- Invariant: queued jobs that nobody could take for the grace time ($1 seconds), locked, with what is known: whether
-- a live worker offers the provider, whether one ever did, the names that live workers offer, what those that
-- offer it have, and why one that has it cannot offer it.
WITH live AS MATERIALIZED (
    SELECT * FROM workers AS worker WHERE is_live(worker)
)
SELECT waiting.id, waiting.state, waiting.queue, waiting.tenant, waiting.ready_at IS NOT NULL AS is_ready,
       waiting.lease_epoch, waiting.waiting_reason,
       EXISTS (SELECT FROM live WHERE waiting.queue = ANY (live.providers)) AS offered,
       EXISTS (SELECT FROM workers WHERE waiting.queue = ANY (workers.providers)) AS known,
       (SELECT string_agg(DISTINCT name, ', ' ORDER BY name) FROM live, UNNEST(live.providers) AS name) AS valid_providers,
       (SELECT string_agg(there.text, '; ' ORDER BY there.text)
        FROM (SELECT worker_id || ': '
                     || coalesce((SELECT string_agg(format('%s, %s GiB%s', gpu ->> 'name',
                                                           round((gpu ->> 'memory_bytes')::numeric / 1073741824, 1),
                                                           coalesce(' (out: ' || (gpu ->> 'fault') || ')', '')),
                                                    ' + ' ORDER BY gpu ->> 'uuid')
                                  FROM jsonb_array_elements(live.gpus) AS gpu), 'no GPU')
                     || CASE WHEN live.labels <> '{}' THEN ', labels ' || live.labels::text ELSE '' END AS text
              FROM live WHERE waiting.queue = ANY (live.providers)
              ORDER BY live.worker_id LIMIT 8) AS there) AS there,
       (SELECT jsonb_path_query_first(live.details,
                   '$.trainer.providers[*] ? (@.name == $name && @.available == false).reason',
                   jsonb_build_object('name', waiting.queue), true) #>> '{}' AS reason
        FROM live ORDER BY reason NULLS LAST LIMIT 1) AS hindrance
FROM jobs AS waiting
WHERE waiting.state = 'queued' AND waiting.waiting_since <= now() - make_interval(secs => $1)
ORDER BY waiting.waiting_since LIMIT 200
FOR NO KEY UPDATE OF waiting SKIP LOCKED
