-- min_compatible: 1
-- What training measured and produced. Keyed by the lease epoch of the attempt that wrote it.

-- recorded_at is the database's clock: a worker's clock never chooses a partition.
CREATE TABLE step_metrics (
    job_id            uuid NOT NULL,
    epoch             bigint NOT NULL,            -- of the lease
    step              bigint NOT NULL,
    training_epoch    double precision NOT NULL,  -- pass over the data
    loss              double precision NOT NULL,
    learning_rate     double precision NOT NULL,
    gradient_norm     double precision NOT NULL,
    tokens            bigint NOT NULL,
    tokens_per_second double precision NOT NULL,
    elapsed_seconds   double precision NOT NULL,
    recorded_at       timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (recorded_at);
CREATE INDEX step_metrics_job ON step_metrics (job_id, step);

CREATE TABLE eval_metrics (
    job_id      uuid NOT NULL,
    epoch       bigint NOT NULL,
    step        bigint NOT NULL,
    loss        double precision NOT NULL,
    perplexity  double precision NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, epoch, step)
);

CREATE TABLE job_logs (
    job_id    uuid NOT NULL,
    epoch     bigint NOT NULL,
    line      integer NOT NULL,
    logged_at timestamptz,
    level     text NOT NULL,
    message   text NOT NULL,
    PRIMARY KEY (job_id, epoch, line)
);

-- The one to resume from is the newest: greatest epoch, then greatest step.
CREATE TABLE checkpoints (
    job_id      uuid NOT NULL REFERENCES jobs,
    epoch       bigint NOT NULL,
    step        bigint NOT NULL,
    uri         text NOT NULL,
    size_bytes  bigint NOT NULL,
    sha256      bytea NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, epoch, step)
);

CREATE TABLE artifacts (
    job_id      uuid NOT NULL REFERENCES jobs,
    epoch       bigint NOT NULL,
    kind        text NOT NULL,
    uri         text NOT NULL,
    size_bytes  bigint NOT NULL,
    sha256      bytea NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, epoch, kind)
);

-- Makes the partitions from now on: weeks of step metrics, months of audit. Attaching takes no lock that stops
-- writers. Only the owner may make tables, so it runs with the owner's rights.
CREATE FUNCTION maintain_partitions() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = modelforge, pg_temp
AS $$
DECLARE
    parent record;
    starts timestamptz;
    ends timestamptz;
    partition_name text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('modelforge.partitions', 0));
    FOR parent IN
        SELECT * FROM (VALUES ('step_metrics', 'week', '1 week'::interval, 5, 'IYYY"w"IW'),
                              ('job_events', 'month', '1 month'::interval, 3, 'YYYY"m"MM'))
                      AS known (name, unit, width, ahead, label)
    LOOP
        FOR i IN 0 .. parent.ahead - 1 LOOP
            -- Counted on the UTC calendar, whatever the session's time zone.
            starts := (date_trunc(parent.unit, now() AT TIME ZONE 'UTC') + i * parent.width) AT TIME ZONE 'UTC';
            ends := (date_trunc(parent.unit, now() AT TIME ZONE 'UTC') + (i + 1) * parent.width) AT TIME ZONE 'UTC';
            partition_name := parent.name || '_' || to_char(starts AT TIME ZONE 'UTC', parent.label);
            CONTINUE WHEN to_regclass('modelforge.' || quote_ident(partition_name)) IS NOT NULL;
            EXECUTE format('CREATE TABLE modelforge.%I (LIKE modelforge.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                           partition_name, parent.name);
            EXECUTE format('ALTER TABLE modelforge.%I ATTACH PARTITION modelforge.%I FOR VALUES FROM (%L) TO (%L)',
                           parent.name, partition_name, starts, ends);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
SELECT maintain_partitions();
