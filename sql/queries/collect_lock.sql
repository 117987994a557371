-- One collector at a time; held until the session ends or lets go.
SELECT pg_try_advisory_lock(hashtextextended('modelforge.collector', 0))
