-- Invariant: a command whose request did not come in time is over; only the reaper ends it, after what still waits.
UPDATE commands SET outcome = 'expired', note = 'its request did not come in time'
WHERE command_id IN (SELECT command_id FROM commands
                     WHERE outcome = 'waiting' AND expires_at <= now()
                     ORDER BY expires_at LIMIT 1000
                     FOR NO KEY UPDATE SKIP LOCKED)
