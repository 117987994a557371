-- Invariant: the eligible tenant with the least running / weight, of those no other worker is deciding about now.
SELECT share.queue, share.tenant
FROM tenant_queues AS share
WHERE share.queue = ANY ($1::text[]) AND share.ready > 0 AND (share.cap IS NULL OR share.running < share.cap)
  AND share.queue || '/' || share.tenant <> ALL ($2::text[])
ORDER BY share.running / share.weight, share.queue, share.tenant
LIMIT 1
FOR NO KEY UPDATE SKIP LOCKED
