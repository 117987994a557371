-- Invariant: only marks batches that look as if nothing were left to do; batch_due.sql looks again before one is finished.
UPDATE batches SET quiet_since = now()
WHERE (tenant, batch_id) IN
      (SELECT batch.tenant, batch.batch_id FROM batches AS batch
       WHERE batch.finished_at IS NULL AND batch.quiet_since IS NULL
         AND NOT EXISTS (SELECT FROM jobs AS job WHERE job.tenant = batch.tenant AND job.batch_id = batch.batch_id
                           AND job.finished_at IS NULL)
       LIMIT 100
       FOR NO KEY UPDATE OF batch SKIP LOCKED)
  AND finished_at IS NULL
