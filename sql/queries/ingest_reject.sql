-- Invariant: a refused record is kept and goes to the dead-letter topic, in the transaction that moves past it.
WITH refused AS (
    INSERT INTO ingest_rejects (cluster_id, topic, partition, record_offset, record_timestamp, code, reason,
                                record_key, record_value, value_bytes, value_sha256)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    RETURNING id
)
INSERT INTO outbox (shard, reject_id)
SELECT ($3::integer % 16)::smallint, id FROM refused
