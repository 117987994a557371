-- Invariant: the offset moves only from the value this process last saw, so a batch is taken once. Runs first in the
-- batch's transaction: its row lock keeps every other process out of the partition. An empty batch keeps the anchor.
UPDATE ingest_offsets
SET next_offset = $4,
    anchor_offset = coalesce($5, anchor_offset),
    anchor_timestamp = CASE WHEN $5::bigint IS NULL THEN anchor_timestamp ELSE $6 END,
    anchor_key_hash = coalesce($7, anchor_key_hash),
    updated_at = now()
WHERE cluster_id = $1 AND topic = $2 AND partition = $3 AND next_offset = $8 AND next_offset <= $4
RETURNING next_offset
