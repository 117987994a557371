-- Invariant: once a round: open -> finished under the batch's lock, only with no job left to do. A batch that is not as
-- quiet as it looked is open again and gives no row. The row: the job that ended last, and what became of all, retried
-- ones by their newest generation.
WITH summary AS (
    SELECT count(*) AS jobs, count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE state = 'failed') AS failed, count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
           bool_and(finished_at IS NOT NULL) AS ended
    FROM jobs AS job
    WHERE tenant = $1 AND batch_id = $2 AND NOT EXISTS (SELECT FROM jobs AS later WHERE later.retry_of = job.id)
), last AS (
    SELECT id, state, lease_epoch FROM jobs
    WHERE tenant = $1 AND batch_id = $2
    ORDER BY finished_at DESC NULLS FIRST, id LIMIT 1
), written AS (
    UPDATE batches SET finished_at = CASE WHEN ended THEN now() END, quiet_since = CASE WHEN ended THEN quiet_since END
    FROM summary
    WHERE tenant = $1 AND batch_id = $2
    RETURNING batches.finished_at
)
SELECT last.id, last.state, last.lease_epoch, summary.jobs, summary.succeeded, summary.failed, summary.cancelled
FROM written CROSS JOIN last CROSS JOIN summary
WHERE written.finished_at IS NOT NULL
