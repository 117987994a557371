-- min_compatible: 1
-- Pause, resume and retry: commands act in the order they came, say why they did nothing, and end as expired when
-- their request never comes; a retry is a new generation.
ALTER TABLE commands
    ADD COLUMN sequence bigint GENERATED ALWAYS AS IDENTITY, -- received_at is the same for a whole batch
    ADD COLUMN note text,                                    -- ignored: why
    DROP CONSTRAINT commands_outcome_check,
    ADD CONSTRAINT commands_outcome_check CHECK (outcome IN ('waiting', 'applied', 'ignored', 'expired'));
CREATE INDEX commands_expiring ON commands (expires_at) WHERE outcome = 'waiting';

-- The state table knows no other: a queued job is to run, a paused one to pause, a cancelled one to be cancelled.
ALTER TABLE jobs ADD CONSTRAINT jobs_state_desired_check
    CHECK (CASE state WHEN 'queued' THEN desired = 'run' WHEN 'paused' THEN desired = 'pause'
                      WHEN 'cancelled' THEN desired = 'cancel' ELSE true END);
CREATE UNIQUE INDEX jobs_retry_of ON jobs (retry_of) WHERE retry_of IS NOT NULL;

GRANT UPDATE (job_id) ON request_keys TO modelforge_worker;
GRANT UPDATE (note) ON commands TO modelforge_worker;

CREATE OR REPLACE VIEW command_log AS
SELECT command.command_id, command.tenant, command.request_id, command.action, command.expected_generation,
       command.reason, command.requested_by, command.job_id, command.outcome, command.expires_at,
       command.received_at, command.note
FROM commands AS command;

-- A job that was tried again counts as its newest generation.
CREATE OR REPLACE VIEW batch_summary AS
SELECT job.tenant, job.batch_id, count(*) AS jobs,
       count(*) FILTER (WHERE job.state = 'queued') AS queued,
       count(*) FILTER (WHERE job.state = 'running') AS running,
       count(*) FILTER (WHERE job.state = 'paused') AS paused,
       count(*) FILTER (WHERE job.state = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE job.state = 'failed') AS failed,
       count(*) FILTER (WHERE job.state = 'cancelled') AS cancelled,
       min(job.created_at) AS created_at,
       CASE WHEN bool_and(job.finished_at IS NOT NULL) THEN max(job.finished_at) END AS finished_at
FROM jobs AS job
WHERE job.batch_id IS NOT NULL AND NOT EXISTS (SELECT FROM jobs AS later WHERE later.retry_of = job.id)
GROUP BY job.tenant, job.batch_id;
