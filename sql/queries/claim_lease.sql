-- Invariant: one lease a job (primary key) and one attempt an epoch, made with the claim.
WITH lease AS (
    INSERT INTO job_leases (job_id, epoch, incarnation, worker_id)
    SELECT $1, $2, incarnation, $3 FROM incarnation
    RETURNING incarnation
), attempt AS (
    INSERT INTO job_attempts (job_id, epoch, worker_id, host)
    VALUES ($1, $2, $3, (SELECT host FROM workers WHERE worker_id = $3))
    RETURNING attempt_id
)
SELECT lease.incarnation, attempt.attempt_id, config.config, newest.uri, newest.step, newest.sha256
FROM lease
CROSS JOIN attempt
JOIN job_configs AS config ON config.job_id = $1
LEFT JOIN LATERAL (SELECT checkpoint.uri, checkpoint.step, encode(checkpoint.sha256, 'hex') AS sha256
                   FROM checkpoints AS checkpoint
                   WHERE checkpoint.job_id = $1 AND checkpoint.collected_at IS NULL
                   ORDER BY checkpoint.epoch DESC, checkpoint.step DESC LIMIT 1) AS newest ON true
