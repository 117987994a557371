-- Invariant: at most one open gap a partition (unique index), the first one stays.
INSERT INTO ingest_gaps (cluster_id, topic, partition, kind, expected_offset, found_offset, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (cluster_id, topic, partition) WHERE closed_at IS NULL DO NOTHING
