-- Invariant: partitions exist ahead of time; nothing is made twice.
SELECT maintain_partitions()
