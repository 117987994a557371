-- Invariant: read only, through the public view.
SELECT kind, uri, size_bytes, sha256, attempt, recorded_at::timestamptz(0) AS recorded_at
FROM job_artifacts
WHERE job_id = $1
ORDER BY attempt, kind
