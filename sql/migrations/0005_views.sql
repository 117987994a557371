-- min_compatible: 1
-- The public read API: dashboards, auditors and the command line read these and nothing else.

CREATE VIEW job_overview AS
SELECT job.id AS job_id, job.tenant, job.request_id, job.generation, job.retry_of, job.batch_id,
       job.queue AS provider, config.config ->> 'model_name' AS model_name, config.config ->> 'task' AS task,
       config.config ->> 'strategy' AS strategy, config.config ->> 'dataset' AS dataset,
       job.priority, job.devices, job.state, job.desired, job.waiting_reason,
       job.attempts, job.max_attempts, job.interruptions, job.lease_epoch AS attempt,
       attempt.worker_id, attempt.host, attempt.device, attempt.phase, attempt.phase_fraction,
       attempt.step, attempt.total_steps, attempt.loss, attempt.tokens_per_second,
       coalesce((config.result ->> 'trained_tokens')::bigint, attempt.trained_tokens) AS trained_tokens,
       job.error_code, job.error_message, config.result, config.submitted_by,
       job.not_before AS run_at, job.deadline, job.created_at, job.started_at, job.finished_at,
       CASE WHEN job.state = 'running' AND attempt.step > coalesce(attempt.resumed_from_step, 0)
            THEN attempt.progress_at + make_interval(secs =>
                     attempt.training_seconds * (attempt.total_steps - attempt.step)
                     / (attempt.step - coalesce(attempt.resumed_from_step, 0)))
       END AS estimated_finish
FROM jobs AS job
JOIN job_configs AS config ON config.job_id = job.id
LEFT JOIN job_attempts AS attempt ON attempt.job_id = job.id AND attempt.epoch = job.lease_epoch;

-- One row an attempt.
CREATE VIEW run_history AS
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
       attempt.base_revision, encode(attempt.base_sha256, 'hex') AS base_sha256
FROM job_attempts AS attempt
JOIN jobs AS job ON job.id = attempt.job_id
JOIN job_configs AS config ON config.job_id = attempt.job_id;

-- The steps that count: those beyond the step from which a later attempt went on were trained again and are left out.
CREATE VIEW loss_curve AS
SELECT metric.job_id, metric.step, metric.training_epoch AS epoch, metric.loss, metric.learning_rate,
       metric.gradient_norm, metric.tokens, metric.tokens_per_second, metric.elapsed_seconds,
       metric.epoch AS attempt, metric.recorded_at
FROM step_metrics AS metric
WHERE NOT EXISTS (SELECT FROM job_attempts AS later
                  WHERE later.job_id = metric.job_id AND later.epoch > metric.epoch
                    AND metric.step > later.resumed_from_step);

CREATE FUNCTION loss_curve(job uuid) RETURNS SETOF loss_curve
LANGUAGE sql STABLE
SET search_path = modelforge, pg_temp
AS $$
    SELECT * FROM loss_curve WHERE job_id = job ORDER BY step
$$;

CREATE VIEW eval_curve AS
SELECT metric.job_id, metric.step, metric.loss, metric.perplexity, metric.epoch AS attempt, metric.recorded_at
FROM eval_metrics AS metric
WHERE NOT EXISTS (SELECT FROM job_attempts AS later
                  WHERE later.job_id = metric.job_id AND later.epoch > metric.epoch
                    AND metric.step > later.resumed_from_step);

CREATE VIEW job_log AS
SELECT log.job_id, log.epoch AS attempt, log.line, log.logged_at, log.level, log.message
FROM job_logs AS log;

CREATE VIEW job_artifacts AS
SELECT artifact.job_id, artifact.epoch AS attempt, artifact.kind, artifact.uri, artifact.size_bytes,
       encode(artifact.sha256, 'hex') AS sha256, artifact.recorded_at
FROM artifacts AS artifact;

CREATE VIEW job_checkpoints AS
SELECT checkpoint.job_id, checkpoint.epoch AS attempt, checkpoint.step, checkpoint.uri, checkpoint.size_bytes,
       encode(checkpoint.sha256, 'hex') AS sha256, checkpoint.recorded_at
FROM checkpoints AS checkpoint;

CREATE VIEW queue_depth AS
SELECT queue.queue AS provider, queue.tenant, queue.ready, queue.running, queue.cap, queue.weight,
       coalesce(active.delayed, 0) AS delayed, coalesce(active.paused, 0) AS paused,
       coalesce(active.unplaceable, 0) AS unplaceable, active.oldest_ready_at
