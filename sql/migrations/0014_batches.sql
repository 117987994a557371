-- min_compatible: 1
-- When a batch has ended: once no job of it is left to do, and none came for a while, one `batch_finished` event. A job that
-- comes later (a late request, a retry) opens the next round.
CREATE TABLE batches (
    tenant      text NOT NULL,
    batch_id    text NOT NULL,
    round       integer NOT NULL DEFAULT 1,
    changed_at  timestamptz NOT NULL DEFAULT now(), -- the newest job came
    quiet_since timestamptz,                        -- no job of it is left to do; null: not so, or not looked at yet
    finished_at timestamptz,                        -- this round's event was written
    PRIMARY KEY (tenant, batch_id)
) WITH (fillfactor = 70);
CREATE INDEX batches_open ON batches (tenant, batch_id) WHERE finished_at IS NULL;
CREATE INDEX jobs_batch_live ON jobs (tenant, batch_id) WHERE batch_id IS NOT NULL AND finished_at IS NULL;

INSERT INTO batches (tenant, batch_id, changed_at, finished_at)
SELECT tenant, batch_id, max(created_at), CASE WHEN bool_and(finished_at IS NOT NULL) THEN max(finished_at) END
FROM jobs WHERE batch_id IS NOT NULL GROUP BY tenant, batch_id;

-- Invariant: whoever adds a job to a batch locks and changes the batch's row, always, so that a reaper that decides at the
-- same time waits or looks again. Batches in one order: two of these cannot deadlock.
CREATE FUNCTION batch_grows() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = modelforge, pg_temp
AS $$
BEGIN
    INSERT INTO batches AS batch (tenant, batch_id)
    SELECT DISTINCT tenant, batch_id FROM added WHERE batch_id IS NOT NULL ORDER BY tenant, batch_id
    ON CONFLICT (tenant, batch_id) DO UPDATE
    SET round = batch.round + (batch.finished_at IS NOT NULL)::integer, changed_at = now(), quiet_since = NULL,
        finished_at = NULL;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION batch_grows() FROM PUBLIC;
CREATE TRIGGER jobs_batch_grows AFTER INSERT ON jobs REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION batch_grows();

GRANT SELECT, UPDATE (quiet_since, finished_at) ON batches TO modelforge_worker;

CREATE OR REPLACE VIEW batch_summary AS
SELECT job.tenant, job.batch_id, count(*) AS jobs,
       count(*) FILTER (WHERE job.state = 'queued') AS queued,
       count(*) FILTER (WHERE job.state = 'running') AS running,
       count(*) FILTER (WHERE job.state = 'paused') AS paused,
       count(*) FILTER (WHERE job.state = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE job.state = 'failed') AS failed,
       count(*) FILTER (WHERE job.state = 'cancelled') AS cancelled,
       min(job.created_at) AS created_at,
       CASE WHEN bool_and(job.finished_at IS NOT NULL) THEN max(job.finished_at) END AS finished_at,
       batch.round, batch.finished_at AS announced_at
FROM jobs AS job
LEFT JOIN batches AS batch ON batch.tenant = job.tenant AND batch.batch_id = job.batch_id
WHERE job.batch_id IS NOT NULL AND NOT EXISTS (SELECT FROM jobs AS later WHERE later.retry_of = job.id)
GROUP BY job.tenant, job.batch_id, batch.round, batch.finished_at;
