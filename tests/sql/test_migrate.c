/* Migrations: from nothing, again, at once, edited, newer; and what each role really may do. */
#include "support.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static void test_from_nothing_and_again(void **unused) {
    struct mf_error error;
    struct mf_migrate_report report;
    struct mf_database *database = connect_as(NULL);
    (void)unused;
    assert_status(mf_migrate_check(database, &error), MF_ERROR_CONFIGURATION);
    assert_non_null(strstr(error.message, "modelforge migrate"));
    assert_fine(mf_migrate(database, NULL, &report, &error));
    assert_true(report.applied >= 6);
    assert_int_equal(report.version, report.applied);
    assert_fine(mf_migrate_check(database, &error));
    int version = report.version;
    assert_fine(mf_migrate(database, NULL, &report, &error));
    assert_int_equal(report.applied, 0);
    assert_int_equal(report.version, version);
    assert_string_equal(ask("SELECT tableowner FROM pg_tables WHERE tablename = 'jobs'"), "modelforge_owner");
    /* Partitions of this moment are there: an insert finds its place. */
    run_sql("INSERT INTO modelforge.step_metrics VALUES (gen_random_uuid(), 1, 1, 1, 1, 1, 1, 1, 1, 1)");
    assert_int_equal(ask_number("SELECT modelforge.maintain_partitions()"), 0);
    mf_database_close(database);
}

static void *migrate_thread(void *result) {
    struct mf_error error;
    struct mf_migrate_report report;
    struct mf_database *database = connect_as(NULL);
    enum mf_status status = mf_migrate(database, NULL, &report, &error);
    *(int *)result = status ? -1 : report.applied;
    mf_database_close(database);
    return NULL;
}

static void test_two_at_once(void **unused) {
    pthread_t threads[4];
    int applied[4], total = 0;
    (void)unused;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, migrate_thread, &applied[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_true(applied[i] >= 0);
        total += applied[i];
    }
    assert_int_equal(total, ask_number("SELECT count(*) FROM modelforge.schema_migrations"));
}

static void test_edited_migration_is_refused(void **unused) {
    struct mf_error error;
    struct mf_database *database = connect_as(NULL);
    (void)unused;
    run_sql("UPDATE modelforge.schema_migrations SET sha256 = repeat('0', 64) WHERE version = 2");
    assert_status(mf_migrate(database, NULL, NULL, &error), MF_ERROR_CONFIGURATION);
    assert_non_null(strstr(error.message, "0002_ingest"));
    assert_status(mf_migrate_check(database, &error), MF_ERROR_CONFIGURATION);
    mf_database_close(database);
}

static void test_newer_database(void **unused) {
    struct mf_error error;
    struct mf_database *database = connect_as("modelforge_worker");
    (void)unused;
    run_sql("INSERT INTO modelforge.schema_migrations (version, name, sha256, min_compatible) "
            "VALUES (900, '0900_expand', 'x', 1)");
    assert_fine(mf_migrate_check(database, &error));
    run_sql("INSERT INTO modelforge.schema_migrations (version, name, sha256, min_compatible) "
            "VALUES (901, '0901_contract', 'x', 900)");
    assert_status(mf_migrate_check(database, &error), MF_ERROR_CONFIGURATION);
    assert_non_null(strstr(error.message, "0901_contract"));
    mf_database_close(database);
}

/* The statement must fail for lack of rights (42501) under the role. */
static void refuse(const char *role, const char *sql) {
    struct mf_database *database = connect_as(role);
    PGresult *result = PQexec(mf_database_handle(database), sql);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (!sqlstate || strcmp(sqlstate, "42501") != 0)
        fail_msg("%s as %s: %s", sql, role, sqlstate ? PQresultErrorMessage(result) : "was allowed");
    PQclear(result);
    mf_database_close(database);
}

static void test_worker_cannot_touch_the_record(void **unused) {
    static const char *const tables[] = {"job_events",   "ingest_rejects", "step_metrics",     "eval_metrics",
                                         "job_logs",     "checkpoints",    "artifacts",        "ingest_gaps",
                                         "request_keys", "incarnation",    "schema_migrations"};
    char sql[256];
    (void)unused;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        snprintf(sql, sizeof sql, "DELETE FROM %s", tables[i]);
        refuse("modelforge_worker", sql);
        snprintf(sql, sizeof sql, "TRUNCATE %s", tables[i]);
        refuse("modelforge_worker", sql);
    }
    refuse("modelforge_worker", "UPDATE job_events SET actor = 'nobody'");
    refuse("modelforge_worker", "UPDATE ingest_rejects SET reason = ''");
    refuse("modelforge_worker", "UPDATE step_metrics SET loss = 0");
    refuse("modelforge_worker", "UPDATE job_configs SET config = '{}'");
    refuse("modelforge_worker", "DELETE FROM jobs");
    refuse("modelforge_worker", "TRUNCATE outbox");
    refuse("modelforge_worker", "CREATE TABLE mine (id integer)");
    refuse("modelforge_worker", "ALTER TABLE job_events DISABLE TRIGGER ALL");
    snprintf(sql, sizeof sql, "INSERT INTO %s SELECT * FROM job_events",
             ask("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'job_events'::regclass "
                 "LIMIT 1"));
    refuse("modelforge_worker", sql);
}

