-- Invariant: the hash that entered first decides: equal means the same request again, different a conflict.
SELECT record.ordinal, known.request_hash = decode(record.request_hash, 'hex') AS same
FROM UNNEST($1::integer[], $2::text[], $3::text[], $4::text[])
     AS record (ordinal, tenant, request_id, request_hash)
JOIN request_keys AS known ON known.tenant = record.tenant AND known.request_id = record.request_id
ORDER BY record.ordinal
