/* Connections, error classes, parameters, transactions, COMMIT whose outcome is unknown, notifications. */
#include "common/clock.h"
#include "support.h"

#include <libpq-fe.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_classes(void **unused) {
    (void)unused;
    assert_int_equal(mf_database_classify("22021"), MF_DATABASE_MESSAGE);
    assert_int_equal(mf_database_classify("23505"), MF_DATABASE_MESSAGE);
    assert_int_equal(mf_database_classify("54000"), MF_DATABASE_MESSAGE);
    assert_int_equal(mf_database_classify("40001"), MF_DATABASE_RETRY);
    assert_int_equal(mf_database_classify("40P01"), MF_DATABASE_RETRY);
    assert_int_equal(mf_database_classify("08006"), MF_DATABASE_INFRASTRUCTURE);
    assert_int_equal(mf_database_classify("53300"), MF_DATABASE_INFRASTRUCTURE);
    assert_int_equal(mf_database_classify("57P01"), MF_DATABASE_INFRASTRUCTURE);
    assert_int_equal(mf_database_classify("57014"), MF_DATABASE_INFRASTRUCTURE);
    assert_int_equal(mf_database_classify("58030"), MF_DATABASE_INFRASTRUCTURE);
    assert_int_equal(mf_database_classify("55P03"), MF_DATABASE_INFRASTRUCTURE);
    assert_int_equal(mf_database_classify(NULL), MF_DATABASE_INFRASTRUCTURE);
    assert_int_equal(mf_database_classify("42501"), MF_DATABASE_DEFECT);
}

static void test_session_limits(void **unused) {
    struct mf_error error;
    char url[1024];
    struct mf_database *database = NULL;
    (void)unused;
    snprintf(url, sizeof url, "%s", getenv("MF_TEST_DATABASE_URL"));
    struct mf_database_options options = {.url = url,
                                          .application_name = "limits-test",
                                          .statement_timeout_ms = 200,
                                          .lock_timeout_ms = 1234,
                                          .idle_in_transaction_timeout_ms = 2345};
    assert_fine(mf_database_open(&options, &database, &error));
    PGresult *result = PQexec(mf_database_handle(database),
                              "SELECT current_setting('application_name'), current_setting('lock_timeout'), "
                              "current_setting('idle_in_transaction_session_timeout'), "
                              "current_setting('client_encoding'), current_setting('search_path')");
    assert_string_equal(PQgetvalue(result, 0, 0), "limits-test");
    assert_string_equal(PQgetvalue(result, 0, 1), "1234ms");
    assert_string_equal(PQgetvalue(result, 0, 2), "2345ms");
    assert_string_equal(PQgetvalue(result, 0, 3), "UTF8");
    assert_string_equal(PQgetvalue(result, 0, 4), "modelforge, public");
    PQclear(result);
    assert_status(mf_database_execute(database, "SELECT pg_sleep(30)", &error), MF_ERROR_DATABASE);
    assert_int_equal(mf_database_failure(database), MF_DATABASE_INFRASTRUCTURE);
    assert_true(mf_database_connected(database));
    mf_database_close(database);
}

static void test_unreachable_server_says_so_without_the_password(void **unused) {
    struct mf_error error;
    struct mf_database *database = NULL;
    (void)unused;
    struct mf_database_options options = {.url = "postgresql://somebody:topsecret@127.0.0.1:1/nothing"};
    assert_status(mf_database_open(&options, &database, &error), MF_ERROR_DATABASE);
    assert_null(database);
    assert_null(strstr(error.message, "topsecret"));
    options.url = NULL;
    assert_status(mf_database_open(&options, &database, &error), MF_ERROR_CONFIGURATION);
    static const char *const malformed[] = {"postgresql://somebody:top/secret@127.0.0.1/name",
                                            "postgresql://somebody:top@secret@127.0.0.1/name",
                                            "postgresql://somebody:12/secret@127.0.0.1/name",
                                            "postgresql://somebody:top%secret@127.0.0.1/name",
                                            "postgresql://somebody:secret@[::1/name",
                                            "postgresql://somebody:secret@127.0.0.1/name?x=y",
                                            "host=127.0.0.1 password=top secret",
                                            "host=127.0.0.1 password='top secret",
                                            "postgres://somebody:se:cret@127.0.0.1:x/name"};
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        options.url = malformed[i];
        assert_status(mf_database_open(&options, &database, &error), MF_ERROR_CONFIGURATION);
        assert_null(database);
        assert_null(strstr(error.message, "top"));
        assert_null(strstr(error.message, "secret"));
        assert_null(strstr(error.message, "cret"));
    }
}