static void test_reader_sees_views_only(void **unused) {
    struct mf_error error;
    struct mf_database *database = connect_as("modelforge_reader");
    (void)unused;
    assert_fine(mf_database_execute(
        database,
        "SELECT * FROM job_overview; SELECT * FROM run_history; SELECT * FROM loss_curve; SELECT * FROM "
        "eval_curve; "
        "SELECT * FROM queue_depth; SELECT * FROM tenant_usage; SELECT * FROM batch_summary; "
        "SELECT * FROM failure_reasons; SELECT * FROM audit_trail; SELECT * FROM worker_status; "
        "SELECT * FROM reject_log; SELECT * FROM command_log; SELECT * FROM outbox_parked; "
        "SELECT * FROM ingest_status; SELECT * FROM job_log; SELECT * FROM job_artifacts; "
        "SELECT * FROM job_checkpoints; SELECT * FROM loss_curve(gen_random_uuid()); "
        "SELECT audit_chain_whole(gen_random_uuid())",
        &error));
    mf_database_close(database);
    refuse("modelforge_reader", "SELECT * FROM jobs");
    refuse("modelforge_reader", "SELECT * FROM job_events");
    refuse("modelforge_reader", "SELECT maintain_partitions()");
    refuse("modelforge_reader", "INSERT INTO workers (worker_id) VALUES ('x')");
}

/* A service's own database administrator: owns the database, may make roles, is no superuser. */
static void test_as_database_owner_with_logins(void **unused) {
    struct mf_error error;
    struct mf_migrate_report report;
    char url[1024], owner[80], login[80];
    (void)unused;
    snprintf(owner, sizeof owner, "%s_owner", test_database_name());
    snprintf(login, sizeof login, "%s_login", test_database_name());
    run_sql("CREATE ROLE %s LOGIN CREATEROLE PASSWORD 'test-password'", owner);
    run_sql("ALTER DATABASE %s OWNER TO %s", test_database_name(), owner);
    other_user_url(owner, test_database_name(), url, sizeof url);
    struct mf_database *database = NULL;
    struct mf_database_options options = {.url = url};
    assert_fine(mf_database_open(&options, &database, &error));
    const struct mf_migrate_login logins[] = {{"modelforge_worker", login, "test-password"}};
    const struct mf_migrate_options with = {.logins = logins, .login_count = 1};
    assert_fine(mf_migrate(database, &with, &report, &error));
    assert_true(report.applied >= 6);
    assert_fine(mf_migrate(database, &with, &report, &error));
    mf_database_close(database);
    assert_string_equal(ask("SELECT left(rolpassword, 14) FROM pg_authid WHERE rolname = '%s'", login),
                        "SCRAM-SHA-256$");

    other_user_url(login, test_database_name(), url, sizeof url);
    assert_fine(mf_database_open(&options, &database, &error));
    assert_fine(mf_migrate_check(database, &error));
    assert_fine(mf_store_maintain_partitions(database, &error));
    assert_status(mf_migrate(database, NULL, NULL, &error), MF_ERROR_INTERNAL);
    mf_database_close(database);
    run_sql("ALTER DATABASE %s OWNER TO CURRENT_USER; DROP OWNED BY %s; DROP ROLE %s; DROP OWNED BY %s; DROP "
            "ROLE %s",
            test_database_name(), login, login, owner, owner);
}

static void test_incarnation_renews(void **unused) {
    struct mf_error error;
    char before[64];
    struct mf_database *database = connect_as(NULL);
    (void)unused;
    snprintf(before, sizeof before, "%s", ask("SELECT incarnation FROM incarnation"));
    assert_fine(mf_migrate_renew_incarnation(database, &error));
    assert_string_not_equal(ask("SELECT incarnation FROM incarnation"), before);
    mf_database_close(database);
}

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_from_nothing_and_again, create_database, drop_database),
        cmocka_unit_test_setup_teardown(test_two_at_once, create_database, drop_database),
        cmocka_unit_test_setup_teardown(test_edited_migration_is_refused, create_migrated, drop_database),
        cmocka_unit_test_setup_teardown(test_newer_database, create_migrated, drop_database),
        cmocka_unit_test_setup_teardown(test_worker_cannot_touch_the_record, create_migrated, drop_database),
        cmocka_unit_test_setup_teardown(test_reader_sees_views_only, create_migrated, drop_database),
        cmocka_unit_test_setup_teardown(test_as_database_owner_with_logins, create_database, drop_database),
        cmocka_unit_test_setup_teardown(test_incarnation_renews, create_migrated, drop_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
