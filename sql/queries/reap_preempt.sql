-- Invariant: one running job is asked to give way for each job that waits for it, never more. The one that waits is the
-- first of its tenant in its queue, has waited $2 seconds, and is of higher priority and before the other in the order of
-- claims, so that it gets the place; jobs of other tenants are never touched, and none gives way while a live worker ($1:
-- seconds it may be silent) has a free slot that the tenant may use, or while another tenant would get the slot.
WITH offered AS (
    SELECT provider, sum(free) AS free
    FROM (SELECT UNNEST(worker.providers) AS provider,
                 worker.slots - (SELECT count(*) FROM job_leases AS lease WHERE lease.worker_id = worker.worker_id) AS free
          FROM workers AS worker
          WHERE worker.stopped_at IS NULL AND worker.heard_at > now() - make_interval(secs => $1)) AS live
    GROUP BY provider
), full_share AS (
    SELECT DISTINCT share.queue, share.tenant, share.running, share.weight, share.cap, offered.free
    FROM jobs AS running
    JOIN tenant_queues AS share ON share.queue = running.queue AND share.tenant = running.tenant
    JOIN offered ON offered.provider = share.queue
    WHERE running.state = 'running' AND running.preemptible AND share.ready > 0
      AND (offered.free <= 0 OR share.running >= share.cap)
), pair AS (
    SELECT victim.id
    FROM full_share
    CROSS JOIN LATERAL (SELECT head.priority, head.claim_order, head.ready_at FROM jobs AS head
                        WHERE head.queue = full_share.queue AND head.tenant = full_share.tenant
                          AND head.state = 'queued' AND head.ready_at IS NOT NULL
                        ORDER BY head.claim_order, head.id LIMIT 1) AS head
    CROSS JOIN LATERAL (SELECT job.id, job.priority FROM jobs AS job
                        WHERE job.queue = full_share.queue AND job.tenant = full_share.tenant AND job.state = 'running'
                          AND job.preemptible AND job.desired = 'run' AND job.priority < head.priority
                          AND job.claim_order > head.claim_order
                        ORDER BY job.claim_order DESC, job.id LIMIT 1) AS victim
    WHERE head.ready_at <= now() - make_interval(secs => $2)
      AND NOT EXISTS (SELECT FROM jobs AS leaving
                      WHERE leaving.queue = full_share.queue AND leaving.tenant = full_share.tenant
                        AND leaving.state = 'running' AND leaving.preempted_at IS NOT NULL)
      AND (full_share.running >= full_share.cap AND full_share.free > 0
           OR NOT EXISTS (SELECT FROM tenant_queues AS other
                          WHERE other.queue = full_share.queue AND other.tenant <> full_share.tenant AND other.ready > 0
                            AND (other.cap IS NULL OR other.running < other.cap)
                            AND other.running / other.weight <= (full_share.running - 1) / full_share.weight))
), locked AS (
    SELECT job.id FROM jobs AS job WHERE job.id IN (SELECT id FROM pair) AND job.state = 'running'
    FOR NO KEY UPDATE OF job SKIP LOCKED
)
UPDATE jobs SET preempted_at = now()
WHERE id IN (SELECT id FROM locked) AND state = 'running' AND preempted_at IS NULL
RETURNING id, lease_epoch
