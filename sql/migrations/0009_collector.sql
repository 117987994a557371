-- min_compatible: 1
-- What the storage need not keep. A checkpoint is first marked, in a transaction of its own, so that no job can be
-- given it any more; then its object is removed; then the row says so. The row itself stays: it is the record.
ALTER TABLE checkpoints
    ADD COLUMN collected_at timestamptz,
    ADD COLUMN removed_at timestamptz,
    ADD CONSTRAINT checkpoints_removed_after_collected CHECK (removed_at IS NULL OR collected_at IS NOT NULL);
CREATE INDEX checkpoints_kept ON checkpoints (job_id) WHERE collected_at IS NULL;
CREATE INDEX checkpoints_leaving ON checkpoints (collected_at) WHERE collected_at IS NOT NULL AND removed_at IS NULL;

-- Checkpoints that nothing will be resumed from: all of a job that ended so long ago, and of a job that goes on those
-- beyond its save_total_limit (none without one). Never the newest of a job that has not ended.
CREATE FUNCTION superseded_checkpoints(keep interval)
RETURNS TABLE (job_id uuid, epoch bigint, step bigint, uri text, size_bytes bigint, reason text)
LANGUAGE sql STABLE
SET search_path = modelforge, pg_temp
AS $$
    SELECT held.job_id, held.epoch, held.step, held.uri, held.size_bytes,
           CASE WHEN held.ended THEN 'the job has ended' ELSE 'save_total_limit' END
    FROM (SELECT checkpoint.job_id, checkpoint.epoch, checkpoint.step, checkpoint.uri, checkpoint.size_bytes,
                 job.finished_at IS NOT NULL AND job.finished_at <= now() - keep AS ended,
                 job.finished_at IS NULL AS goes_on,
                 (config.config ->> 'save_total_limit')::bigint AS wanted,
                 row_number() OVER (PARTITION BY checkpoint.job_id
                                    ORDER BY checkpoint.epoch DESC, checkpoint.step DESC) AS place
          FROM checkpoints AS checkpoint
          JOIN jobs AS job ON job.id = checkpoint.job_id
          JOIN job_configs AS config ON config.job_id = checkpoint.job_id
          WHERE checkpoint.collected_at IS NULL) AS held
    WHERE held.ended OR (held.goes_on AND held.place > held.wanted)
$$;

CREATE OR REPLACE VIEW job_checkpoints AS
SELECT checkpoint.job_id, checkpoint.epoch AS attempt, checkpoint.step, checkpoint.uri, checkpoint.size_bytes,
       encode(checkpoint.sha256, 'hex') AS sha256, checkpoint.recorded_at, checkpoint.collected_at, checkpoint.removed_at
FROM checkpoints AS checkpoint;

REVOKE ALL ON FUNCTION superseded_checkpoints(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION superseded_checkpoints(interval) TO modelforge_worker;
GRANT UPDATE (collected_at, removed_at) ON checkpoints TO modelforge_worker;
