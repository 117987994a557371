-- Invariant: read only, through the public view.
SELECT step, loss, perplexity
FROM eval_curve
WHERE job_id = $1
ORDER BY step, attempt
