-- Invariant: read only, through the public view; newest first. $1 tenant: null for all.
SELECT started_at::timestamptz(0) AS started_at, tenant, request_id, attempt, provider, model_name, worker_id,
       device, coalesce(outcome, 'running') AS outcome, error_code, round(duration_seconds::numeric, 1) AS seconds,
       step, total_steps, trained_tokens, round(loss::numeric, 4) AS loss,
       CASE WHEN age < 60 THEN age || ' s' WHEN age < 5400 THEN age / 60 || ' min'
            WHEN age < 172800 THEN age / 3600 || ' h' ELSE age / 86400 || ' d' END AS age
FROM (SELECT *, greatest(extract(epoch FROM now() - started_at), 0)::bigint AS age FROM run_history) AS run
WHERE $1::text IS NULL OR tenant = $1
ORDER BY run.started_at DESC, job_id, attempt DESC
LIMIT $2
