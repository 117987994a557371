-- Invariant: commands that came before their request act on it once, in the order they came, if they have not expired.
-- The request's batch asks for its own jobs; the reaper asks for all ($1 null), for a command and its request that
-- crossed in flight.
SELECT waiting.command_id, waiting.action, coalesce(waiting.expected_generation, 0), waiting.tenant, waiting.request_id,
       waiting.reason
FROM commands AS waiting
JOIN request_keys AS known ON known.tenant = waiting.tenant AND known.request_id = waiting.request_id
WHERE waiting.outcome = 'waiting' AND waiting.expires_at > now()
  AND ($1::uuid[] IS NULL OR known.job_id = ANY ($1::uuid[]))
ORDER BY waiting.sequence
FOR NO KEY UPDATE OF waiting
