-- min_compatible: 1
-- A job that may be preempted gives way to one of higher priority of its own tenant.
ALTER TABLE jobs
    ADD COLUMN preemptible boolean NOT NULL DEFAULT false,
    ADD COLUMN preempted_at timestamptz; -- running: its worker shall pause it and give it back
CREATE INDEX jobs_preemptible ON jobs (queue, tenant) WHERE state = 'running' AND preemptible;
ALTER TABLE job_attempts
    DROP CONSTRAINT job_attempts_outcome_check,
    ADD CONSTRAINT job_attempts_outcome_check
        CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'paused', 'lease_lost', 'drain', 'restart', 'watchdog',
                           'preempted'));
