-- Invariant: read only. Rejects and the offset move in one transaction, so a record that was taken in and has no reject
-- became a job or was known. A reject older than a day is of a topic that has been made anew since.
SELECT position.taken, refused.code, refused.reason
FROM (SELECT EXISTS (SELECT FROM ingest_status WHERE topic = $1 AND partition = $2 AND next_offset > $3) AS taken) AS position
LEFT JOIN LATERAL (SELECT code, reason FROM reject_log
                   WHERE position.taken AND topic = $1 AND partition = $2 AND record_offset = $3
                     AND rejected_at > now() - interval '1 day'
                   ORDER BY reject_id DESC LIMIT 1) AS refused ON true
