-- Invariant: read only; whether the row that is there says the same.
SELECT uri = $4 AND size_bytes = $5 AND sha256 = decode($6, 'hex')
FROM checkpoints WHERE job_id = $1 AND epoch = $2 AND step = $3
