-- Invariant: read only, through the public view; newest first. $1 topic, $2 code: null for all.
SELECT reject_id, rejected_at::timestamptz(0) AS rejected_at, topic, partition, record_offset AS "offset", code,
       value_bytes AS bytes, replayed_at::timestamptz(0) AS replayed_at, reason
FROM reject_log
WHERE ($1::text IS NULL OR topic = $1) AND ($2::text IS NULL OR code = $2)
ORDER BY reject_id DESC
LIMIT $3
