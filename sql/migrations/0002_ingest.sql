-- min_compatible: 1
-- From Kafka: how far each partition was taken, what was refused, which commands came.

-- Kafka's committed offsets are telemetry; these are the truth. The anchor is the last record taken: whoever goes on
-- from here reads it again and compares.
CREATE TABLE ingest_offsets (
    cluster_id       text NOT NULL,
    topic            text NOT NULL,
    partition        integer NOT NULL,
    next_offset      bigint NOT NULL,
    anchor_offset    bigint,
    anchor_timestamp timestamptz,
    anchor_key_hash  bytea,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster_id, topic, partition)
) WITH (fillfactor = 50);

-- A partition with an open row is not consumed until an operator resets it.
CREATE TABLE ingest_gaps (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster_id      text NOT NULL,
    topic           text NOT NULL,
    partition       integer NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('anchor_mismatch', 'out_of_range', 'low_watermark')),
    expected_offset bigint NOT NULL,
    found_offset    bigint NOT NULL,
    detail          text NOT NULL,
    noticed_at      timestamptz NOT NULL DEFAULT now(),
    closed_at       timestamptz
);
CREATE UNIQUE INDEX ingest_gaps_open ON ingest_gaps (cluster_id, topic, partition) WHERE closed_at IS NULL;

CREATE TABLE ingest_rejects (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster_id       text NOT NULL,
    topic            text NOT NULL,
    partition        integer NOT NULL,
    record_offset    bigint NOT NULL,
    record_timestamp timestamptz,
    code             text NOT NULL,
    reason           text NOT NULL,
    record_key       bytea,
    record_value     bytea,                       -- null when too large to keep
    value_bytes      bigint NOT NULL,
    value_sha256     bytea NOT NULL,
    rejected_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ingest_rejects_time ON ingest_rejects (rejected_at);

CREATE TABLE commands (
    command_id          uuid PRIMARY KEY,         -- a repeat is dropped
    tenant              text NOT NULL,
    request_id          text NOT NULL,
    action              text NOT NULL CHECK (action IN ('cancel', 'pause', 'resume', 'retry')),
    expected_generation integer,
    reason              text,
    requested_by        text,
    job_id              uuid REFERENCES jobs,     -- null while it waits for its request
    outcome             text NOT NULL CHECK (outcome IN ('waiting', 'applied', 'ignored')),
    expires_at          timestamptz,              -- waiting: a request that comes later is not touched
    received_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX commands_waiting ON commands (tenant, request_id) WHERE outcome = 'waiting';
