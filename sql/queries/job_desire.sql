-- Invariant: `desired` moves only while the job runs and never away from cancel.
UPDATE jobs SET desired = $2
WHERE id = $1 AND state = 'running' AND desired <> 'cancel'
