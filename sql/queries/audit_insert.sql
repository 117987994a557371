-- Invariant: the chain (sequence, hashes) and the outbox row are made by the trigger under the job's lock.
INSERT INTO job_events (job_id, type, state, attempt, step, actor, detail)
VALUES ($1, $2, $3, $4, $5, $6, coalesce($7::json, '{}'))
