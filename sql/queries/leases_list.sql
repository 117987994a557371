-- Invariant: read only; a rescuer compares (epoch, beat) over its own time.
SELECT job_id, incarnation, epoch, beat, worker_id
FROM job_leases
WHERE $1::text IS NULL OR worker_id = $1
ORDER BY job_id
