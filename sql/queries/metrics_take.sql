-- Invariant: a batch number is taken once, in order, by the lease's holder; the row lock keeps a rescue out meanwhile.
UPDATE job_leases SET metrics_batch = $5
WHERE job_id = $1 AND epoch = $2 AND incarnation = $3 AND worker_id = $4 AND metrics_batch = $5 - 1
RETURNING metrics_batch
