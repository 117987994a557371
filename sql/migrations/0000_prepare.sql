-- Runs before every migration and changes nothing the second time: the three group roles, the schema and the list
-- of applied migrations. The roles belong to the whole server, so another database's migration may make them at the
-- same moment: both orders are fine.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['modelforge_owner', 'modelforge_worker', 'modelforge_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;
    IF NOT pg_has_role(current_user, 'modelforge_owner', 'USAGE') THEN
        EXECUTE format('GRANT modelforge_owner TO %I', current_user);
    END IF;
    IF NOT has_database_privilege('modelforge_owner', current_database(), 'CREATE') THEN
        EXECUTE format('GRANT CREATE ON DATABASE %I TO modelforge_owner', current_database());
    END IF;
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'modelforge') THEN
        EXECUTE 'CREATE SCHEMA modelforge AUTHORIZATION modelforge_owner';
        -- So that psql and dashboards find the views without a prefix.
        EXECUTE format('ALTER DATABASE %I SET search_path = modelforge, public', current_database());
    END IF;
END
$$;

SET ROLE modelforge_owner;

CREATE TABLE IF NOT EXISTS modelforge.schema_migrations (
    version        integer PRIMARY KEY,
    name           text NOT NULL,
    sha256         text NOT NULL,
    -- A program whose newest migration is below this cannot work with the database any more (contract step).
    min_compatible integer NOT NULL,
    applied_at     timestamptz NOT NULL DEFAULT now(),
    applied_by     text NOT NULL DEFAULT session_user
);
