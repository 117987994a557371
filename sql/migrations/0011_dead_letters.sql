-- min_compatible: 1
-- Events and dead letters are fetched apart, and a dead letter can be sent again.
DROP INDEX outbox_waiting;
CREATE INDEX outbox_events ON outbox (shard, id) WHERE parked_at IS NULL AND reject_id IS NULL;
CREATE INDEX outbox_dead_letters ON outbox (shard, id) WHERE parked_at IS NULL AND reject_id IS NOT NULL;

-- Where a rejected record was sent again, and by whom. The new record is judged like any other.
CREATE TABLE reject_replays (
    reject_id     bigint NOT NULL REFERENCES ingest_rejects,
    topic         text NOT NULL,
    partition     integer NOT NULL,
    record_offset bigint NOT NULL,
    replayed_by   text NOT NULL,
    replayed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (reject_id, partition, record_offset)
);

CREATE OR REPLACE VIEW reject_log AS
SELECT reject.id AS reject_id, reject.topic, reject.partition, reject.record_offset, reject.record_timestamp,
       reject.code, reject.reason, reject.value_bytes, encode(reject.value_sha256, 'hex') AS value_sha256,
       reject.rejected_at,
       (SELECT max(replay.replayed_at) FROM reject_replays AS replay WHERE replay.reject_id = reject.id) AS replayed_at
FROM ingest_rejects AS reject;

-- The bytes themselves are what a producer sent, whoever it was: not for every reader.
CREATE VIEW reject_content AS
SELECT reject.id AS reject_id, reject.record_key, reject.record_value
FROM ingest_rejects AS reject;

CREATE VIEW replay_log AS
SELECT replay.reject_id, replay.topic, replay.partition, replay.record_offset, replay.replayed_by, replay.replayed_at
FROM reject_replays AS replay;
GRANT SELECT ON replay_log TO modelforge_worker, modelforge_reader;
