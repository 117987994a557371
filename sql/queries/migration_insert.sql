-- Invariant: recorded in the transaction that applied it.
INSERT INTO modelforge.schema_migrations (version, name, sha256, min_compatible) VALUES ($1, $2, $3, $4)