FROM tenant_queues AS queue
LEFT JOIN (SELECT job.queue, job.tenant,
                  count(*) FILTER (WHERE job.state = 'queued' AND job.ready_at IS NULL) AS delayed,
                  count(*) FILTER (WHERE job.state = 'paused') AS paused,
                  count(*) FILTER (WHERE job.waiting_since IS NOT NULL) AS unplaceable,
                  min(job.ready_at) AS oldest_ready_at
           FROM jobs AS job WHERE job.state IN ('queued', 'running', 'paused')
           GROUP BY job.queue, job.tenant) AS active
       ON active.queue = queue.queue AND active.tenant = queue.tenant;

CREATE VIEW tenant_usage AS
SELECT job.tenant, count(DISTINCT job.id) AS jobs,
       count(DISTINCT job.id) FILTER (WHERE job.state = 'succeeded') AS succeeded,
       count(DISTINCT job.id) FILTER (WHERE job.state = 'failed') AS failed,
       count(DISTINCT job.id) FILTER (WHERE job.state = 'cancelled') AS cancelled,
       coalesce(sum(attempt.trained_tokens), 0)::bigint AS trained_tokens,
       coalesce(sum(job.devices * extract(epoch FROM coalesce(attempt.ended_at, now()) - attempt.started_at)),
                0)::double precision AS device_seconds
FROM jobs AS job
LEFT JOIN job_attempts AS attempt ON attempt.job_id = job.id
GROUP BY job.tenant;

CREATE VIEW batch_summary AS
SELECT job.tenant, job.batch_id, count(*) AS jobs,
       count(*) FILTER (WHERE job.state = 'queued') AS queued,
       count(*) FILTER (WHERE job.state = 'running') AS running,
       count(*) FILTER (WHERE job.state = 'paused') AS paused,
       count(*) FILTER (WHERE job.state = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE job.state = 'failed') AS failed,
       count(*) FILTER (WHERE job.state = 'cancelled') AS cancelled,
       min(job.created_at) AS created_at,
       CASE WHEN bool_and(job.finished_at IS NOT NULL) THEN max(job.finished_at) END AS finished_at
FROM jobs AS job
WHERE job.batch_id IS NOT NULL
GROUP BY job.tenant, job.batch_id;

CREATE VIEW failure_reasons AS
SELECT job.tenant, job.error_code, count(*) AS jobs, max(job.finished_at) AS last_at,
       (array_agg(job.error_message ORDER BY job.finished_at DESC))[1] AS last_message
FROM jobs AS job
WHERE job.state = 'failed'
GROUP BY job.tenant, job.error_code;

CREATE VIEW audit_trail AS
SELECT event.job_id, job.tenant, job.request_id, job.generation, event.sequence, event.event_id,
       event.recorded_at, event.type, event.state, event.attempt, event.step, event.actor, event.detail,
       encode(event.previous_hash, 'hex') AS previous_hash, encode(event.hash, 'hex') AS hash,
       config.submitted_by, config.source_topic, config.source_partition, config.source_offset,
       config.source_timestamp, config.schema_id, encode(config.request_sha256, 'hex') AS request_sha256,
       config.trace_context
FROM job_events AS event
JOIN jobs AS job ON job.id = event.job_id
JOIN job_configs AS config ON config.job_id = event.job_id;

CREATE VIEW worker_status AS
SELECT worker.worker_id, worker.host, worker.boot_id, worker.version, worker.providers, worker.slots,
       worker.devices, worker.details, worker.started_at, worker.heard_at, worker.stopped_at,
       (SELECT count(*) FROM job_leases AS lease WHERE lease.worker_id = worker.worker_id) AS running
FROM workers AS worker;

CREATE VIEW reject_log AS
SELECT reject.id AS reject_id, reject.topic, reject.partition, reject.record_offset, reject.record_timestamp,
       reject.code, reject.reason, reject.value_bytes, encode(reject.value_sha256, 'hex') AS value_sha256,
       reject.rejected_at
FROM ingest_rejects AS reject;

CREATE VIEW command_log AS
SELECT command.command_id, command.tenant, command.request_id, command.action, command.expected_generation,
       command.reason, command.requested_by, command.job_id, command.outcome, command.expires_at,
       command.received_at
FROM commands AS command;

CREATE VIEW outbox_parked AS
SELECT waiting.id, waiting.shard, waiting.job_id, waiting.sequence, waiting.reject_id, waiting.parked_at,
       waiting.parked_reason
FROM outbox AS waiting
WHERE waiting.parked_at IS NOT NULL;

CREATE VIEW ingest_status AS
SELECT cluster_id, topic, partition, position.next_offset, position.updated_at,
       gap.kind AS halted_by, gap.expected_offset, gap.found_offset, gap.detail AS halt_detail,
       gap.noticed_at AS halted_at
FROM ingest_offsets AS position
FULL JOIN (SELECT * FROM ingest_gaps WHERE closed_at IS NULL) AS gap
     USING (cluster_id, topic, partition);
