-- Invariant: every accepted request has its first audit row (and by its trigger the first event) with the job.
INSERT INTO job_events (job_id, type, state, actor, detail)
SELECT job.id, 'queued', job.state, 'producer',
       json_build_object('provider', job.queue, 'priority', job.priority, 'topic', config.source_topic,
                         'partition', config.source_partition, 'offset', config.source_offset)
FROM jobs AS job
JOIN job_configs AS config ON config.job_id = job.id
WHERE job.id = ANY ($1::uuid[])
