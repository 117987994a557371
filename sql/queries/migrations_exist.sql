-- Invariant: read only.
SELECT to_regclass('modelforge.schema_migrations') IS NOT NULL
