-- min_compatible: 1
-- Whether an attempt gives the bits of a run that nobody interrupted: false when it went on from a checkpoint of another
-- numeric plan, or from one of an attempt that did; null until its plan is known.
ALTER TABLE job_attempts ADD COLUMN exact boolean;

CREATE OR REPLACE VIEW run_history AS
SELECT attempt.job_id, job.tenant, job.request_id, job.generation, job.queue AS provider,
       config.config ->> 'model_name' AS model_name, attempt.epoch AS attempt, attempt.attempt_id,
       attempt.worker_id, attempt.host, attempt.device, attempt.gpu_uuids, attempt.versions,
       attempt.started_at, attempt.ended_at,
       extract(epoch FROM coalesce(attempt.ended_at, now()) - attempt.started_at)::double precision
           AS duration_seconds,
       attempt.outcome, attempt.error_code, attempt.error_message, attempt.resumed_from_step,
       attempt.step, attempt.total_steps, attempt.trained_tokens, attempt.loss,
       attempt.seed, attempt.train_rows, attempt.eval_rows, attempt.train_tokens, attempt.truncated_rows,
       attempt.dropped_rows, attempt.managed_bytes, attempt.log_rows,
       encode(attempt.numeric_plan_sha256, 'hex') AS numeric_plan_sha256,
       encode(attempt.dataset_sha256, 'hex') AS dataset_sha256,
       attempt.base_revision, encode(attempt.base_sha256, 'hex') AS base_sha256, attempt.exact
FROM job_attempts AS attempt
JOIN jobs AS job ON job.id = attempt.job_id
JOIN job_configs AS config ON config.job_id = attempt.job_id;
