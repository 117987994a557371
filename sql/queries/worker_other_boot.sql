-- Invariant: says true when the row of worker $1 is of another boot than $2, so that its leases are not ours to end.
SELECT EXISTS (SELECT FROM workers WHERE worker_id = $1 AND boot_id <> $2)
