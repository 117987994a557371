-- Invariant: read only. One row: of these records (topic $1, partitions $2, offsets $3, in step) how many were taken in;
-- of these jobs ($4) how many are in each state, in the order of enum mf_job_state. A job that is not there yet counts nowhere.
SELECT (SELECT count(*) FROM unnest($2::integer[], $3::bigint[]) AS sent (partition, record_offset)
        JOIN ingest_status USING (partition)
        WHERE ingest_status.topic = $1 AND next_offset > sent.record_offset) AS taken,
       count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'running'),
       count(*) FILTER (WHERE state = 'paused'), count(*) FILTER (WHERE state = 'succeeded'),
       count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'cancelled')
FROM job_overview
WHERE job_id = ANY ($4::uuid[])
