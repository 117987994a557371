-- Invariant: read only, through the public view.
SELECT step, epoch, loss, learning_rate, gradient_norm, tokens, tokens_per_second, elapsed_seconds
FROM loss_curve
WHERE job_id = $1 AND step > $2
ORDER BY step
