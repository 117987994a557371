-- Invariant: read only, through the public view.
SELECT started_at::timestamptz(0) AS started_at, tenant, request_id, attempt, provider, model_name, worker_id,
       device, coalesce(outcome, 'running') AS outcome, error_code, round(duration_seconds::numeric, 1) AS seconds,
       step, total_steps, trained_tokens, round(loss::numeric, 4) AS loss
FROM run_history
WHERE $1::text IS NULL OR tenant = $1
ORDER BY run_history.started_at DESC, job_id, attempt DESC
LIMIT $2
