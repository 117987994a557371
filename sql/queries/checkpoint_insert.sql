-- Invariant: a checkpoint's row never changes; a new one is progress: what counts interruptions starts again.
WITH added AS (
    INSERT INTO checkpoints (job_id, epoch, step, uri, size_bytes, sha256)
    VALUES ($1, $2, $3, $4, $5, decode($6, 'hex'))
    ON CONFLICT DO NOTHING
    RETURNING job_id
), progress AS (
    UPDATE jobs SET interruptions = 0, drains = 0
    WHERE id = (SELECT job_id FROM added)
)
SELECT job_id FROM added
