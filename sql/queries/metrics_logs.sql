-- Invariant: lines are numbered from 1 an attempt and only the first $6 are kept; all are counted.
WITH counted AS (
    UPDATE job_attempts SET log_rows = log_rows + cardinality($3::text[])
    WHERE job_id = $1 AND epoch = $2
    RETURNING log_rows - cardinality($3::text[]) AS before
)
INSERT INTO job_logs (job_id, epoch, line, level, message, logged_at)
SELECT $1, $2, counted.before + log.place, log.level, log.message, log.logged_at
FROM counted,
     UNNEST($3::text[], $4::text[], $5::timestamptz[]) WITH ORDINALITY AS log (level, message, logged_at, place)
WHERE counted.before + log.place <= $6
