-- Invariant: read only; tells a repeated finish from a lost lease.
SELECT attempt.outcome, job.state
FROM job_attempts AS attempt
JOIN jobs AS job ON job.id = attempt.job_id
WHERE attempt.job_id = $1 AND attempt.epoch = $2 AND attempt.worker_id = $3 AND attempt.ended_at IS NOT NULL
