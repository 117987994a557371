-- min_compatible: 18
-- Claims and ends in sets, by one statement each, and counts that nobody waits for.

-- The counts of a tenant's queue are the sums of its rows here. A transaction moves them in a row that no other one
-- holds, and makes another row when all are held: with one row, the jobs of a tenant would follow one another through
-- their commits. A row alone may be below 0, the sum of what is committed is not. The reaper adds up idle rows.
CREATE TABLE queue_counts (
    id      bigint GENERATED ALWAYS AS IDENTITY,
    queue   text NOT NULL,
    tenant  text NOT NULL,
    ready   integer NOT NULL,
    running integer NOT NULL,
    used_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, tenant, id)
) WITH (fillfactor = 50);
INSERT INTO queue_counts (queue, tenant, ready, running) SELECT queue, tenant, ready, running FROM tenant_queues;

CREATE VIEW tenant_load AS
SELECT share.queue, share.tenant, coalesce(sum(count.ready), 0)::integer AS ready,
       coalesce(sum(count.running), 0)::integer AS running, share.cap, share.weight
FROM tenant_queues AS share
LEFT JOIN queue_counts AS count ON count.queue = share.queue AND count.tenant = share.tenant
GROUP BY share.queue, share.tenant;

CREATE OR REPLACE VIEW queue_depth AS
SELECT queue.queue AS provider, queue.tenant, queue.ready, queue.running, queue.cap, queue.weight,
       coalesce(active.delayed, 0) AS delayed, coalesce(active.paused, 0) AS paused,
       coalesce(active.unplaceable, 0) AS unplaceable, active.oldest_ready_at,
       CASE WHEN queue.ready + queue.running > 0
            THEN queue.weight / sum(queue.weight) FILTER (WHERE queue.ready + queue.running > 0)
                                OVER (PARTITION BY queue.queue) END AS share
FROM tenant_load AS queue
LEFT JOIN (SELECT job.queue, job.tenant,
                  count(*) FILTER (WHERE job.state = 'queued' AND job.ready_at IS NULL) AS delayed,
                  count(*) FILTER (WHERE job.state = 'paused') AS paused,
                  count(*) FILTER (WHERE job.waiting_since IS NOT NULL) AS unplaceable,
                  min(job.ready_at) AS oldest_ready_at
           FROM jobs AS job WHERE job.state IN ('queued', 'running', 'paused')
           GROUP BY job.queue, job.tenant) AS active
       ON active.queue = queue.queue AND active.tenant = queue.tenant;
ALTER TABLE tenant_queues DROP COLUMN ready, DROP COLUMN running;

GRANT SELECT, INSERT, UPDATE, DELETE ON queue_counts TO modelforge_worker;
GRANT SELECT ON tenant_load TO modelforge_worker;

-- Invariant: counts move in the transaction that moves the jobs. Never waits.
CREATE FUNCTION count_jobs(of_queue text, of_tenant text, more_ready integer, more_running integer) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE queue_counts AS count
    SET ready = count.ready + more_ready, running = count.running + more_running, used_at = now()
    WHERE count.queue = of_queue AND count.tenant = of_tenant
      AND count.id = (SELECT free.id FROM queue_counts AS free
                      WHERE free.queue = of_queue AND free.tenant = of_tenant
                      ORDER BY free.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED);
    IF NOT FOUND THEN
        INSERT INTO queue_counts (queue, tenant, ready, running)
        VALUES (of_queue, of_tenant, more_ready, more_running);
    END IF;
END
$$;

-- Caps are read under a lock that claims share, and set while nobody has it: a claim that saw no cap has ended before
-- there is one.
CREATE FUNCTION claims_lock() RETURNS bigint IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
SELECT hashtextextended('modelforge.claims', 0)
$$;
CREATE FUNCTION caps_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = modelforge, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(claims_lock());
    RETURN NULL;
END
$$;
CREATE TRIGGER tenant_queues_change BEFORE UPDATE ON tenant_queues FOR EACH STATEMENT EXECUTE FUNCTION caps_change();

