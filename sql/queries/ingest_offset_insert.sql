-- Invariant: the first batch of a partition makes its row; a second process that tries the same inserts nothing.
INSERT INTO ingest_offsets (cluster_id, topic, partition, next_offset, anchor_offset, anchor_timestamp,
                            anchor_key_hash)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING
RETURNING next_offset
