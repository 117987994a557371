-- Invariant: committed before any of these objects is removed; a claim gives no job a marked checkpoint.
UPDATE checkpoints AS checkpoint SET collected_at = now()
FROM superseded_checkpoints(make_interval(secs => $1)) AS superseded
WHERE checkpoint.job_id = superseded.job_id AND checkpoint.epoch = superseded.epoch
  AND checkpoint.step = superseded.step AND checkpoint.collected_at IS NULL
