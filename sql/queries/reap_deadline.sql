-- Invariant: unleased jobs whose deadline has passed, locked; running ones end through their worker.
SELECT id, state, queue, tenant, ready_at IS NOT NULL AS is_ready, lease_epoch,
       to_char(deadline AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM jobs
WHERE deadline <= now() AND state IN ('queued', 'paused')
ORDER BY deadline LIMIT 200
FOR NO KEY UPDATE SKIP LOCKED
