-- Lets the next collector begin.
SELECT pg_advisory_unlock(hashtextextended('modelforge.collector', 0))
