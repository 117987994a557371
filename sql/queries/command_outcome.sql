-- Invariant: a command is decided once.
UPDATE commands SET outcome = $2, job_id = $3, note = $4
WHERE command_id = $1 AND outcome = 'waiting'
