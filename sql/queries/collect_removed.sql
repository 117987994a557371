-- The objects are gone.
UPDATE checkpoints SET removed_at = now()
WHERE collected_at IS NOT NULL AND removed_at IS NULL AND uri = ANY ($1::text[])
