-- min_compatible: 1
-- What the reaper asks every second must not cost with the length of the queue.
CREATE INDEX jobs_unplaceable ON jobs (waiting_since) WHERE state = 'queued' AND waiting_since IS NOT NULL;
CREATE INDEX jobs_wide ON jobs (queue, devices) WHERE state = 'queued' AND devices > 1;
