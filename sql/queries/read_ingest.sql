-- Invariant: read only; every partition that was ever read, halted ones first.
SELECT cluster_id, topic, partition, next_offset, updated_at::timestamptz(0) AS updated_at, halted_by,
       expected_offset, found_offset, halted_at::timestamptz(0) AS halted_at
FROM ingest_status
ORDER BY halted_by IS NULL, topic, partition
