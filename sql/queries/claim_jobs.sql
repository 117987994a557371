-- Invariant: claim_jobs(): no job without its lease, no tenant beyond its cap.
SELECT * FROM claim_jobs($1, $2::integer, $3::text[], $4::boolean[], $5::boolean[], $6::boolean[], $7::boolean,
                         $8::bigint[], $9::jsonb, $10::uuid, $11::boolean)
