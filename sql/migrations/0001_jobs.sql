-- min_compatible: 1
-- Jobs, what they were asked for, who runs them, and the queues that share workers out between tenants.

-- One row. A lease carries the incarnation it was taken in; a restore renews it, so that a lease taken in the lost
-- time line can never look like one of the new.
CREATE TABLE incarnation (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    incarnation uuid NOT NULL DEFAULT gen_random_uuid(),
    renewed_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO incarnation DEFAULT VALUES;

CREATE TABLE jobs (
    id             uuid PRIMARY KEY,
    tenant         text NOT NULL,
    request_id     text NOT NULL,
    generation     integer NOT NULL DEFAULT 1,
    retry_of       uuid REFERENCES jobs,
    batch_id       text,
    queue          text NOT NULL,                 -- the provider's name: workers claim from what they advertise
    priority       integer NOT NULL,
    devices        integer NOT NULL CHECK (devices >= 1),
    state          text NOT NULL DEFAULT 'queued'
                   CHECK (state IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
    desired        text NOT NULL DEFAULT 'run' CHECK (desired IN ('run', 'pause', 'cancel')),
    not_before     timestamptz,                   -- run_at, later the end of a back-off
    ready_at       timestamptz,                   -- null until not_before has passed; null unless queued
    -- Place in the queue: arrival (or run_at) minus an hour a priority level, so that a waiting job gains one level
    -- an hour. Fixed at arrival: a job that comes back keeps its place.
    claim_order    timestamptz NOT NULL,
    deadline       timestamptz,
    waiting_reason text,                          -- why no live worker can take it
    waiting_since  timestamptz,
    attempts       integer NOT NULL DEFAULT 0,    -- trainer failures
    max_attempts   integer NOT NULL CHECK (max_attempts >= 1),
    interruptions  integer NOT NULL DEFAULT 0,    -- since the last new checkpoint
    drains         integer NOT NULL DEFAULT 0,    -- since the last new checkpoint
    lease_epoch    bigint NOT NULL DEFAULT 0,     -- the fencing token's truth
    error_code     text,
    error_message  text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    started_at     timestamptz,
    finished_at    timestamptz,
    UNIQUE (tenant, request_id, generation),
    CHECK (ready_at IS NULL OR state = 'queued'),
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled')))
) WITH (fillfactor = 80);
CREATE INDEX jobs_claim ON jobs (queue, tenant, claim_order, id) WHERE state = 'queued' AND ready_at IS NOT NULL;
CREATE INDEX jobs_due ON jobs (not_before) WHERE state = 'queued' AND ready_at IS NULL;
CREATE INDEX jobs_deadline ON jobs (deadline)
    WHERE deadline IS NOT NULL AND state IN ('queued', 'running', 'paused');
CREATE INDEX jobs_active ON jobs (state, queue) WHERE state IN ('queued', 'running', 'paused');
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_batch ON jobs (tenant, batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX jobs_created ON jobs (created_at);

-- What was asked for, where it came from, what came out.
CREATE TABLE job_configs (
    job_id           uuid PRIMARY KEY REFERENCES jobs,
    config           jsonb NOT NULL,
    result           jsonb,
    submitted_by     text,                        -- as the producer says; not authenticated
    source_topic     text NOT NULL,
    source_partition integer NOT NULL,
    source_offset    bigint NOT NULL,
    source_timestamp timestamptz,
    schema_id        integer NOT NULL,
    request_sha256   bytea NOT NULL,              -- of the message's bytes
    trace_context    text
);

-- Deduplication that outlives jobs: the same key with the same hash is the same request.
CREATE TABLE request_keys (
    tenant       text NOT NULL,
    request_id   text NOT NULL,
    request_hash bytea NOT NULL,
    job_id       uuid NOT NULL,                   -- newest generation
    first_seen   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, request_id)
);

-- Counts move in the transaction that moves the job.
CREATE TABLE tenant_queues (
    queue   text NOT NULL,
    tenant  text NOT NULL,
    ready   integer NOT NULL DEFAULT 0 CHECK (ready >= 0),
    running integer NOT NULL DEFAULT 0 CHECK (running >= 0),
    cap     integer CHECK (cap >= 0),             -- jobs at once; null: no cap
    weight  double precision NOT NULL DEFAULT 1 CHECK (weight > 0),
    PRIMARY KEY (queue, tenant)
) WITH (fillfactor = 50);

-- Who runs a job now. A lease is a counter, not a time: `beat` moves while its holder lives.
CREATE TABLE job_leases (
    job_id        uuid PRIMARY KEY REFERENCES jobs,
    epoch         bigint NOT NULL,
    incarnation   uuid NOT NULL,
    worker_id     text NOT NULL,
    beat          bigint NOT NULL DEFAULT 0,
    metrics_batch bigint NOT NULL DEFAULT 0       -- number of the last metrics batch taken
) WITH (fillfactor = 50);
CREATE INDEX job_leases_worker ON job_leases (worker_id);

-- One row a claim: where and with what it ran, how it ended.
CREATE TABLE job_attempts (
    job_id              uuid NOT NULL REFERENCES jobs,
    epoch               bigint NOT NULL,
    attempt_id          uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    worker_id           text NOT NULL,
    host                text,
    started_at          timestamptz NOT NULL DEFAULT now(),
    ended_at            timestamptz,
    outcome             text CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'paused', 'lease_lost', 'drain',
                                                'restart', 'watchdog')),
    error_code          text,
    error_message       text,
    -- what it ran on
    device              text,
    gpu_uuids           jsonb,
    versions            jsonb,
    numeric_plan_sha256 bytea,
    dataset_sha256      bytea,
    base_revision       text,
    base_sha256         bytea,
    seed                bigint,
    resumed_from_step   bigint,                   -- null until training starts; 0: from the start
    managed_bytes       bigint,
    total_steps         bigint,
    train_rows          bigint,
    eval_rows           bigint,
    train_tokens        bigint,
    truncated_rows      bigint,
    dropped_rows        bigint,
    -- how far it came
    phase               text,
    phase_fraction      double precision,
    step                bigint,
    trained_tokens      bigint,
    training_seconds    double precision,
    loss                double precision,
    tokens_per_second   double precision,
    progress_at         timestamptz,
    log_rows            integer NOT NULL DEFAULT 0,
    PRIMARY KEY (job_id, epoch)
) WITH (fillfactor = 80);

CREATE TABLE workers (
    worker_id  text PRIMARY KEY,
    host       text NOT NULL,
    boot_id    text NOT NULL,
    version    text NOT NULL,
    providers  text[] NOT NULL,                   -- those it offered last stay after it stopped: known names
    slots      integer NOT NULL,
    devices    integer NOT NULL,
    details    jsonb NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heard_at   timestamptz NOT NULL DEFAULT now(),
    stopped_at timestamptz
) WITH (fillfactor = 50);
