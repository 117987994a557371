-- Invariant: read only.
SELECT version, name, sha256, min_compatible FROM modelforge.schema_migrations ORDER BY version
