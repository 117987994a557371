-- min_compatible: 1
-- Least privilege. The worker writes what its statements write and no more: it cannot change or remove an audit row,
-- a reject, a measurement or an artifact, and has no rights on partitions. The reader sees the views.

REVOKE ALL ON SCHEMA modelforge FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA modelforge FROM PUBLIC;
GRANT USAGE ON SCHEMA modelforge TO modelforge_worker, modelforge_reader;

GRANT SELECT ON incarnation, schema_migrations TO modelforge_worker, modelforge_reader;
GRANT SELECT, INSERT, UPDATE ON jobs, job_attempts, tenant_queues, workers, ingest_offsets TO modelforge_worker;
GRANT SELECT, INSERT, UPDATE (result) ON job_configs TO modelforge_worker;
GRANT SELECT, INSERT ON request_keys TO modelforge_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON job_leases TO modelforge_worker;
GRANT SELECT, INSERT ON job_events, ingest_gaps, ingest_rejects, step_metrics, eval_metrics, job_logs, checkpoints,
    artifacts TO modelforge_worker;
GRANT SELECT, INSERT, UPDATE (job_id, outcome) ON commands TO modelforge_worker;
GRANT SELECT, INSERT, DELETE, UPDATE (parked_at, parked_reason) ON outbox TO modelforge_worker;
GRANT EXECUTE ON FUNCTION audit_canonical(job_events), maintain_partitions() TO modelforge_worker;

GRANT SELECT ON job_overview, run_history, loss_curve, eval_curve, job_log, job_artifacts, job_checkpoints,
    queue_depth, tenant_usage, batch_summary, failure_reasons, audit_trail, worker_status, reject_log, command_log,
    outbox_parked, ingest_status TO modelforge_worker, modelforge_reader;
GRANT EXECUTE ON FUNCTION loss_curve(uuid), audit_chain_whole(uuid) TO modelforge_worker, modelforge_reader;
