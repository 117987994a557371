-- Invariant: read only, through the public view.
SELECT sequence, recorded_at::timestamptz(0) AS recorded_at, type, state, attempt, step, actor, detail
FROM audit_trail
WHERE job_id = $1
ORDER BY sequence
