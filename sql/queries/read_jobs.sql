-- Invariant: read only, through the public view; newest first. $1 tenant: null for all.
SELECT job_id, tenant, request_id, generation, batch_id, state, desired, provider, model_name, strategy, priority,
       step || '/' || total_steps AS progress, step, total_steps, round(loss::numeric, 4) AS loss,
       CASE WHEN age < 60 THEN age || ' s' WHEN age < 5400 THEN age / 60 || ' min'
            WHEN age < 172800 THEN age / 3600 || ' h' ELSE age / 86400 || ' d' END AS age,
       created_at::timestamptz(0) AS created_at, started_at::timestamptz(0) AS started_at,
       finished_at::timestamptz(0) AS finished_at, worker_id, error_code, error_message, waiting_reason,
       coalesce(error_code, CASE WHEN state = 'queued' THEN waiting_reason END) AS note
FROM (SELECT *, greatest(extract(epoch FROM now() - created_at), 0)::bigint AS age FROM job_overview) AS job
WHERE $1::text IS NULL OR tenant = $1
ORDER BY job.created_at DESC, job_id
LIMIT $2
