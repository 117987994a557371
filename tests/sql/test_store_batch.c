/* The end of a batch: one batch_finished a round, only once nothing of it is left to do, whoever adds a job
 * meanwhile. */
#include "support.h"

#include <stdio.h>
#include <string.h>

#define ON_NEW_DATABASE(test) cmocka_unit_test_setup_teardown(test, create_migrated, drop_database)

static void in_batch(struct mf_ingest_request *request) {
    request->batch_id = "nightly";
}

static int64_t reap(struct mf_database *database, int32_t settle_s) {
    const struct mf_reap_options options = {.provider_grace_s = 3600, .batch_settle_s = settle_s};
    struct mf_reap_report report;
    struct mf_error error;
    assert_fine(mf_store_reap(database, &options, &report, &error));
    return report.batches;
}

/* Claims one job and ends it. */
static void end_one(struct mf_database *database, const struct mf_finish *finish) {
    struct mf_claim claim;
    struct mf_error error;
    assert_true(claim_one(database, "worker", &claim));
    assert_fine(mf_store_finish(database, "worker", &claim.lease, finish, &at_once, NULL, &error));
    mf_claim_free(&claim);
}

static const struct mf_finish success = {.outcome = MF_OUTCOME_SUCCEEDED, .result = "{}"};
static const struct mf_finish failure = {
    .outcome = MF_OUTCOME_FAILED, .error_status = MF_ERROR_BAD_WEIGHTS, .error_message = "m"};

static const char *events(void) {
    return ask("SELECT coalesce(string_agg(detail::text, ' ' ORDER BY recorded_at), '') FROM job_events "
               "WHERE type = 'batch_finished'");
}

#define TEAM "job_events JOIN jobs ON jobs.id = job_id WHERE type = 'batch_finished' AND tenant = 'team'"

static void test_one_event_when_all_have_ended(void **unused) {
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "a", in_batch, NULL);
    add_job(database, "team", "b", in_batch, NULL);
    end_one(database, &success);
    assert_int_equal(reap(database, 0), 0);
    add_job(database, "other", "a", in_batch, NULL); /* another tenant's batch of the same name */
    add_job(database, "team", "alone", NULL, NULL);
    for (int i = 0; i < 3; i++)
        end_one(database, &success);
    assert_int_equal(reap(database, 3600), 0); /* it may be that more come */
    assert_int_equal(reap(database, 0), 2);
    assert_string_equal(
        ask("SELECT detail FROM " TEAM),
        "{\"batch_id\":\"nightly\",\"cancelled\":0,\"failed\":0,\"jobs\":2,\"round\":1,\"succeeded\":2}");
    for (int i = 0; i < 3; i++)
        assert_int_equal(reap(database, 0), 0);
    assert_int_equal(ask_number("SELECT count(*) FROM " TEAM), 1);
    /* It goes the way of every event. */
    assert_int_equal(ask_number("SELECT count(*) FROM outbox WHERE (job_id, sequence) IN "
                                "(SELECT job_id, sequence FROM job_events WHERE type = 'batch_finished')"),
                     2);
    assert_string_equal(ask("SELECT bool_and(audit_chain_whole(id)) FROM jobs"), "t");
    mf_database_close(database);
}

/* A retry and a job that comes late open the next round, counted by newest generations. */
static void test_rounds(void **unused) {
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "a", in_batch, NULL);
    end_one(database, &failure);
    assert_int_equal(reap(database, 0), 1);
    assert_int_equal(
        send_command_of(database, "team", "a", "00000000-0000-0000-0000-000000000001", MF_COMMAND_RETRY, 1),
        MF_FATE_ACCEPTED);
    assert_int_equal(reap(database, 0), 0);
    assert_string_equal(
        ask("SELECT round || ' ' || jobs || ' ' || failed || ' ' || coalesce(announced_at::text, '-') "
            "FROM batch_summary"),
        "2 1 0 -");
    end_one(database, &success);
    assert_int_equal(reap(database, 0), 1);
    add_job(database, "team", "late", in_batch, NULL);
    assert_int_equal(reap(database, 0), 0);
    end_one(database, &failure);
    assert_int_equal(reap(database, 0), 1);
    assert_string_equal(
        events(),
        "{\"batch_id\":\"nightly\",\"cancelled\":0,\"failed\":1,\"jobs\":1,\"round\":1,\"succeeded\":0} "
        "{\"batch_id\":\"nightly\",\"cancelled\":0,\"failed\":0,\"jobs\":1,\"round\":2,\"succeeded\":1} "
        "{\"batch_id\":\"nightly\",\"cancelled\":0,\"failed\":1,\"jobs\":2,\"round\":3,\"succeeded\":1}");
    mf_database_close(database);
}

