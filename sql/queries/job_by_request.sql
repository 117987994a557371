-- Invariant: read only, through the public view; the newest generation.
SELECT job_id, tenant, request_id, batch_id, provider, model_name, task, strategy, generation, state, desired,
       waiting_reason, attempts, max_attempts, interruptions, error_code, error_message, worker_id, phase,
       phase_fraction, step, total_steps, trained_tokens, loss, tokens_per_second, result,
       (extract(epoch FROM created_at) * 1000)::bigint, (extract(epoch FROM started_at) * 1000)::bigint,
       (extract(epoch FROM finished_at) * 1000)::bigint, (extract(epoch FROM estimated_finish) * 1000)::bigint
FROM job_overview
WHERE tenant = $1 AND request_id = $2
ORDER BY generation DESC
LIMIT 1
