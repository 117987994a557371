-- min_compatible: 1
-- The audit trail and what is published of it.

-- Each job's rows are a chain: sequence, and the hash of the row before. Nobody but the owner can change them.
CREATE TABLE job_events (
    job_id        uuid NOT NULL,
    sequence      bigint NOT NULL,
    event_id      uuid NOT NULL,
    recorded_at   timestamptz NOT NULL DEFAULT now(),
    type          text NOT NULL,
    state         text NOT NULL,
    attempt       bigint,
    step          bigint,
    actor         text NOT NULL,                  -- pseudonymous: a worker's id or what the command names
    detail        json NOT NULL DEFAULT '{}',     -- json, not jsonb: the bytes are kept as they were hashed
    previous_hash bytea NOT NULL,
    hash          bytea NOT NULL,
    PRIMARY KEY (job_id, sequence, recorded_at)
) PARTITION BY RANGE (recorded_at);

-- Waiting messages. A row names its event or its reject; the content stays there. Ids rise with the sequence of a
-- job because both are given under the job's row lock.
CREATE TABLE outbox (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard         smallint NOT NULL,
    job_id        uuid,
    sequence      bigint,
    recorded_at   timestamptz,                    -- of the event: finds its partition
    reject_id     bigint REFERENCES ingest_rejects,
    parked_at     timestamptz,
    parked_reason text,
    CHECK ((reject_id IS NULL) <> (job_id IS NULL))
);
CREATE INDEX outbox_waiting ON outbox (shard, id) WHERE parked_at IS NULL;
CREATE INDEX outbox_parked_rows ON outbox (id) WHERE parked_at IS NOT NULL;

-- What an audit row's hash is taken over, beside the hash before.
CREATE FUNCTION audit_canonical(event job_events) RETURNS bytea
LANGUAGE sql STABLE
SET search_path = modelforge, pg_temp
AS $$
    SELECT convert_to(jsonb_build_array(event.job_id, event.sequence, event.event_id,
                                        (extract(epoch FROM event.recorded_at) * 1000000)::bigint, event.type,
                                        event.state, event.attempt, event.step, event.actor,
                                        event.detail::text)::text, 'UTF8')
$$;

-- Invariant: under the job's row lock, sequence = last + 1, hash = sha256(last hash, content), and one outbox row.
CREATE FUNCTION audit_chain() RETURNS trigger
LANGUAGE plpgsql
SET search_path = modelforge, pg_temp
AS $$
DECLARE
    last_sequence bigint;
    last_hash bytea;
BEGIN
    PERFORM FROM jobs WHERE id = NEW.job_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'audit row without its job' USING ERRCODE = 'foreign_key_violation';
    END IF;
    SELECT sequence, hash INTO last_sequence, last_hash
    FROM job_events WHERE job_id = NEW.job_id ORDER BY sequence DESC LIMIT 1;
    NEW.sequence := coalesce(last_sequence, 0) + 1;
    NEW.previous_hash := coalesce(last_hash, '\x'::bytea);
    NEW.event_id := gen_random_uuid();
    NEW.hash := sha256(NEW.previous_hash || audit_canonical(NEW));
    INSERT INTO outbox (shard, job_id, sequence, recorded_at)
    VALUES (get_byte(uuid_send(NEW.job_id), 15) & 15, NEW.job_id, NEW.sequence, NEW.recorded_at);
    RETURN NEW;
END
$$;
CREATE TRIGGER job_events_chain BEFORE INSERT ON job_events FOR EACH ROW EXECUTE FUNCTION audit_chain();

-- True when a job's chain is whole: sequences 1, 2, 3 ..., every hash as computed, every link right.
CREATE FUNCTION audit_chain_whole(job uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = modelforge, pg_temp
AS $$
    SELECT coalesce(bool_and(
               checked.event_sequence = checked.place AND checked.previous_hash = checked.expected_previous
               AND checked.hash = checked.expected_hash), true)
    FROM (SELECT event.sequence AS event_sequence,
                 row_number() OVER (ORDER BY event.sequence) AS place,
                 event.previous_hash, event.hash,
                 coalesce(lag(event.hash) OVER (ORDER BY event.sequence), '\x'::bytea) AS expected_previous,
                 sha256(event.previous_hash || audit_canonical(event)) AS expected_hash
          FROM job_events AS event WHERE event.job_id = job) AS checked
$$;