/* Every kind of parameter and element comes back as it went in, through a real insert. */
static void test_parameters_are_binary_safe(void **unused) {
    struct mf_error error;
    struct test_record texts;
    bool applied = false;
    static const char key[] = "\0\x01key\xff\\\"";
    static const char value[] = "\0\xff\xfe{},\"\\x";
    struct mf_database *database = connect_worker();
    (void)unused;
    struct mf_ingest_record records[2] = {request_record(&texts, "team", "q\"uo\\te,{é}", 5),
                                          {.kind = MF_INGEST_REJECT,
                                           .offset = 6,
                                           .timestamp = MF_TIME_NONE,
                                           .key = key,
                                           .key_size = sizeof key - 1,
                                           .value = value,
                                           .value_size = sizeof value - 1,
                                           .reject_status = MF_ERROR_NOT_AVRO,
                                           .reject_reason = "bad \xff byte, not Avro"}};
    records[0].request.config = "{\"name\": \"a \\\"quoted\\\" \\\\ {x,y} é\"}";
    records[0].request.run_at = 1700000000123;
    struct mf_ingest_batch batch = {.cluster_id = "c",
                                    .topic = "t",
                                    .expected = MF_OFFSET_NONE,
                                    .next = 7,
                                    .records = records,
                                    .count = 2};
    assert_fine(mf_store_ingest_batch(database, &batch, &applied, &error));
    assert_string_equal(ask("SELECT request_id FROM jobs"), "q\"uo\\te,{é}");
    assert_string_equal(ask("SELECT config ->> 'name' FROM job_configs"), "a \"quoted\" \\ {x,y} é");
    assert_string_equal(ask("SELECT (extract(epoch FROM not_before) * 1000)::bigint FROM jobs"),
                        "1700000000123");
    assert_string_equal(ask("SELECT record_key FROM ingest_rejects"), "\\x00016b6579ff5c22");
    assert_string_equal(ask("SELECT record_value FROM ingest_rejects"), "\\x00fffe7b7d2c225c78");
    assert_string_equal(ask("SELECT reason FROM ingest_rejects"), "bad ? byte, not Avro");
    mf_database_close(database);
}

static void test_numbers(void **unused) {
    (void)unused;
    assert_string_equal(mf_parameter_number(NAN).number, "NaN");
    assert_string_equal(mf_parameter_number(-INFINITY).number, "-Infinity");
    assert_string_equal(mf_parameter_number(0.1).number, "0.10000000000000001");
    assert_int_equal(mf_parameter_time(MF_TIME_NONE).kind, MF_PARAMETER_NULL);
    assert_int_equal(mf_parameter_time(INT64_MAX).kind, MF_PARAMETER_NULL);
    struct mf_array array = {0};
    mf_array_text(&array, "a\"b\\");
    mf_array_text(&array, NULL);
    mf_array_bytes(&array, "\x01\xff", 2);
    mf_array_boolean(&array, true);
    assert_string_equal(mf_array_parameter(&array).data, "{\"a\\\"b\\\\\",NULL,\"\\\\x01ff\",t}");
    mf_array_free(&array);
    assert_string_equal(mf_array_parameter(&array).data, "{}");
    mf_array_free(&array);
}

/* The backend is ended by a deferred trigger, that is inside COMMIT: nobody can know what became of it. */
static void test_commit_outcome_unknown(void **unused) {
    struct mf_error error;
    struct mf_database *database = connect_as(NULL);
    (void)unused;
    run_sql("CREATE TABLE public.trap (id integer);"
            "CREATE FUNCTION public.spring() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;"
            "CREATE CONSTRAINT TRIGGER spring AFTER INSERT ON public.trap DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION public.spring()");
    uint64_t session = mf_database_session(database);
    assert_fine(mf_database_begin(database, &error));
    assert_fine(mf_database_execute(database, "INSERT INTO public.trap VALUES (1)", &error));
    assert_status(mf_database_commit(database, &error), MF_ERROR_COMMIT_UNKNOWN);
    assert_int_equal(error.status, MF_ERROR_COMMIT_UNKNOWN);
    assert_false(mf_database_connected(database));
    assert_status(mf_database_execute(database, "SELECT 1", &error), MF_ERROR_DATABASE);
    assert_fine(mf_database_reconnect(database, &error));
    assert_true(mf_database_session(database) > session);
    assert_fine(mf_database_execute(database, "SELECT 1", &error));
    mf_database_close(database);
}

static bool is_postgres(pid_t process) {
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", process);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    const bool read = fgets(name, sizeof name, file) != NULL;
    fclose(file);
    return read && !strncmp(name, "postgres", 8);
}