-- What may be claimed: a job is here exactly while its ready_at is set, and moves under its job's lock. Apart from the
-- jobs, so that what was claimed is cleaned up in milliseconds, however long the history: a claim begins where the last
-- one ended, and passes over all that was not cleaned up yet.
CREATE TABLE ready_jobs (
    queue       text NOT NULL,
    tenant      text NOT NULL,
    needs_hash  bigint NOT NULL,
    claim_order timestamptz NOT NULL,
    job_id      uuid NOT NULL,
    needs       jsonb,
    PRIMARY KEY (queue, tenant, needs_hash, claim_order, job_id)
);
INSERT INTO ready_jobs (queue, tenant, needs_hash, claim_order, job_id, needs)
SELECT queue, tenant, needs_hash, claim_order, id, needs FROM jobs WHERE state = 'queued' AND ready_at IS NOT NULL;
DROP INDEX jobs_claim;
GRANT SELECT, INSERT, DELETE ON ready_jobs TO modelforge_worker;
ALTER TABLE ready_jobs SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                            autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
ALTER TABLE job_leases SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                            autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                        autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
ALTER TABLE job_configs SET (fillfactor = 80); -- the result is written into the same page

-- Takes the first `how_many` jobs of a tenant's queue that fit a worker and that nobody else holds, or this one
-- (`just`), out of ready_jobs; locks them and gives their ids in the order of claims. Jobs with equal needs fit together or not at all, so
-- that only the first of each kind is looked at, however many wait. Nearly always there is one kind.
CREATE FUNCTION take_jobs(of_queue text, of_tenant text, how_many integer, just uuid, on_cpu boolean, on_gpu boolean,
                          many_gpus boolean, has_gpus boolean, gpu_memory bigint[], labels jsonb) RETURNS uuid[]
LANGUAGE plpgsql
AS $$
DECLARE
    first_kind bigint;
    last_kind bigint;
    first_needs jsonb;
    taken uuid[];
BEGIN
    SELECT ready.needs_hash, ready.needs,
           (SELECT last.needs_hash FROM ready_jobs AS last WHERE last.queue = of_queue AND last.tenant = of_tenant
            ORDER BY last.needs_hash DESC LIMIT 1)
    INTO first_kind, first_needs, last_kind
    FROM ready_jobs AS ready WHERE ready.queue = of_queue AND ready.tenant = of_tenant
    ORDER BY ready.needs_hash LIMIT 1;
    IF first_kind = last_kind THEN
        IF job_fits(first_needs, on_cpu, on_gpu, many_gpus, has_gpus, gpu_memory, labels) THEN
            WITH head AS (
                SELECT job.id, ready.claim_order
                FROM ready_jobs AS ready
                JOIN jobs AS job ON job.id = ready.job_id
                WHERE ready.queue = of_queue AND ready.tenant = of_tenant AND ready.needs_hash = first_kind
                  AND job.state = 'queued' AND job.ready_at IS NOT NULL AND (just IS NULL OR job.id = just)
                ORDER BY ready.claim_order, ready.job_id LIMIT how_many
                FOR NO KEY UPDATE OF job SKIP LOCKED
            ), gone AS (
                DELETE FROM ready_jobs AS ready USING head
                WHERE (ready.queue, ready.tenant, ready.needs_hash, ready.claim_order, ready.job_id)
                      = (of_queue, of_tenant, first_kind, head.claim_order, head.id)
                RETURNING ready.job_id, ready.claim_order
            )
            SELECT array_agg(gone.job_id ORDER BY gone.claim_order, gone.job_id) INTO taken FROM gone;
        END IF;
        RETURN coalesce(taken, '{}');
    END IF;
    WITH RECURSIVE kind AS (
        SELECT first_kind AS needs_hash, first_needs AS needs WHERE first_kind IS NOT NULL
        UNION ALL
        SELECT next.needs_hash, next.needs
        FROM kind
        CROSS JOIN LATERAL (SELECT ready.needs_hash, ready.needs FROM ready_jobs AS ready
                            WHERE ready.queue = of_queue AND ready.tenant = of_tenant
                              AND ready.needs_hash > kind.needs_hash
                            ORDER BY ready.needs_hash LIMIT 1) AS next
    ), quota AS MATERIALIZED ( -- how many of each kind are among the first
        SELECT place.needs_hash, count(*) AS jobs
        FROM (SELECT kind.needs_hash
              FROM kind
              CROSS JOIN LATERAL (SELECT ready.claim_order, ready.job_id FROM ready_jobs AS ready
                                  WHERE ready.queue = of_queue AND ready.tenant = of_tenant
                                    AND ready.needs_hash = kind.needs_hash AND (just IS NULL OR ready.job_id = just)
                                  ORDER BY ready.claim_order, ready.job_id LIMIT how_many) AS early
              WHERE job_fits(kind.needs, on_cpu, on_gpu, many_gpus, has_gpus, gpu_memory, labels)
              ORDER BY early.claim_order, early.job_id LIMIT how_many) AS place
        GROUP BY place.needs_hash
    ), head AS MATERIALIZED (
        SELECT first.id, first.claim_order, quota.needs_hash
        FROM quota
        CROSS JOIN LATERAL (
                        SELECT job.id, ready.claim_order
                        FROM ready_jobs AS ready
                        JOIN jobs AS job ON job.id = ready.job_id
                        WHERE ready.queue = of_queue AND ready.tenant = of_tenant AND ready.needs_hash = quota.needs_hash
                          AND job.state = 'queued' AND job.ready_at IS NOT NULL AND (just IS NULL OR job.id = just)
                        ORDER BY ready.claim_order, ready.job_id LIMIT quota.jobs
                        FOR NO KEY UPDATE OF job SKIP LOCKED) AS first
    ), gone AS (
        DELETE FROM ready_jobs AS ready USING head
        WHERE (ready.queue, ready.tenant, ready.needs_hash, ready.claim_order, ready.job_id)
              = (of_queue, of_tenant, head.needs_hash, head.claim_order, head.id)
        RETURNING ready.job_id, ready.claim_order
    )
    SELECT array_agg(gone.job_id ORDER BY gone.claim_order, gone.job_id) INTO taken FROM gone;
    RETURN coalesce(taken, '{}');
