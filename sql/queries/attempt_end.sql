-- Invariant: running -> $3 with the lease and the attempt ended in the same statement, only for the epoch that was
-- locked. $4: milliseconds until it may be claimed again (queued; 0: now). The result is written with success.
WITH moved AS (
    UPDATE jobs
    SET state = $3, attempts = attempts + $5, interruptions = interruptions + $6, drains = drains + $7,
        error_code = $8, error_message = $9, preempted_at = NULL,
        ready_at = CASE WHEN $3 = 'queued' AND $4::bigint = 0 THEN now() END,
        not_before = CASE WHEN $3 = 'queued' AND $4 > 0 THEN now() + $4 * interval '1 millisecond' END,
        finished_at = CASE WHEN $3 IN ('succeeded', 'failed', 'cancelled') THEN now() END
    WHERE id = $1 AND state = 'running' AND lease_epoch = $2
    RETURNING id
), lease AS (
    DELETE FROM job_leases WHERE job_id = $1 AND epoch = $2
), attempt AS (
    UPDATE job_attempts
    SET ended_at = now(), outcome = $10, error_code = $8, error_message = $9
    WHERE job_id = $1 AND epoch = $2
), outcome AS (
    UPDATE job_configs SET result = $11::jsonb WHERE job_id = $1 AND $11::jsonb IS NOT NULL
)
SELECT id FROM moved
