-- min_compatible: 1
-- Caps and weights are set by people, not by workers: a worker moves the counts and no more. Who set what, and when, stays.
REVOKE INSERT, UPDATE ON tenant_queues FROM modelforge_worker;
GRANT INSERT (queue, tenant), UPDATE (ready, running) ON tenant_queues TO modelforge_worker;

CREATE TABLE queue_changes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue      text NOT NULL,
    tenant     text NOT NULL,
    cap        integer,                           -- as it is since; null: no cap
    weight     double precision NOT NULL,
    changed_by text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE VIEW queue_change_log AS
SELECT change.id AS change_id, change.queue AS provider, change.tenant, change.cap, change.weight, change.changed_by,
       change.changed_at
FROM queue_changes AS change;

-- share: the part of the provider's places that the tenant gets while all who have work now want more; null without work.
CREATE OR REPLACE VIEW queue_depth AS
SELECT queue.queue AS provider, queue.tenant, queue.ready, queue.running, queue.cap, queue.weight,
       coalesce(active.delayed, 0) AS delayed, coalesce(active.paused, 0) AS paused,
       coalesce(active.unplaceable, 0) AS unplaceable, active.oldest_ready_at,
       CASE WHEN queue.ready + queue.running > 0
            THEN queue.weight / sum(queue.weight) FILTER (WHERE queue.ready + queue.running > 0)
                                OVER (PARTITION BY queue.queue) END AS share
FROM tenant_queues AS queue
LEFT JOIN (SELECT job.queue, job.tenant,
                  count(*) FILTER (WHERE job.state = 'queued' AND job.ready_at IS NULL) AS delayed,
                  count(*) FILTER (WHERE job.state = 'paused') AS paused,
                  count(*) FILTER (WHERE job.waiting_since IS NOT NULL) AS unplaceable,
                  min(job.ready_at) AS oldest_ready_at
           FROM jobs AS job WHERE job.state IN ('queued', 'running', 'paused')
           GROUP BY job.queue, job.tenant) AS active
       ON active.queue = queue.queue AND active.tenant = queue.tenant;

GRANT SELECT ON queue_change_log TO modelforge_worker, modelforge_reader;
