-- Invariant: one evaluation a step of an attempt; a trainer that evaluates the same step again keeps the first.
INSERT INTO eval_metrics (job_id, epoch, step, loss, perplexity)
SELECT $1, $2, step, loss, perplexity
FROM UNNEST($3::bigint[], $4::double precision[], $5::double precision[]) AS evaluation (step, loss, perplexity)
ON CONFLICT DO NOTHING
