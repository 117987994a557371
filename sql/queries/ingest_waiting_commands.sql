-- Invariant: a command that came before its request acts on it once, if it has not expired. The request's batch asks
-- for its own jobs; the reaper asks for all ($1 null), for a command and its request that crossed in flight.
SELECT waiting.command_id, waiting.action, waiting.expected_generation, job.id, job.generation, job.state,
       job.desired, job.queue, job.tenant, job.ready_at IS NOT NULL AS is_ready, job.lease_epoch
FROM commands AS waiting
JOIN request_keys AS known ON known.tenant = waiting.tenant AND known.request_id = waiting.request_id
JOIN jobs AS job ON job.id = known.job_id
WHERE waiting.outcome = 'waiting' AND waiting.expires_at > now() AND ($1::uuid[] IS NULL OR job.id = ANY ($1::uuid[]))
ORDER BY waiting.received_at, waiting.command_id
FOR NO KEY UPDATE OF waiting, job