END
$$;

-- Invariant: queued and ready -> running with the next epoch, one lease a job (primary key) and one attempt an epoch,
-- counted and audited, all in one transaction. The tenants' turns are as if jobs were claimed one by one: the one with
-- the least running / weight that is below its cap, again and again. Only tenants with a cap are locked: their running
-- jobs are counted under the lock, so that what another claim took is in it. A tenant that another claim is deciding
-- about is left out, unless `waiting`; then, when nothing else was found, one row without a job says so.
-- `on_cpu`, `on_gpu` and `many_gpus` go with `queues`. With a worker that has GPUs, one job a call: it takes found.
CREATE FUNCTION claim_jobs(worker text, wanted integer, queues text[], on_cpu boolean[], on_gpu boolean[],
                           many_gpus boolean[], has_gpus boolean, gpu_memory bigint[], labels jsonb, just uuid,
                           waiting boolean)
RETURNS TABLE (job_id uuid, epoch bigint, tenant text, request_id text, created_ms bigint, deadline_ms bigint,
               gpus integer, gpu_memory_bytes bigint, incarnation uuid, attempt_id uuid, config jsonb,
               checkpoint_uri text, checkpoint_step bigint, checkpoint_sha256 text)
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan -- else each call is planned anew, which costs more than its work
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    turn record;
    place_of integer;
    room integer;
    found uuid[];
    taken uuid[] := '{}';
    done text[] := '{}'; -- queues of tenants that give no more
    busy boolean := false;
    waited boolean := NOT waiting;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(claims_lock());
    LOOP
        found := NULL;
        FOR turn IN
            SELECT next.queue, next.tenant, next.cap, count(*)::integer AS jobs
            FROM (SELECT load.queue, load.tenant, load.cap, (load.running + nth - 1) / load.weight AS place
                  FROM (SELECT share.queue, share.tenant, busy.ready, busy.running, share.cap, share.weight
                        FROM (SELECT count.queue, count.tenant, sum(count.ready)::integer AS ready,
                                     sum(count.running)::integer AS running
                              FROM queue_counts AS count WHERE count.queue = ANY (queues)
                              GROUP BY count.queue, count.tenant HAVING sum(count.ready) > 0) AS busy
                        JOIN tenant_queues AS share ON share.queue = busy.queue AND share.tenant = busy.tenant) AS load
                  CROSS JOIN LATERAL generate_series(1, least(wanted - cardinality(taken), load.ready,
                                                              load.cap - load.running)) AS nth
                  WHERE load.queue || '/' || load.tenant <> ALL (done)
                    AND (just IS NULL OR (load.queue, load.tenant) = (SELECT job.queue, job.tenant FROM jobs AS job
                                                                      WHERE job.id = just))
                  ORDER BY place, load.queue, load.tenant LIMIT wanted - cardinality(taken)) AS next
            GROUP BY next.queue, next.tenant, next.cap
            ORDER BY min(next.place), next.queue, next.tenant
        LOOP
            found := '{}';
            room := turn.jobs;
            IF turn.cap IS NOT NULL THEN
                IF NOT waited THEN
                    PERFORM pg_advisory_xact_lock(hashtextextended(turn.queue || '/' || turn.tenant, 1));
                    waited := true;
                ELSIF NOT pg_try_advisory_xact_lock(hashtextextended(turn.queue || '/' || turn.tenant, 1)) THEN
                    busy := true;
                    room := 0;
                END IF;
                IF room > 0 THEN
                    SELECT least(room, load.cap - load.running) INTO room
                    FROM tenant_load AS load WHERE load.queue = turn.queue AND load.tenant = turn.tenant;
                END IF;
            END IF;
            IF room > 0 THEN
                place_of := array_position(queues, turn.queue);
                found := take_jobs(turn.queue, turn.tenant, room, just, on_cpu[place_of], on_gpu[place_of],
                                   many_gpus[place_of], has_gpus, gpu_memory, labels);
            END IF;
            IF cardinality(found) > 0 THEN
                PERFORM count_jobs(turn.queue, turn.tenant, -cardinality(found), cardinality(found));
                taken := taken || found;
            END IF;
            IF cardinality(found) < turn.jobs THEN
                done := done || (turn.queue || '/' || turn.tenant);
            END IF;
        END LOOP;
        EXIT WHEN found IS NULL OR cardinality(taken) >= wanted;
    END LOOP;
    IF cardinality(taken) = 0 THEN
        IF busy THEN
            RETURN QUERY SELECT NULL::uuid, NULL::bigint, NULL::text, NULL::text, NULL::bigint, NULL::bigint,
                                NULL::integer, NULL::bigint, NULL::uuid, NULL::uuid, NULL::jsonb, NULL::text,
                                NULL::bigint, NULL::text;
        END IF;
        RETURN;
    END IF;
    RETURN QUERY
    WITH moved AS (
        UPDATE jobs AS job
        SET state = 'running', lease_epoch = job.lease_epoch + 1, ready_at = NULL, not_before = NULL,
            preempted_at = NULL, waiting_reason = NULL, waiting_since = NULL, reserved_for = NULL,
            started_at = coalesce(job.started_at, now())
        WHERE job.id = ANY (taken) AND job.state = 'queued' AND job.desired = 'run'
        RETURNING job.id, job.lease_epoch, job.queue, job.tenant, job.request_id, job.created_at, job.deadline,
                  job.needs, gen_random_uuid() AS attempt_id,
                  (SELECT present.incarnation FROM incarnation AS present) AS incarnation
    ), lease AS (
        INSERT INTO job_leases (job_id, epoch, incarnation, worker_id)
        SELECT moved.id, moved.lease_epoch, moved.incarnation, worker FROM moved
    ), attempt AS (
        INSERT INTO job_attempts (job_id, epoch, attempt_id, worker_id, host)
        SELECT moved.id, moved.lease_epoch, moved.attempt_id, worker,
               (SELECT host FROM workers WHERE worker_id = worker)
        FROM moved
    ), audited AS (
        INSERT INTO job_events (job_id, type, state, attempt, actor)
        SELECT moved.id, 'running', 'running', moved.lease_epoch, worker FROM moved
    )
    SELECT moved.id, moved.lease_epoch, moved.tenant, moved.request_id,
           (extract(epoch FROM moved.created_at) * 1000)::bigint, (extract(epoch FROM moved.deadline) * 1000)::bigint,
           job_gpus(moved.needs, on_gpu[array_position(queues, moved.queue)], has_gpus),
           coalesce((moved.needs ->> 'gpu_memory_bytes')::bigint, 0), moved.incarnation, moved.attempt_id,
           (SELECT asked.config FROM job_configs AS asked WHERE asked.job_id = moved.id),
           newest.uri, newest.step, newest.sha256
    FROM moved
    LEFT JOIN LATERAL (SELECT checkpoint.uri, checkpoint.step, encode(checkpoint.sha256, 'hex') AS sha256
                       FROM checkpoints AS checkpoint
                       WHERE checkpoint.job_id = moved.id AND checkpoint.collected_at IS NULL
                       ORDER BY checkpoint.epoch DESC, checkpoint.step DESC LIMIT 1) AS newest ON true
    ORDER BY array_position(taken, moved.id);
    GET DIAGNOSTICS room = ROW_COUNT;
    IF room <> cardinality(taken) THEN
        RAISE EXCEPTION '% jobs were taken to be claimed, % were claimed', cardinality(taken), room;
    END IF;
