-- Invariant: end_attempts(): jobs, leases, attempts, counts and audit rows together, only for the epochs that were locked.
SELECT end_attempts($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::integer[], $6::integer[], $7::integer[],
                    $8::text[], $9::text[], $10::text[], $11::jsonb[], $12::text[], $13::text[], $14::text[])
