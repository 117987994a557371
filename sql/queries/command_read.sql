-- Invariant: read only, through the public view.
SELECT command.outcome, command.note, job.job_id, job.generation, job.state
FROM command_log AS command
LEFT JOIN job_overview AS job ON job.job_id = command.job_id
WHERE command.command_id = $1
