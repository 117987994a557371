-- Invariant: read only, through the public view; the newest lines, oldest first.
SELECT attempt, line, logged_at, level, message
FROM (SELECT * FROM job_log WHERE job_id = $1 ORDER BY attempt DESC, line DESC LIMIT $2) AS newest
ORDER BY attempt, line
