-- Invariant: ids rise with the sequence of a job, so id order is delivery order.
SELECT waiting.id, event.event_id, waiting.job_id, job.tenant, job.request_id, event.type, event.state,
       waiting.sequence, event.attempt, event.step, event.detail,
       (extract(epoch FROM event.recorded_at) * 1000)::bigint AS occurred_at
FROM outbox AS waiting
JOIN job_events AS event ON event.job_id = waiting.job_id AND event.sequence = waiting.sequence
                        AND event.recorded_at = waiting.recorded_at
JOIN jobs AS job ON job.id = waiting.job_id
WHERE waiting.shard = $1 AND waiting.id > $2 AND waiting.parked_at IS NULL AND waiting.reject_id IS NULL
ORDER BY waiting.id
LIMIT $3
