/* Commands: order, tombstones, generations, what was ignored and why. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMAND(n)            "00000000-0000-0000-0000-00000000000" n
#define ON_NEW_DATABASE(test) cmocka_unit_test_setup_teardown(test, create_migrated, drop_database)

static const struct mf_reap_options reap_options = {.provider_grace_s = 3600};

/* Several commands of one request as one batch, so that they share a transaction and its time. */
static void send_together(struct mf_database *database, const char *request_id,
                          const enum mf_command_action *actions, size_t count) {
    struct mf_error error;
    struct mf_ingest_record records[8] = {{.kind = MF_INGEST_COMMAND}};
    bool applied;
    long next =
        ask_number("SELECT coalesce((SELECT next_offset FROM ingest_offsets WHERE topic = 'commands'), 0)");
    for (size_t i = 0; i < count; i++) {
        records[i] = (struct mf_ingest_record){
            .kind = MF_INGEST_COMMAND,
            .offset = next + (long)i,
            .timestamp = MF_TIME_NONE,
            .command = {.tenant = "team", .request_id = request_id, .action = actions[i]}};
        /* falling ids: neither the id nor the time of arrival gives the order */
        snprintf(records[i].command.command_id, MF_UUID_TEXT_BYTES, "00000000-0000-0000-0000-%012ld",
                 900 - next - (long)i);
    }
    struct mf_ingest_batch batch = {.cluster_id = "cluster",
                                    .topic = "commands",
                                    .expected = next ? next : MF_OFFSET_NONE,
                                    .next = next + (long)count,
                                    .records = records,
                                    .count = count};
    assert_fine(mf_store_ingest_batch(database, &batch, &applied, &error));
    assert_true(applied);
}

