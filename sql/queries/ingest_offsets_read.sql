-- Invariant: a partition with an open gap shows as halted even before it has a row of its own.
SELECT partition, position.next_offset, position.anchor_offset,
       (extract(epoch FROM position.anchor_timestamp) * 1000)::bigint AS anchor_timestamp,
       position.anchor_key_hash, gap.id IS NOT NULL AS halted
FROM (SELECT * FROM ingest_offsets WHERE cluster_id = $1 AND topic = $2) AS position
FULL JOIN (SELECT * FROM ingest_gaps WHERE cluster_id = $1 AND topic = $2 AND closed_at IS NULL) AS gap
     USING (partition)
ORDER BY partition
