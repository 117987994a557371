-- Invariant: apart from the events, so that a dead-letter topic that takes nothing holds up no event. Values of more than
-- $4 bytes stay here.
SELECT waiting.id, waiting.reject_id, refused.code, refused.reason, refused.topic, refused.partition,
       refused.record_offset, refused.record_key,
       CASE WHEN refused.value_bytes <= $4 THEN refused.record_value END AS record_value
FROM outbox AS waiting
JOIN ingest_rejects AS refused ON refused.id = waiting.reject_id
WHERE waiting.shard = $1 AND waiting.id > $2 AND waiting.parked_at IS NULL AND waiting.reject_id IS NOT NULL
ORDER BY waiting.id
LIMIT $3
