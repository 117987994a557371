-- Invariant: one running job is asked to give way for each job that waits for it, never more. The one that waits is the
-- first of its tenant in its queue, has waited $1 seconds, and is of higher priority and before the other in the order of
-- claims, so that it gets the place; jobs of other tenants are never touched, and none gives way while a live worker
-- has room that the tenant may use, or while another tenant would get the place. Where there is
-- no room, only a job gives way whose place the other can use: its worker fits, and its GPUs, with free ones, are enough.
WITH RECURSIVE live AS MATERIALIZED (
    SELECT * FROM workers AS worker WHERE is_live(worker)
), holding AS MATERIALIZED (
    SELECT live.worker_id, count(job.id) AS jobs,
           coalesce(sum(job_gpus(job.needs, job.queue = ANY (live.on_gpu), live.gpus <> '[]'))
                    FILTER (WHERE job.id IS NOT NULL), 0) AS gpus
    FROM live
    LEFT JOIN job_leases AS lease ON lease.worker_id = live.worker_id
    LEFT JOIN jobs AS job ON job.id = lease.job_id
    GROUP BY live.worker_id
), share AS MATERIALIZED (
    SELECT DISTINCT share.queue, share.tenant, share.running, share.weight, share.cap
    FROM jobs AS running
    JOIN tenant_load AS share ON share.queue = running.queue AND share.tenant = running.tenant
    WHERE running.state = 'running' AND running.preemptible AND share.ready > 0
), kind AS (
    SELECT share.queue, share.tenant, first.needs_hash, first.needs
    FROM share
    CROSS JOIN LATERAL (SELECT job.needs_hash, job.needs FROM ready_jobs AS job
                        WHERE job.queue = share.queue AND job.tenant = share.tenant
                        ORDER BY job.needs_hash LIMIT 1) AS first
    UNION ALL
    SELECT kind.queue, kind.tenant, next.needs_hash, next.needs
    FROM kind
    CROSS JOIN LATERAL (SELECT job.needs_hash, job.needs FROM ready_jobs AS job
                        WHERE job.queue = kind.queue AND job.tenant = kind.tenant
                          AND job.needs_hash > kind.needs_hash
                        ORDER BY job.needs_hash LIMIT 1) AS next
), head AS (
    SELECT DISTINCT ON (kind.queue, kind.tenant) kind.queue, kind.tenant, kind.needs, first.priority,
           first.claim_order, first.ready_at
    FROM kind
    CROSS JOIN LATERAL (SELECT job.id, job.priority, job.claim_order, job.ready_at
                        FROM ready_jobs AS ready
                        JOIN jobs AS job ON job.id = ready.job_id
                        WHERE ready.queue = kind.queue AND ready.tenant = kind.tenant
                          AND ready.needs_hash = kind.needs_hash
                        ORDER BY ready.claim_order, ready.job_id LIMIT 1) AS first
    ORDER BY kind.queue, kind.tenant, first.claim_order, first.id
), place AS MATERIALIZED (
    SELECT head.queue, head.tenant, live.worker_id, live.slots - holding.jobs AS free_slots, holding.gpus AS held_gpus,
           cardinality(live.gpu_memory) AS gpus,
           job_gpus(head.needs, head.queue = ANY (live.on_gpu), live.gpus <> '[]') AS needed_gpus,
           live.on_gpu, live.gpus <> '[]' AS has_gpus
    FROM head
    CROSS JOIN live
    JOIN holding ON holding.worker_id = live.worker_id
    WHERE job_fits(head.needs, head.queue = ANY (live.on_cpu), head.queue = ANY (live.on_gpu),
                   head.queue = ANY (live.many_gpus), live.gpus <> '[]', live.gpu_memory, live.labels)
), waiting AS (
    SELECT head.*, share.running, share.weight, share.cap,
           EXISTS (SELECT FROM place
                   WHERE place.queue = head.queue AND place.tenant = head.tenant AND place.free_slots > 0
                     AND (place.needed_gpus = 0 OR place.held_gpus + place.needed_gpus <= place.gpus)) AS has_room
    FROM head
    JOIN share ON share.queue = head.queue AND share.tenant = head.tenant
), pair AS (
    SELECT victim.id
    FROM waiting
    CROSS JOIN LATERAL (SELECT job.id FROM jobs AS job
                        JOIN job_leases AS lease ON lease.job_id = job.id
                        LEFT JOIN place ON place.queue = waiting.queue AND place.tenant = waiting.tenant
                                           AND place.worker_id = lease.worker_id
                        WHERE job.queue = waiting.queue AND job.tenant = waiting.tenant AND job.state = 'running'
                          AND job.preemptible AND job.desired = 'run' AND job.priority < waiting.priority
                          AND job.claim_order > waiting.claim_order
                          AND (waiting.has_room
                               OR place.needed_gpus = 0
                               OR place.needed_gpus <= place.gpus - place.held_gpus
                                                       + job_gpus(job.needs, job.queue = ANY (place.on_gpu), place.has_gpus))
                        ORDER BY job.claim_order DESC, job.id LIMIT 1) AS victim
    WHERE waiting.ready_at <= now() - make_interval(secs => $1)
      AND (NOT waiting.has_room OR waiting.running >= waiting.cap)
      AND NOT EXISTS (SELECT FROM jobs AS leaving
                      WHERE leaving.queue = waiting.queue AND leaving.tenant = waiting.tenant
                        AND leaving.state = 'running' AND leaving.preempted_at IS NOT NULL)
      AND (waiting.running >= waiting.cap AND waiting.has_room
           OR NOT EXISTS (SELECT FROM tenant_load AS other
                          WHERE other.queue = waiting.queue AND other.tenant <> waiting.tenant AND other.ready > 0
                            AND (other.cap IS NULL OR other.running < other.cap)
                            AND other.running / other.weight <= (waiting.running - 1) / waiting.weight))
), locked AS (
    SELECT job.id FROM jobs AS job WHERE job.id IN (SELECT id FROM pair) AND job.state = 'running'
    FOR NO KEY UPDATE OF job SKIP LOCKED
)
UPDATE jobs SET preempted_at = now()
WHERE id IN (SELECT id FROM locked) AND state = 'running' AND preempted_at IS NULL
RETURNING id, lease_epoch
