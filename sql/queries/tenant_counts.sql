-- Invariant: counts move in the transaction that moves the jobs.
SELECT count_jobs(part.queue, part.tenant, sum(part.ready)::integer, sum(part.running)::integer)
FROM UNNEST($1::text[], $2::text[], $3::integer[], $4::integer[]) AS part (queue, tenant, ready, running)
GROUP BY part.queue, part.tenant
