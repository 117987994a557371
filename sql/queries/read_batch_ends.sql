-- Invariant: read only. What did not succeed: of these records (topic $1, partitions $2, offsets $3) the rejected ones,
-- of these jobs ($4) those that ended otherwise than well. A reject older than a day is of a topic that was made anew.
SELECT request_id, state, error_code, error_message
FROM job_overview
WHERE job_id = ANY ($4::uuid[]) AND state IN ('failed', 'cancelled')
UNION ALL
SELECT NULL, 'rejected', refused.code, format('partition %s, offset %s: %s', refused.partition, refused.record_offset, refused.reason)
FROM unnest($2::integer[], $3::bigint[]) AS sent (partition, record_offset)
JOIN reject_log AS refused USING (partition, record_offset)
WHERE refused.topic = $1 AND refused.rejected_at > now() - interval '1 day'
ORDER BY 1
