-- Invariant: ready jobs that no live worker could take say why and since when. Kind by
-- kind: what one job of a queue with equal needs lacks, all lack.
WITH RECURSIVE live AS MATERIALIZED (
    SELECT * FROM workers AS worker WHERE is_live(worker)
), kind AS (
    SELECT share.queue, share.tenant, first.needs_hash, first.needs
    FROM tenant_load AS share
    CROSS JOIN LATERAL (SELECT job.needs_hash, job.needs FROM ready_jobs AS job
                        WHERE job.queue = share.queue AND job.tenant = share.tenant
                        ORDER BY job.needs_hash LIMIT 1) AS first
    WHERE share.ready > 0
    UNION ALL
    SELECT kind.queue, kind.tenant, next.needs_hash, next.needs
    FROM kind
    CROSS JOIN LATERAL (SELECT job.needs_hash, job.needs FROM ready_jobs AS job
                        WHERE job.queue = kind.queue AND job.tenant = kind.tenant
                          AND job.needs_hash > kind.needs_hash
                        ORDER BY job.needs_hash LIMIT 1) AS next
), lacking AS (
    SELECT kind.*, coalesce((kind.needs ->> 'gpus')::integer, 1) AS gpus, kind.needs -> 'labels' AS labels,
           offer.workers, offer.labelled, offer.most_gpus,
           CASE WHEN kind.needs ? 'labels' THEN ' with the labels ' || (kind.needs -> 'labels')::text ELSE '' END AS such
    FROM kind
    CROSS JOIN LATERAL (
        SELECT count(*) AS workers, count(*) FILTER (WHERE has_labels) AS labelled,
               max(CASE WHEN NOT has_labels OR kind.queue <> ALL (live.on_gpu) THEN 0
                        WHEN kind.queue = ANY (live.many_gpus) THEN cardinality(live.gpu_memory)
                        ELSE least(cardinality(live.gpu_memory), 1) END) AS most_gpus
        FROM live
        CROSS JOIN LATERAL (SELECT live.labels @> coalesce(kind.needs -> 'labels', '{}') AS has_labels) AS match
        WHERE kind.queue = ANY (live.providers)) AS offer
    WHERE NOT EXISTS (SELECT FROM live
                      WHERE job_fits(kind.needs, kind.queue = ANY (live.on_cpu), kind.queue = ANY (live.on_gpu),
                                     kind.queue = ANY (live.many_gpus), live.gpus <> '[]', live.gpu_memory, live.labels))
), reason AS (
    SELECT queue, tenant, needs_hash,
           CASE WHEN workers = 0
                    THEN format('no live worker offers provider ''%s''', queue) || coalesce(
                        (SELECT ': ' || (jsonb_path_query_first(live.details,
                             '$.trainer.providers[*] ? (@.name == $name && @.available == false).reason',
                             jsonb_build_object('name', queue), true) #>> '{}') AS hindrance
                         FROM live ORDER BY hindrance NULLS LAST LIMIT 1), '')
                WHEN labelled = 0 THEN format('no live worker of provider ''%s'' has the labels %s', queue, labels)
                WHEN needs ->> 'device' = 'cpu'
                    THEN format('no live worker%s runs provider ''%s'' on its CPU', such, queue)
                WHEN most_gpus = 0
                    THEN format('needs a GPU; no live worker%s has one that works for provider ''%s''', such, queue)
                WHEN most_gpus < gpus
                    THEN format('needs %s GPUs at once; no live worker%s gives a job of provider ''%s'' so many',
                                gpus, such, queue)
                ELSE format('needs %s of at least %s GiB of memory; no live worker%s of provider ''%s'' has that',
                            CASE WHEN gpus > 1 THEN gpus || ' GPUs' ELSE 'a GPU' END,
                            round((needs ->> 'gpu_memory_bytes')::numeric / 1073741824, 1), such, queue) END AS text
    FROM lacking
), found AS (
    SELECT waiting.id, reason.text
    FROM reason
    JOIN ready_jobs AS ready ON ready.queue = reason.queue AND ready.tenant = reason.tenant
                                AND ready.needs_hash = reason.needs_hash
    JOIN jobs AS waiting ON waiting.id = ready.job_id
    WHERE waiting.state = 'queued' AND waiting.ready_at IS NOT NULL
      AND waiting.waiting_reason IS DISTINCT FROM reason.text
    LIMIT 1000
    FOR NO KEY UPDATE OF waiting SKIP LOCKED
)
UPDATE jobs SET waiting_since = coalesce(jobs.waiting_since, now()), waiting_reason = found.text
FROM found
WHERE jobs.id = found.id AND jobs.state = 'queued'
