-- Invariant: read only; why metrics_take found nothing: a repeat, a gap, or (no row) a lost lease.
SELECT metrics_batch FROM job_leases
WHERE job_id = $1 AND epoch = $2 AND incarnation = $3 AND worker_id = $4
