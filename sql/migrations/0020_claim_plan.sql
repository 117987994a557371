-- min_compatible: 18
-- A claim goes along the order of claims, job by job, and stops at what it takes. Where statistics said that few jobs are
-- ready, while many were, it read all of them: by a bitmap of the index, from the side of the jobs, or to delete some. A
-- row of ready_jobs is never updated, and its job is locked: its place stays. `state || ''` keeps indexes of states out:
-- jobs are looked up by their ids.
CREATE OR REPLACE FUNCTION take_jobs(of_queue text, of_tenant text, how_many integer, just uuid, on_cpu boolean, on_gpu boolean,
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
            WITH head AS MATERIALIZED (
                SELECT ready.ctid AS place
                FROM ready_jobs AS ready
                CROSS JOIN LATERAL (SELECT held.id FROM jobs AS held
                                    WHERE held.id = ready.job_id AND held.state || '' = 'queued'
                                      AND held.ready_at IS NOT NULL
                                    FOR NO KEY UPDATE SKIP LOCKED) AS job
                WHERE ready.queue = of_queue AND ready.tenant = of_tenant AND ready.needs_hash = first_kind
                  AND (just IS NULL OR ready.job_id = just)
                ORDER BY ready.claim_order, ready.job_id LIMIT how_many
            ), gone AS (
                DELETE FROM ready_jobs AS ready WHERE ready.ctid = ANY (ARRAY (SELECT head.place FROM head))
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
        SELECT first.place
        FROM quota
        CROSS JOIN LATERAL (
                        SELECT ready.ctid AS place
                        FROM ready_jobs AS ready
                        CROSS JOIN LATERAL (SELECT held.id FROM jobs AS held
                                            WHERE held.id = ready.job_id AND held.state || '' = 'queued'
                                              AND held.ready_at IS NOT NULL
                                            FOR NO KEY UPDATE SKIP LOCKED) AS job
                        WHERE ready.queue = of_queue AND ready.tenant = of_tenant AND ready.needs_hash = quota.needs_hash
                          AND (just IS NULL OR ready.job_id = just)
                        ORDER BY ready.claim_order, ready.job_id LIMIT quota.jobs) AS first
    ), gone AS (
        DELETE FROM ready_jobs AS ready WHERE ready.ctid = ANY (ARRAY (SELECT head.place FROM head))
        RETURNING ready.job_id, ready.claim_order
    )
    SELECT array_agg(gone.job_id ORDER BY gone.claim_order, gone.job_id) INTO taken FROM gone;
    RETURN coalesce(taken, '{}');
END
$$;

CREATE OR REPLACE FUNCTION claim_jobs(worker text, wanted integer, queues text[], on_cpu boolean[], on_gpu boolean[],
                           many_gpus boolean[], has_gpus boolean, gpu_memory bigint[], labels jsonb, just uuid,
                           waiting boolean)
RETURNS TABLE (job_id uuid, epoch bigint, tenant text, request_id text, created_ms bigint, deadline_ms bigint,
               gpus integer, gpu_memory_bytes bigint, incarnation uuid, attempt_id uuid, config jsonb,
               checkpoint_uri text, checkpoint_step bigint, checkpoint_sha256 text)
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
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
        WHERE job.id = ANY (taken) AND job.state || '' = 'queued' AND job.desired = 'run'
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

-- The same for ends: each table is read by the ids alone, whichever side a join begins with.
CREATE OR REPLACE FUNCTION end_attempts(ids uuid[], epochs bigint[], next text[], delays bigint[], attempts integer[],
                             interruptions integer[], drains integer[], error_codes text[], error_messages text[],
                             outcomes text[], results jsonb[], actors text[], types text[], details text[])
RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
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
        WHERE job.id = ANY (ids) AND job.id = ended.id AND job.state || '' = 'running' AND job.lease_epoch = ended.epoch
        RETURNING job.id, job.queue, job.tenant, job.ready_at IS NOT NULL AS is_ready, job.needs_hash, job.needs,
                  job.claim_order, ended.epoch, ended.next,
                  ended.error_code, ended.error_message, ended.outcome, ended.result, ended.actor, ended.type,
                  ended.detail
    ), ready AS (
        INSERT INTO ready_jobs (queue, tenant, needs_hash, claim_order, job_id, needs)
        SELECT moved.queue, moved.tenant, moved.needs_hash, moved.claim_order, moved.id, moved.needs
        FROM moved WHERE moved.is_ready
    ), lease AS (
        DELETE FROM job_leases USING moved
        WHERE job_leases.job_id = ANY (ids) AND job_leases.job_id = moved.id AND job_leases.epoch = moved.epoch
    ), attempt AS (
        UPDATE job_attempts
        SET ended_at = now(), outcome = moved.outcome, error_code = moved.error_code,
            error_message = moved.error_message
        FROM moved
        WHERE job_attempts.job_id = ANY (ids) AND job_attempts.job_id = moved.id AND job_attempts.epoch = moved.epoch
    ), outcome AS (
        UPDATE job_configs SET result = moved.result
        FROM moved WHERE job_configs.job_id = ANY (ids) AND job_configs.job_id = moved.id AND moved.result IS NOT NULL
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
