-- Invariant: read only. What did not succeed: of these records (topic $1, partitions $2, offsets $3) the rejected ones,
-- of these jobs ($4), each by its newest generation, those that ended otherwise than well. A reject older than a day is of
-- a topic that was made anew.
SELECT newest.request_id, newest.state, newest.error_code, newest.error_message
FROM job_overview AS first
CROSS JOIN LATERAL (SELECT later.request_id, later.state, later.error_code, later.error_message FROM job_overview AS later
                    WHERE later.tenant = first.tenant AND later.request_id = first.request_id
                    ORDER BY later.generation DESC LIMIT 1) AS newest
WHERE first.job_id = ANY ($4::uuid[]) AND newest.state IN ('failed', 'cancelled')
UNION ALL
SELECT NULL, 'rejected', refused.code, format('partition %s, offset %s: %s', refused.partition, refused.record_offset, refused.reason)
FROM unnest($2::integer[], $3::bigint[]) AS sent (partition, record_offset)
JOIN reject_log AS refused USING (partition, record_offset)
WHERE refused.topic = $1 AND refused.rejected_at > now() - interval '1 day'
ORDER BY 1
