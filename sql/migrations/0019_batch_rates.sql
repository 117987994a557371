-- min_compatible: 18
-- Batches whose jobs come over many connections, and the progress of a large one.

-- Invariant: whoever adds a job to a batch either changes its row or holds it shared, so that a reaper, which locks it to
-- decide, waits or leaves it out until the job can be seen. Shared where nothing is to be changed: a batch that is open
-- and was not marked as quiet; else all that add to a batch would follow one another through their commits. Batches in
-- one order: two of these cannot deadlock.
CREATE OR REPLACE FUNCTION batch_grows() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = modelforge, pg_temp
AS $$
DECLARE
    grown record;
BEGIN
    FOR grown IN SELECT DISTINCT tenant, batch_id FROM added WHERE batch_id IS NOT NULL ORDER BY tenant, batch_id LOOP
        PERFORM FROM batches AS batch
        WHERE batch.tenant = grown.tenant AND batch.batch_id = grown.batch_id AND batch.quiet_since IS NULL
          AND batch.finished_at IS NULL
        FOR SHARE;
        CONTINUE WHEN FOUND;
        INSERT INTO batches AS batch (tenant, batch_id) VALUES (grown.tenant, grown.batch_id)
        ON CONFLICT (tenant, batch_id) DO UPDATE
        SET round = batch.round + (batch.finished_at IS NOT NULL)::integer, quiet_since = NULL, finished_at = NULL;
    END LOOP;
    RETURN NULL;
END
$$;
ALTER TABLE batches DROP COLUMN changed_at; -- nobody reads it

-- Where a job stands, without what it was asked for; retried: a later generation counts in its place.
CREATE VIEW job_states AS
SELECT job.id AS job_id, job.tenant, job.request_id, job.generation, job.state,
       EXISTS (SELECT FROM jobs AS later WHERE later.retry_of = job.id) AS retried
FROM jobs AS job;
GRANT SELECT ON job_states TO modelforge_worker, modelforge_reader;
