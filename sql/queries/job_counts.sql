-- Invariant: read only; live states from the partial index, ended jobs of the last 24 hours from theirs, so the cost
-- does not grow with history.
SELECT state, count(*) FROM jobs WHERE state IN ('queued', 'running', 'paused') GROUP BY state
UNION ALL
SELECT state, count(*) FROM jobs WHERE finished_at > now() - interval '24 hours' GROUP BY state