END
$$;

-- Invariant: running -> `next` with the lease and the attempt ended, counted and audited in the same statement, only for
-- the epoch that was locked. `delay`: milliseconds until it may be claimed again (queued; 0: now). The result is written
-- with success. Gives the number of jobs that moved.
CREATE FUNCTION end_attempts(ids uuid[], epochs bigint[], next text[], delays bigint[], attempts integer[],
                             interruptions integer[], drains integer[], error_codes text[], error_messages text[],
                             outcomes text[], results jsonb[], actors text[], types text[], details text[])
RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    moved_count bigint;
BEGIN
    WITH ended AS MATERIALIZED (
        SELECT *
        FROM UNNEST(ids, epochs, next, delays, attempts, interruptions, drains, error_codes, error_messages, outcomes,
                    results, actors, types, details)
             AS part (id, epoch, next, delay, attempts, interruptions, drains, error_code, error_message, outcome, result,
                      actor, type, detail)
    ), moved AS (
        UPDATE jobs AS job
        SET state = ended.next, attempts = job.attempts + ended.attempts,
            interruptions = job.interruptions + ended.interruptions, drains = job.drains + ended.drains,
            error_code = ended.error_code, error_message = ended.error_message, preempted_at = NULL,
            ready_at = CASE WHEN ended.next = 'queued' AND ended.delay = 0 THEN now() END,
            not_before = CASE WHEN ended.next = 'queued' AND ended.delay > 0
                              THEN now() + ended.delay * interval '1 millisecond' END,
            finished_at = CASE WHEN ended.next IN ('succeeded', 'failed', 'cancelled') THEN now() END
        FROM ended
        WHERE job.id = ended.id AND job.state = 'running' AND job.lease_epoch = ended.epoch
        RETURNING job.id, job.queue, job.tenant, job.ready_at IS NOT NULL AS is_ready, job.needs_hash, job.needs,
                  job.claim_order, ended.epoch, ended.next,
                  ended.error_code, ended.error_message, ended.outcome, ended.result, ended.actor, ended.type,
                  ended.detail
    ), ready AS (
        INSERT INTO ready_jobs (queue, tenant, needs_hash, claim_order, job_id, needs)
        SELECT moved.queue, moved.tenant, moved.needs_hash, moved.claim_order, moved.id, moved.needs
        FROM moved WHERE moved.is_ready
    ), lease AS (
        DELETE FROM job_leases USING moved WHERE job_leases.job_id = moved.id AND job_leases.epoch = moved.epoch
    ), attempt AS (
        UPDATE job_attempts
        SET ended_at = now(), outcome = moved.outcome, error_code = moved.error_code,
            error_message = moved.error_message
        FROM moved
        WHERE job_attempts.job_id = moved.id AND job_attempts.epoch = moved.epoch
    ), outcome AS (
        UPDATE job_configs SET result = moved.result
        FROM moved WHERE job_configs.job_id = moved.id AND moved.result IS NOT NULL
    ), audited AS (
        INSERT INTO job_events (job_id, type, state, attempt, actor, detail)
        SELECT moved.id, moved.type, moved.next, moved.epoch, moved.actor, coalesce(moved.detail, '{}')::json FROM moved
    ), total AS MATERIALIZED (
        SELECT moved.queue, moved.tenant, count(*)::integer AS jobs,
               (count(*) FILTER (WHERE moved.is_ready))::integer AS ready
        FROM moved GROUP BY moved.queue, moved.tenant
    )
    SELECT sum(total.jobs) INTO moved_count
    FROM total CROSS JOIN LATERAL count_jobs(total.queue, total.tenant, total.ready, -total.jobs) AS counted;
    RETURN coalesce(moved_count, 0);
