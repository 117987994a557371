-- Invariant: in the transaction that closes the gap; without an anchor the worker starts exactly at next_offset.
INSERT INTO ingest_offsets (cluster_id, topic, partition, next_offset)
VALUES ($1, $2, $3, $4)
ON CONFLICT (cluster_id, topic, partition) DO UPDATE
SET next_offset = excluded.next_offset, anchor_offset = NULL, anchor_timestamp = NULL, anchor_key_hash = NULL,
    updated_at = now()
