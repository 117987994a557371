-- Invariant: read only, through the public views and the server's catalogue; one row. A worker that is not live
-- and did not say that it stopped is silent, for a day. $1 is this program's version.
WITH live AS (
    SELECT worker_id, version, providers
    FROM worker_status WHERE live
)
SELECT current_setting('server_version') AS server, current_setting('server_version_num')::integer >= 140000 AS server_fits,
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS clock_ms,
       (SELECT string_agg(role, ', ') FROM unnest(ARRAY['modelforge_owner', 'modelforge_worker', 'modelforge_reader']) AS role
        WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role)) AS roles_missing,
       (SELECT string_agg(login.rolname, ', ' ORDER BY login.rolname)
        FROM pg_auth_members AS member JOIN pg_roles AS login ON login.oid = member.member
        WHERE member.roleid = (SELECT oid FROM pg_roles WHERE rolname = 'modelforge_worker') AND login.rolcanlogin
       ) AS worker_logins,
       (SELECT count(*) FROM live) AS live,
       (SELECT string_agg(DISTINCT name, ', ') FROM live CROSS JOIN unnest(live.providers) AS name) AS providers,
       (SELECT string_agg(worker_id || ' ' || version, ', ' ORDER BY worker_id) FROM live WHERE version <> $1) AS other_versions,
       (SELECT string_agg(worker_id, ', ' ORDER BY worker_id) FROM worker_status
        WHERE stopped_at IS NULL AND NOT live AND heard_at > now() - interval '1 day'
       ) AS silent,
       (SELECT string_agg(worker_id || ' ' || (gpu ->> 'name') || ' ' || (gpu ->> 'uuid') || ': ' || (gpu ->> 'fault'), '; '
                          ORDER BY worker_id)
        FROM worker_status CROSS JOIN jsonb_array_elements(CASE jsonb_typeof(gpus) WHEN 'array' THEN gpus ELSE '[]' END) AS gpu
        WHERE live AND gpu ->> 'fault' IS NOT NULL
       ) AS faulty_gpus,
       (SELECT count(*) FROM ingest_status) AS partitions,
       (SELECT count(*) FROM ingest_status WHERE halted_by IS NOT NULL) AS halted,
       (SELECT count(*) FROM outbox_parked) AS parked,
       (SELECT coalesce(sum(ready + delayed), 0) FROM queue_depth) AS queued,
       (SELECT coalesce(sum(running), 0) FROM queue_depth) AS running,
       (SELECT coalesce(sum(unplaceable), 0) FROM queue_depth) AS unplaceable
