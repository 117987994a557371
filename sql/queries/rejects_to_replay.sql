-- Invariant: read only; the oldest first, those that were sent again already left out, only what is kept whole.
SELECT refused.reject_id
FROM reject_log AS refused
JOIN reject_content AS content ON content.reject_id = refused.reject_id
WHERE refused.code = $1 AND refused.replayed_at IS NULL AND (content.record_value IS NOT NULL OR refused.value_bytes = 0)
  AND refused.reject_id > $2
ORDER BY refused.reject_id
LIMIT $3
