-- Invariant: a known fact is not taken back by a call that does not know it.
UPDATE job_attempts
SET device = coalesce($3, device), gpu_uuids = coalesce($4, gpu_uuids), versions = coalesce($5, versions),
    numeric_plan_sha256 = coalesce(decode($6, 'hex'), numeric_plan_sha256),
    dataset_sha256 = coalesce(decode($7, 'hex'), dataset_sha256),
    base_sha256 = coalesce(decode($8, 'hex'), base_sha256),
    base_revision = coalesce($9, base_revision), seed = coalesce($10, seed),
    managed_bytes = coalesce($11, managed_bytes), total_steps = coalesce($12, total_steps),
    train_rows = coalesce($13, train_rows), eval_rows = coalesce($14, eval_rows),
    train_tokens = coalesce($15, train_tokens), truncated_rows = coalesce($16, truncated_rows),
    dropped_rows = coalesce($17, dropped_rows), resumed_from_step = coalesce($18, resumed_from_step),
    exact = coalesce($19::bigint <> 0, exact)
WHERE job_id = $1 AND epoch = $2
