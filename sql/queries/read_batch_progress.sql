-- Invariant: read only. One row: of these records (topic $1, partitions $2, offsets $3, in step) how many were taken in;
-- of these jobs ($4), each by its newest generation, how many are in each state, in the order of enum mf_job_state. A job
-- that is not there yet counts nowhere.
WITH newest AS (
    SELECT CASE WHEN first.retried
                THEN (SELECT later.state FROM job_states AS later
                      WHERE later.tenant = first.tenant AND later.request_id = first.request_id
                      ORDER BY later.generation DESC LIMIT 1)
                ELSE first.state END AS state
    FROM job_states AS first
    WHERE first.job_id = ANY ($4::uuid[])
)
SELECT (SELECT count(*) FROM unnest($2::integer[], $3::bigint[]) AS sent (partition, record_offset)
        JOIN ingest_status USING (partition)
        WHERE ingest_status.topic = $1 AND next_offset > sent.record_offset) AS taken,
       count(*) FILTER (WHERE newest.state = 'queued'), count(*) FILTER (WHERE newest.state = 'running'),
       count(*) FILTER (WHERE newest.state = 'paused'), count(*) FILTER (WHERE newest.state = 'succeeded'),
       count(*) FILTER (WHERE newest.state = 'failed'), count(*) FILTER (WHERE newest.state = 'cancelled')
FROM newest
