-- Invariant: a holder that beat once more keeps its lease: its beat locks the row before us or finds it gone.
DELETE FROM job_leases
WHERE job_id = $1 AND epoch = $2 AND incarnation = $3 AND beat = $4 AND worker_id = $5
RETURNING job_id
