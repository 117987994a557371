-- Invariant (the fence): the jobs' rows are locked, in one order, and each lease is its job's lease; what gives no row is
-- lost. Jobs first: a rescue that was faster has changed state or epoch, which this statement sees after waiting for the
-- lock. $1 ... $3 in step; place: from 1.
-- `state || ''`: by the id, whatever an index of states would promise.
SELECT held.state, held.desired, held.attempts, held.max_attempts, held.interruptions, held.drains,
       held.deadline_passed, mine.place
FROM (SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::uuid[]) WITH ORDINALITY AS part (job_id, epoch, incarnation, place)
      ORDER BY part.job_id) AS mine
CROSS JOIN LATERAL (SELECT job.state, job.desired, job.attempts, job.max_attempts, job.interruptions, job.drains,
                           coalesce(job.deadline <= now(), false) AS deadline_passed
                    FROM jobs AS job
                    JOIN job_leases AS lease ON lease.job_id = job.id
                    WHERE job.id = mine.job_id AND job.state || '' = 'running' AND job.lease_epoch = mine.epoch
                      AND lease.epoch = mine.epoch AND lease.incarnation = mine.incarnation AND lease.worker_id = $4
                    FOR NO KEY UPDATE OF job) AS held
