-- Invariant: only an open gap is closed, once, with who did it and where reading goes on.
UPDATE ingest_gaps
SET closed_at = now(), closed_by = $4, resumed_offset = $5
WHERE cluster_id = $1 AND topic = $2 AND partition = $3 AND closed_at IS NULL
RETURNING id
