-- min_compatible: 1
-- Who let a halted partition go on, and where: what was skipped or read again must be visible afterwards.
ALTER TABLE ingest_gaps
    ADD COLUMN closed_by text,
    ADD COLUMN resumed_offset bigint,
    ADD CONSTRAINT ingest_gaps_closed_whole CHECK ((closed_at IS NULL) = (resumed_offset IS NULL));

CREATE VIEW ingest_gap_log AS
SELECT gap.cluster_id, gap.topic, gap.partition, gap.kind, gap.expected_offset, gap.found_offset, gap.detail,
       gap.noticed_at, gap.closed_at, gap.closed_by, gap.resumed_offset
FROM ingest_gaps AS gap;

GRANT SELECT ON ingest_gap_log TO modelforge_worker, modelforge_reader;
