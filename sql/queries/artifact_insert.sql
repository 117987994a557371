-- Invariant: an artifact's row never changes: an equal repeat is nothing, a different one returns no row.
INSERT INTO artifacts (job_id, epoch, kind, uri, size_bytes, sha256)
VALUES ($1, $2, $3, $4, $5, decode($6, 'hex'))
ON CONFLICT DO NOTHING
RETURNING job_id
