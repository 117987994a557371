-- Invariant: an object is left over only when its attempt is one of this database, ended so long ago, and no row names
-- the object. What another database's attempts stored is not ours to judge.
SELECT found.uri, found.size_bytes
FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS found (attempt_id, uri, size_bytes)
JOIN job_attempts AS attempt ON attempt.attempt_id = found.attempt_id
WHERE attempt.ended_at <= now() - make_interval(secs => $4)
  AND NOT EXISTS (SELECT FROM artifacts AS artifact
                  WHERE artifact.job_id = attempt.job_id AND artifact.epoch = attempt.epoch
                    AND artifact.uri = found.uri)
  AND NOT EXISTS (SELECT FROM checkpoints AS checkpoint
                  WHERE checkpoint.job_id = attempt.job_id AND checkpoint.epoch = attempt.epoch
                    AND checkpoint.uri = found.uri)
