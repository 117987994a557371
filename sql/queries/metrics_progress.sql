-- Invariant: progress only grows by what this batch brought; null leaves what the row has.
UPDATE job_attempts
SET phase = coalesce($3, phase),
    phase_fraction = CASE WHEN $3::text IS NULL THEN phase_fraction ELSE $4 END,
    step = coalesce($5, step),
    trained_tokens = CASE WHEN $5::bigint IS NULL THEN trained_tokens ELSE coalesce(trained_tokens, 0) + $6 END,
    training_seconds = coalesce($7, training_seconds),
    loss = coalesce($8, loss),
    tokens_per_second = coalesce($9, tokens_per_second),
    progress_at = now()
WHERE job_id = $1 AND epoch = $2
