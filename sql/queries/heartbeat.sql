-- Invariant: a beat counts only for the holder's own (incarnation, epoch); what is not returned is lost.
UPDATE job_leases AS lease
SET beat = lease.beat + 1
FROM UNNEST($2::uuid[], $3::uuid[], $4::bigint[]) AS mine (job_id, incarnation, epoch),
     jobs AS job
WHERE lease.job_id = mine.job_id AND lease.incarnation = mine.incarnation AND lease.epoch = mine.epoch
  AND lease.worker_id = $1
  AND job.id = lease.job_id AND job.lease_epoch = lease.epoch AND job.state = 'running'
RETURNING lease.job_id, job.desired, coalesce(job.deadline <= now(), false) AS deadline_passed,
          job.preempted_at IS NOT NULL AS is_preempted