END
$$;

-- As before, without a function in SQL, which is parsed and planned in every transaction anew, and with the row before
-- looked for only in partitions since the job was made (and a day, for a clock that was set back). The content is that
-- of audit_canonical().
-- Rows of leases and attempts are made with the claim alone, under their job's lock: looking for the job once more, at
-- each of them, was a sixth of a claim.
ALTER TABLE job_leases DROP CONSTRAINT job_leases_job_id_fkey;
ALTER TABLE job_attempts DROP CONSTRAINT job_attempts_job_id_fkey;

CREATE OR REPLACE FUNCTION audit_chain() RETURNS trigger
LANGUAGE plpgsql
SET search_path = modelforge, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    since timestamptz;
BEGIN
    SELECT created_at - interval '1 day' INTO since FROM jobs WHERE id = NEW.job_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'audit row without its job' USING ERRCODE = 'foreign_key_violation';
    END IF;
    SELECT sequence + 1, hash INTO NEW.sequence, NEW.previous_hash
    FROM job_events WHERE job_id = NEW.job_id AND recorded_at >= since ORDER BY sequence DESC LIMIT 1;
    IF NOT FOUND THEN
        NEW.sequence := 1;
        NEW.previous_hash := '\x';
    END IF;
    NEW.event_id := gen_random_uuid();
    NEW.hash := sha256(NEW.previous_hash || convert_to(
        jsonb_build_array(NEW.job_id, NEW.sequence, NEW.event_id, (extract(epoch FROM NEW.recorded_at) * 1000000)::bigint,
                          NEW.type, NEW.state, NEW.attempt, NEW.step, NEW.actor, NEW.detail::text)::text, 'UTF8'));
    INSERT INTO outbox (shard, job_id, sequence, recorded_at)
    VALUES (get_byte(uuid_send(NEW.job_id), 15) & 15, NEW.job_id, NEW.sequence, NEW.recorded_at);
    RETURN NEW;
END
$$;

REVOKE ALL ON FUNCTION count_jobs(text, text, integer, integer), claims_lock(), caps_change(),
    take_jobs(text, text, integer, uuid, boolean, boolean, boolean, boolean, bigint[], jsonb),
    claim_jobs(text, integer, text[], boolean[], boolean[], boolean[], boolean, bigint[], jsonb, uuid, boolean),
    end_attempts(uuid[], bigint[], text[], bigint[], integer[], integer[], integer[], text[], text[], text[], jsonb[],
                 text[], text[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION count_jobs(text, text, integer, integer), claims_lock(),
    take_jobs(text, text, integer, uuid, boolean, boolean, boolean, boolean, bigint[], jsonb),
    claim_jobs(text, integer, text[], boolean[], boolean[], boolean[], boolean, bigint[], jsonb, uuid, boolean),
    end_attempts(uuid[], bigint[], text[], bigint[], integer[], integer[], integer[], text[], text[], text[], jsonb[],
                 text[], text[], text[]) TO modelforge_worker;
