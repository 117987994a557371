-- Invariant: one reaper at a time; the others have nothing to do.
SELECT pg_try_advisory_xact_lock(hashtextextended('modelforge.reaper', 0))
