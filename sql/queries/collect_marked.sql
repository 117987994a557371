-- Objects that are to go, those of a collector that was interrupted among them.
SELECT uri, size_bytes FROM checkpoints WHERE collected_at IS NOT NULL AND removed_at IS NULL ORDER BY uri LIMIT 1000