static void test_commands_before_their_request_act_in_order(void **unused) {
    static const enum mf_command_action paused[] = {MF_COMMAND_PAUSE, MF_COMMAND_RESUME, MF_COMMAND_PAUSE};
    static const enum mf_command_action resumed[] = {MF_COMMAND_RESUME, MF_COMMAND_PAUSE, MF_COMMAND_RESUME};
    struct mf_database *database = connect_worker();
    struct mf_claim claim;
    (void)unused;
    send_together(database, "one", paused, 3);
    add_job(database, "team", "one", NULL, NULL);
    assert_string_equal(ask("SELECT state FROM jobs"), "paused");
    assert_string_equal(ask("SELECT string_agg(type, ' ' ORDER BY sequence) FROM job_events"),
                        "queued paused resumed paused");
    assert_int_equal(ask_number("SELECT ready FROM tenant_load"), 0);
    assert_false(claim_one(database, "worker", &claim));
    send_together(database, "two", resumed, 3);
    add_job(database, "team", "two", NULL, NULL);
    assert_string_equal(ask("SELECT state FROM jobs WHERE request_id = 'two'"), "queued");
    assert_string_equal(
        ask("SELECT string_agg(outcome, ' ' ORDER BY sequence) FROM commands WHERE request_id = 'two'"),
        "ignored applied applied");
    assert_string_equal(ask("SELECT note FROM commands WHERE outcome = 'ignored'"), "the job is queued");
    assert_int_equal(ask_number("SELECT ready FROM tenant_load"), 1);
    assert_true(claim_one(database, "worker", &claim));
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_a_command_whose_request_never_comes_expires(void **unused) {
    struct mf_error error;
    struct mf_database *database = connect_worker();
    (void)unused;
    assert_int_equal(send_command(database, "team", "never", COMMAND("1"), MF_COMMAND_CANCEL),
                     MF_FATE_ACCEPTED);
    assert_int_equal(send_command(database, "team", "soon", COMMAND("2"), MF_COMMAND_CANCEL),
                     MF_FATE_ACCEPTED);
    run_sql("UPDATE commands SET expires_at = now() - interval '1 second' WHERE request_id = 'never'");
    assert_fine(mf_store_reap(database, &reap_options, NULL, &error));
    assert_string_equal(ask("SELECT string_agg(outcome, ' ' ORDER BY sequence) FROM commands"),
                        "expired waiting");
    add_job(database, "team", "never", NULL, NULL);
    assert_fine(mf_store_reap(database, &reap_options, NULL, &error));
    assert_string_equal(ask("SELECT state FROM jobs"), "queued");
    mf_database_close(database);
}

static void in_an_hour(struct mf_ingest_request *request) {
    request->run_at = ask_number("SELECT (extract(epoch FROM now() + interval '1 hour') * 1000)::bigint");
}

/* A pause does not shorten run_at, and the job comes back at its old place. */
static void test_resume_keeps_run_at_and_place(void **unused) {
    struct mf_database *database = connect_worker();
    struct mf_claim claim;
    (void)unused;
    add_job(database, "team", "later", in_an_hour, NULL);
    add_job(database, "team", "first", NULL, NULL);
    add_job(database, "team", "second", NULL, NULL);
    assert_int_equal(send_command(database, "team", "later", COMMAND("1"), MF_COMMAND_PAUSE),
                     MF_FATE_ACCEPTED);
    assert_int_equal(send_command(database, "team", "first", COMMAND("2"), MF_COMMAND_PAUSE),
                     MF_FATE_ACCEPTED);
    assert_int_equal(ask_number("SELECT ready FROM tenant_load"), 1);
    assert_int_equal(send_command(database, "team", "later", COMMAND("3"), MF_COMMAND_RESUME),
                     MF_FATE_ACCEPTED);
    assert_int_equal(send_command(database, "team", "first", COMMAND("4"), MF_COMMAND_RESUME),
                     MF_FATE_ACCEPTED);
    assert_string_equal(ask("SELECT state || ' ' || (ready_at IS NULL) FROM jobs WHERE request_id = 'later'"),
                        "queued true");
    assert_int_equal(ask_number("SELECT ready FROM tenant_load"), 2);
    assert_true(claim_one(database, "worker", &claim));
    assert_string_equal(claim.request_id, "first");
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void fail_for_good(struct mf_database *database, char job_id[MF_UUID_TEXT_BYTES]) {
    const struct mf_finish finish = {
        .outcome = MF_OUTCOME_FAILED, .error_status = MF_ERROR_INVALID_FIELD, .error_message = "for good"};
    struct mf_error error;
    struct mf_claim claim;
    assert_true(claim_one(database, "worker", &claim));
    memcpy(job_id, claim.lease.job_id, MF_UUID_TEXT_BYTES);
    assert_fine(mf_store_finish(database, "worker", &claim.lease, &finish, &at_once, NULL, &error));
    mf_claim_free(&claim);
}

static void into_a_batch(struct mf_ingest_request *request) {
    request->batch_id = "nightly";
    request->priority = 7;
}

static void test_retry_makes_the_next_generation(void **unused) {
    struct mf_database *database = connect_worker();
    struct mf_error error;
    struct mf_job_status job = {0};
    char first[MF_UUID_TEXT_BYTES], second[MF_UUID_TEXT_BYTES], expected[MF_UUID_TEXT_BYTES];
    (void)unused;
    add_job(database, "team", "again", into_a_batch, NULL);
    fail_for_good(database, first);
    /* It must say which generation it means, and mean the newest. */
    assert_int_equal(send_command(database, "team", "again", COMMAND("1"), MF_COMMAND_RETRY),
                     MF_FATE_REJECTED);
    assert_string_equal(
        ask("SELECT code || ': ' || reason FROM ingest_rejects"),
        "invalid_field: expected_generation: a retry names the generation that it tries again");
    assert_int_equal(send_command_of(database, "team", "again", COMMAND("2"), MF_COMMAND_RETRY, 2),
                     MF_FATE_IGNORED);
    assert_int_equal(send_command_of(database, "team", "again", COMMAND("3"), MF_COMMAND_RETRY, 1),
                     MF_FATE_ACCEPTED);
    assert_int_equal(send_command_of(database, "team", "again", COMMAND("4"), MF_COMMAND_RETRY, 1),
                     MF_FATE_IGNORED);
    assert_int_equal(ask_number("SELECT count(*) FROM jobs"), 2);
    assert_string_equal(
        ask("SELECT concat_ws(' ', state, error_code, finished_at IS NOT NULL) FROM jobs WHERE id = '%s'",
            first),
        "failed invalid_field t");
    assert_fine(mf_job_id("team", "again", 2, expected, &error));
    assert_string_equal(
        ask("SELECT concat_ws(' ', id, state, desired, priority, batch_id, attempts, lease_epoch) FROM jobs "
            "WHERE retry_of = '%s' AND generation = 2",
            first),
        ask("SELECT '%s queued run 7 nightly 0 0'", expected));
    assert_int_equal(
        ask_number("SELECT count(DISTINCT (config, request_sha256, source_offset)) FROM job_configs"), 1);
    assert_string_equal(
        ask("SELECT string_agg(type, ' ' ORDER BY sequence) FROM job_events WHERE job_id = '%s'", first),
        "queued running failed command_ignored retried");
    assert_string_equal(ask("SELECT detail ->> 'retry_of' FROM job_events WHERE job_id = '%s'", expected),
                        first);
    assert_string_equal(ask("SELECT concat_ws(' ', jobs, queued, failed) FROM batch_summary"), "1 1 0");
    /* The request's name means the newest from now on, for the same request sent again too. */
    assert_fine(mf_store_job_by_request(database, "team", "again", &job, &error));
    assert_string_equal(job.job_id, expected);
    mf_job_status_free(&job);
    fail_for_good(database, second);
    assert_string_equal(second, expected);
    assert_int_equal(send_command_of(database, "team", "again", COMMAND("5"), MF_COMMAND_RETRY, 2),
                     MF_FATE_ACCEPTED);
    assert_string_equal(ask("SELECT string_agg(generation || state, ' ' ORDER BY generation) FROM jobs"),
                        "1failed 2failed 3queued");
    assert_int_equal(ask_number("SELECT count(*) FROM jobs WHERE NOT audit_chain_whole(id)"), 0);
    mf_database_close(database);
}

static void test_no_retry_beyond_the_deadline(void **unused) {
    struct mf_database *database = connect_worker();
    struct mf_error error;
    struct mf_command_fate fate;
    char job_id[MF_UUID_TEXT_BYTES];
    (void)unused;
    add_job(database, "team", "late", NULL, NULL);
    fail_for_good(database, job_id);
    run_sql("UPDATE jobs SET deadline = now() - interval '1 second'");
    assert_int_equal(send_command_of(database, "team", "late", COMMAND("1"), MF_COMMAND_RETRY, 1),
                     MF_FATE_IGNORED);
    assert_fine(mf_store_command_fate(database, COMMAND("1"), &fate, &error));
    assert_string_equal(fate.outcome, "ignored");
    assert_string_equal(fate.note, "the job's deadline has passed: send a new request");
    assert_string_equal(fate.job_id, job_id);
    assert_string_equal(fate.state, "failed");
    assert_fine(mf_store_command_fate(database, COMMAND("9"), &fate, &error));
    assert_string_equal(fate.outcome, "");
    mf_database_close(database);
}

/* A pause that was taken back before its worker saw it leaves the job running; one that the trainer obeyed
 * first brings it back to the queue at once. */
static void test_resume_of_a_running_job(void **unused) {
    struct mf_database *database = connect_worker();
    struct mf_error error;
    struct mf_claim claim;
    struct mf_beat beat;
    enum mf_job_state state;
    const struct mf_finish paused = {.outcome = MF_OUTCOME_PAUSED};
    (void)unused;
    add_job(database, "team", "busy", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    assert_int_equal(send_command(database, "team", "busy", COMMAND("1"), MF_COMMAND_PAUSE),
                     MF_FATE_ACCEPTED);
    assert_fine(mf_store_heartbeat(database, "worker", &claim.lease, 1, &beat, &error));
    assert_int_equal(beat.desired, MF_DESIRED_PAUSE);
    assert_int_equal(send_command(database, "team", "busy", COMMAND("2"), MF_COMMAND_RESUME),
                     MF_FATE_ACCEPTED);
    assert_fine(mf_store_heartbeat(database, "worker", &claim.lease, 1, &beat, &error));
    assert_int_equal(beat.desired, MF_DESIRED_RUN);
    assert_fine(mf_store_finish(database, "worker", &claim.lease, &paused, &at_once, &state, &error));
    assert_int_equal(state, MF_JOB_QUEUED);
    assert_string_equal(
        ask("SELECT concat_ws(' ', attempts, interruptions, drains, ready_at IS NOT NULL) FROM jobs"),
        "0 0 0 t");
    mf_claim_free(&claim);
    mf_database_close(database);
}

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        ON_NEW_DATABASE(test_commands_before_their_request_act_in_order),
        ON_NEW_DATABASE(test_a_command_whose_request_never_comes_expires),
        ON_NEW_DATABASE(test_resume_keeps_run_at_and_place),
        ON_NEW_DATABASE(test_retry_makes_the_next_generation),
        ON_NEW_DATABASE(test_no_retry_beyond_the_deadline),
        ON_NEW_DATABASE(test_resume_of_a_running_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