static void begin_adding(struct mf_database *adder, const char *request_id) {
    char sql[300];
    struct mf_error error;
    snprintf(
        sql, sizeof sql,
        "INSERT INTO jobs (id, tenant, request_id, batch_id, queue, priority, devices, claim_order, "
        "max_attempts) VALUES (gen_random_uuid(), 'team', '%s', 'nightly', 'huggingface', 0, 1, now(), 1)",
        request_id);
    assert_fine(mf_database_execute(adder, "SET lock_timeout = 200", &error));
    assert_fine(mf_database_begin(adder, &error));
    assert_fine(mf_database_execute(adder, sql, &error));
}

/* Jobs of one batch come by many partitions at once: none waits for the other's commit, and while one is
 * under way the batch does not end. */
static void test_many_add_to_a_batch_at_once(void **unused) {
    struct mf_database *database = connect_worker(), *adders[3];
    struct mf_error error;
    (void)unused;
    add_job(database, "team", "a", in_batch, NULL);
    end_one(database, &success);
    for (int i = 0; i < 3; i++) {
        char name[2] = {(char)('b' + i), 0};
        adders[i] = connect_as(NULL);
        begin_adding(adders[i], name);
    }
    assert_int_equal(reap(database, 0), 0);
    for (int i = 0; i < 3; i++) {
        assert_fine(mf_database_commit(adders[i], &error));
        mf_database_close(adders[i]);
        assert_int_equal(reap(database, 0), 0);
    }
    assert_string_equal(events(), "");
    mf_database_close(database);
}

/* A batch is not ended while another transaction is adding a job to it, nor after that one has committed. */
static void test_a_job_under_way_keeps_it_open(void **unused) {
    struct mf_database *database = connect_worker(), *adder = connect_as(NULL);
    struct mf_error error;
    (void)unused;
    add_job(database, "team", "a", in_batch, NULL);
    end_one(database, &success);
    run_sql("UPDATE batches SET quiet_since = now() - interval '1 hour'");
    assert_fine(mf_database_begin(adder, &error));
    assert_fine(mf_database_execute(
        adder,
        "INSERT INTO jobs (id, tenant, request_id, batch_id, queue, priority, devices, claim_order, "
        "max_attempts) "
        "VALUES (gen_random_uuid(), 'team', 'b', 'nightly', 'huggingface', 0, 1, now(), 1)",
        &error));
    assert_int_equal(reap(database, 0), 0);
    assert_fine(mf_database_commit(adder, &error));
    assert_int_equal(reap(database, 0), 0);
    assert_string_equal(events(), "");
    /* A mark that is wrong, whoever left it, ends nothing either. */
    run_sql("UPDATE batches SET quiet_since = now() - interval '1 hour'");
    assert_int_equal(reap(database, 0), 0);
    assert_string_equal(ask("SELECT quiet_since IS NULL AND finished_at IS NULL FROM batches"), "t");
    mf_database_close(adder);
    mf_database_close(database);
}

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        ON_NEW_DATABASE(test_one_event_when_all_have_ended),
        ON_NEW_DATABASE(test_rounds),
        ON_NEW_DATABASE(test_a_job_under_way_keeps_it_open),
        ON_NEW_DATABASE(test_many_add_to_a_batch_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
