-- Invariant: written once the broker has the record, under the operator's name.
INSERT INTO reject_replays (reject_id, topic, partition, record_offset, replayed_by)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