/* A server that stands still keeps no time limit, and its kernel acknowledges what is sent to it. */
static void test_a_server_that_hangs_is_cut_off(void **unused) {
    struct mf_error error;
    struct mf_database *database = NULL;
    struct mf_database_options options = {.url = getenv("MF_TEST_DATABASE_URL"), .statement_timeout_ms = 100};
    (void)unused;
    assert_fine(mf_database_open(&options, &database, &error));
    const pid_t backend = PQbackendPID(mf_database_handle(database));
    assert_fine(mf_database_begin(database, &error));
    if (!is_postgres(backend) || kill(backend, SIGSTOP)) { /* on another host, or another user's */
        mf_database_close(database);
        skip();
    }
    const int64_t began_ms = mf_clock_monotonic_ms();
    const enum mf_status status = mf_database_commit(database, &error);
    const int64_t took_ms = mf_clock_monotonic_ms() - began_ms;
    kill(backend, SIGCONT);
    assert_int_equal(status, MF_ERROR_COMMIT_UNKNOWN);
    assert_string_equal(error.message, "PostgreSQL: COMMIT: no answer within 5100 ms");
    assert_in_range(took_ms, 5000, 15000);
    assert_false(mf_database_connected(database));
    assert_fine(mf_database_reconnect(database, &error));
    assert_fine(mf_database_execute(database, "SELECT 1", &error));
    mf_database_close(database);
}

static void test_commit_of_a_failed_transaction_is_no_success(void **unused) {
    struct mf_error error;
    struct mf_database *database = connect_as(NULL);
    (void)unused;
    assert_fine(mf_database_begin(database, &error));
    assert_status(mf_database_execute(database, "SELECT 1 / 0", &error), MF_ERROR_UNSTORABLE);
    assert_status(mf_database_commit(database, &error), MF_ERROR_INTERNAL);
    mf_database_close(database);
}

struct tries {
    int count, fail_first;
};

static enum mf_status work(struct mf_database *database, void *context, struct mf_error *error) {
    struct tries *tries = context;
    if (++tries->count <= tries->fail_first)
        return mf_database_execute(database, "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$",
                                   error);
    return mf_database_execute(database, "SELECT 1", error);
}

static void test_class_40_is_tried_again_at_once(void **unused) {
    struct mf_error error;
    struct mf_database *database = connect_as(NULL);
    struct tries twice = {.fail_first = 2}, always = {.fail_first = 1000};
    (void)unused;
    assert_fine(mf_database_transaction(database, work, &twice, &error));
    assert_int_equal(twice.count, 3);
    assert_status(mf_database_transaction(database, work, &always, &error), MF_ERROR_DATABASE);
    assert_int_equal(always.count, 10);
    assert_fine(mf_database_execute(database, "SELECT 1", &error)); /* no transaction is left open */
    assert_int_equal(PQtransactionStatus(mf_database_handle(database)), PQTRANS_IDLE);
    mf_database_close(database);
}

static void test_notifications(void **unused) {
    struct mf_error error;
    bool notified = true;
    struct mf_database *listener = connect_as(NULL), *speaker = connect_as(NULL);
    (void)unused;
    assert_fine(mf_database_listen(listener, "modelforge_jobs", &error));
    assert_fine(mf_database_wait(listener, 0, -1, &notified, &error));
    assert_false(notified);
    assert_fine(mf_database_notify(speaker, "modelforge_jobs", &error));
    assert_fine(mf_database_wait(listener, 10000, -1, &notified, &error));
    assert_true(notified);
    assert_fine(mf_database_wait(listener, 10, -1, &notified, &error));
    assert_false(notified);
    /* Another descriptor ends the wait, too. */
    int wake_fd[2];
    assert_int_equal(pipe(wake_fd), 0);
    assert_int_equal(write(wake_fd[1], "x", 1), 1);
    const int64_t before_ms = mf_clock_monotonic_ms();
    assert_fine(mf_database_wait(listener, 10000, wake_fd[0], &notified, &error));
    assert_false(notified);
    assert_true(mf_clock_monotonic_ms() - before_ms < 5000);
    close(wake_fd[0]);
    close(wake_fd[1]);
    run_sql("SELECT pg_terminate_backend(%d)", PQbackendPID(mf_database_handle(listener)));
    assert_status(mf_database_wait(listener, 10000, -1, &notified, &error), MF_ERROR_DATABASE);
    mf_database_close(listener);
    mf_database_close(speaker);
}

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_session_limits),
        cmocka_unit_test(test_unreachable_server_says_so_without_the_password),
        cmocka_unit_test_setup_teardown(test_parameters_are_binary_safe, create_migrated, drop_database),
        cmocka_unit_test_setup_teardown(test_commit_outcome_unknown, create_database, drop_database),
        cmocka_unit_test_setup_teardown(test_a_server_that_hangs_is_cut_off, create_database, drop_database),
        cmocka_unit_test_setup_teardown(test_commit_of_a_failed_transaction_is_no_success, create_database,
                                        drop_database),
        cmocka_unit_test_setup_teardown(test_class_40_is_tried_again_at_once, create_database, drop_database),
        cmocka_unit_test_setup_teardown(test_notifications, create_database, drop_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
