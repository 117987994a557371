/* Fencing, heartbeats, rescue, release, finish with retry and back-off. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ON_NEW_DATABASE(test) cmocka_unit_test_setup_teardown(test, create_migrated, drop_database)

static const struct mf_retry_policy slow = {.base_ms = 60000, .limit_ms = 600000};

static enum mf_job_state end_as(struct mf_database *database, const char *worker,
                                const struct mf_claim *claim, struct mf_finish finish,
                                const struct mf_retry_policy *policy) {
    struct mf_error error;
    enum mf_job_state state = MF_JOB_STATE_COUNT;
    assert_fine(mf_store_finish(database, worker, &claim->lease, &finish, policy, &state, &error));
    return state;
}

static void rescue_all(struct mf_database *database, const char *rescuer, size_t expected) {
    struct mf_error error;
    struct mf_lease_row *rows = NULL;
    size_t count = 0;
    bool rescued = false;
    assert_fine(mf_store_list_leases(database, NULL, &rows, &count, &error));
    assert_int_equal(count, expected);
    for (size_t i = 0; i < count; i++) {
        assert_fine(mf_store_rescue(database, &rows[i], rescuer, &at_once, &rescued, &error));
        assert_true(rescued);
    }
    free(rows);
}

/* Everything a worker writes, with a lease that is not its own any more. */
static void expect_all_refused(struct mf_database *database, const char *worker,
                               const struct mf_lease *lease) {
    struct mf_error error;
    struct mf_beat beat;
    const struct mf_step_metric step = {.step = 9, .loss = 1};
    const struct mf_metrics_batch batch = {.number = 1, .steps = &step, .step_count = 1};
    const struct mf_stored_object object = {.kind = "adapter", .uri = "file:///x", .sha256 = "00", .step = 3};
    struct mf_attempt_details details = mf_attempt_details_none();
    const struct mf_finish succeeded = {.outcome = MF_OUTCOME_SUCCEEDED, .result = "{}"};
    const struct mf_finish failed = {.outcome = MF_OUTCOME_FAILED, .error_status = MF_ERROR_BAD_WEIGHTS};
    details.seed = 5;
    assert_fine(mf_store_heartbeat(database, worker, lease, 1, &beat, &error));
    assert_false(beat.held);
    assert_status(mf_store_write_metrics(database, worker, lease, &batch, NULL, &error), MF_ERROR_LEASE_LOST);
    assert_status(mf_store_update_attempt(database, worker, lease, &details, &error), MF_ERROR_LEASE_LOST);
    assert_status(mf_store_record_artifact(database, worker, lease, &object, &error), MF_ERROR_LEASE_LOST);
    assert_status(mf_store_record_checkpoint(database, worker, lease, &object, &error), MF_ERROR_LEASE_LOST);
    assert_status(mf_store_finish(database, worker, lease, &succeeded, &at_once, NULL, &error),
                  MF_ERROR_LEASE_LOST);
    assert_status(mf_store_finish(database, worker, lease, &failed, &at_once, NULL, &error),
                  MF_ERROR_LEASE_LOST);
    assert_status(mf_store_release(database, worker, lease, MF_RELEASE_DRAIN, &at_once, &error),
                  MF_ERROR_LEASE_LOST);
}

/* What a stale writer could have changed. */
static void remember(char *text, size_t bytes) {
    snprintf(text, bytes, "%s",
             ask("SELECT (SELECT string_agg(job::text, ';') FROM jobs AS job) || "
                 "(SELECT string_agg(lease::text, ';') FROM job_leases AS lease) || "
                 "(SELECT string_agg(attempt::text, ';' ORDER BY epoch) FROM job_attempts AS attempt) || "
                 "(SELECT count(*) FROM job_events) || '/' || (SELECT count(*) FROM step_metrics) || '/' || "
                 "(SELECT count(*) FROM artifacts) || '/' || (SELECT count(*) FROM checkpoints)"));
}

static void test_a_stale_epoch_writes_nothing(void **unused) {
    struct mf_claim old, current;
    char before[4000], after[4000];
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "fought over", NULL, NULL);
    assert_true(claim_one(database, "paused-worker", &old));
    rescue_all(database, "rescuer", 1);
    assert_true(claim_one(database, "new-worker", &current));
    assert_int_equal(current.lease.epoch, old.lease.epoch + 1);
    remember(before, sizeof before);
    expect_all_refused(database, "paused-worker", &old.lease);
    /* Neither another worker with the right epoch, nor the right worker of another incarnation. */
    expect_all_refused(database, "paused-worker", &current.lease);
    struct mf_lease restored = current.lease;
    restored.incarnation[0] = restored.incarnation[0] == 'a' ? 'b' : 'a';
    expect_all_refused(database, "new-worker", &restored);
    remember(after, sizeof after);
    assert_string_equal(before, after);
    const struct mf_finish finish = {.outcome = MF_OUTCOME_SUCCEEDED, .result = "{\"steps\": 3}"};
    assert_int_equal(end_as(database, "new-worker", &current, finish, &at_once), MF_JOB_SUCCEEDED);
    mf_claim_free(&old);
    mf_claim_free(&current);
    mf_database_close(database);
}

/* The same worker took the job again: only the epoch tells its old attempt from its new one. */
static void test_a_stale_epoch_of_the_same_worker_writes_nothing(void **unused) {
    struct mf_claim old, current;
    char before[4000], after[4000];
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "taken again", NULL, NULL);
    assert_true(claim_one(database, "worker", &old));
    rescue_all(database, "rescuer", 1);
    assert_true(claim_one(database, "worker", &current));
    remember(before, sizeof before);
    expect_all_refused(database, "worker", &old.lease);
    remember(after, sizeof after);
    assert_string_equal(before, after);
    mf_claim_free(&old);
    mf_claim_free(&current);
    mf_database_close(database);
}

static void test_heartbeat_is_batched(void **unused) {
    struct mf_error error;
    struct mf_claim claims[3];
    struct mf_lease leases[4];
    struct mf_beat beats[4];
    char name[16];
    struct mf_database *database = connect_worker();
    (void)unused;
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "job-%d", i);
        add_job(database, "team", name, NULL, NULL);
        assert_true(claim_one(database, "worker", &claims[i]));
        leases[i] = claims[i].lease;
    }
    leases[3] = leases[0];
    leases[3].job_id[0] = leases[3].job_id[0] == '0' ? '1' : '0';
    for (int i = 0; i < 2; i++)
        assert_fine(mf_store_heartbeat(database, "worker", leases, 4, beats, &error));
    for (int i = 0; i < 4; i++)
        assert_int_equal(beats[i].held, i < 3);
    assert_int_equal(ask_number("SELECT count(*) FROM job_leases WHERE beat = 2"), 3);
    for (int i = 0; i < 3; i++)
        mf_claim_free(&claims[i]);
    mf_database_close(database);
}

static void test_rescue_only_of_what_stands_still(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_beat beat;
    struct mf_lease_row *rows;
    size_t count;
    bool rescued = true;
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "alive", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    assert_fine(mf_store_list_leases(database, NULL, &rows, &count, &error));
    assert_int_equal(count, 1);
    assert_string_equal(rows[0].worker_id, "worker");
    assert_fine(mf_store_heartbeat(database, "worker", &claim.lease, 1, &beat, &error));
    assert_fine(mf_store_rescue(database, &rows[0], "rescuer", &slow, &rescued, &error));
    assert_false(rescued); /* it beat */
    assert_string_equal(ask("SELECT state FROM jobs"), "running");
    rows[0].beat++;
    assert_fine(mf_store_rescue(database, &rows[0], "rescuer", &slow, &rescued, &error));
    assert_true(rescued);
    assert_string_equal(
        ask("SELECT state || ' ' || attempts || ' ' || interruptions || ' ' || "
            "(ready_at IS NULL) || ' ' || (not_before > now() + interval '40 seconds') FROM jobs"),
        "queued 0 1 true true");
    assert_string_equal(ask("SELECT outcome FROM job_attempts"), "lease_lost");
    assert_string_equal(ask("SELECT ready || ' ' || running FROM tenant_load"), "0 0");
    assert_string_equal(ask("SELECT type || ' ' || actor || ' ' || (detail ->> 'lost_by') FROM job_events "
                            "ORDER BY sequence DESC LIMIT 1"),
                        "lease_lost rescuer worker");
    assert_fine(mf_store_rescue(database, &rows[0], "rescuer", &slow, &rescued, &error));
    assert_false(rescued); /* done already */
    free(rows);
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_interrupted_again_and_again_fails_unless_there_is_progress(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "unlucky", NULL, NULL);
    for (int i = 0; i < MF_INTERRUPTION_LIMIT + 2; i++) {
        assert_true(claim_one(database, "worker", &claim));
        if (i == 2) {
            const struct mf_stored_object checkpoint = {
                .uri = "file:///c2", .size_bytes = 5, .sha256 = "0a", .step = 40};
            assert_fine(mf_store_record_checkpoint(database, "worker", &claim.lease, &checkpoint, &error));
            assert_int_equal(ask_number("SELECT interruptions FROM jobs"), 0);
        }
        assert_int_equal(claim.checkpoint_step, i > 2 ? 40 : 0);
        mf_claim_free(&claim);
        assert_string_equal(ask("SELECT state FROM jobs"), "running");
        rescue_all(database, "rescuer", 1);
    }
    assert_string_equal(ask("SELECT state || ' ' || error_code || ' ' || attempts FROM jobs"),
                        "failed interrupted_without_progress 0");
    assert_false(claim_one(database, "worker", &claim));
    mf_database_close(database);
}

static void test_drain_charges_nothing(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_lease lease = {.epoch = 0};
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "drained", NULL, NULL);
    for (int i = 1; i < MF_DRAIN_LIMIT; i++) {
        assert_true(claim_one(database, "worker", &claim));
        assert_fine(mf_store_release(database, "worker", &claim.lease, MF_RELEASE_DRAIN, &slow, &error));
        lease = claim.lease;
        mf_claim_free(&claim);
    }
    assert_string_equal(
        ask("SELECT state || ' ' || attempts || ' ' || interruptions || ' ' || drains FROM jobs"),
        "queued 0 0 19");
    /* Again, for its answer may have been lost: nothing is counted twice, and another reason is not this one.
     */
    assert_fine(mf_store_release(database, "worker", &lease, MF_RELEASE_DRAIN, &slow, &error));
    assert_status(mf_store_release(database, "worker", &lease, MF_RELEASE_RESTART, &slow, &error),
                  MF_ERROR_LEASE_LOST);
    assert_status(mf_store_release(database, "other", &lease, MF_RELEASE_DRAIN, &slow, &error),
                  MF_ERROR_LEASE_LOST);
    assert_string_equal(ask("SELECT drains || ' ' || interruptions FROM jobs"), "19 0");
    assert_string_equal(ask("SELECT DISTINCT outcome FROM job_attempts"), "drain");
    assert_true(claim_one(database, "worker", &claim));
    assert_fine(mf_store_release(database, "worker", &claim.lease, MF_RELEASE_DRAIN, &slow, &error));
    assert_string_equal(ask("SELECT error_code FROM jobs"), "interrupted_without_progress");
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_release_does_what_is_desired(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    static const char *const desired[] = {"cancel", "pause"}, *const state[] = {"cancelled", "paused"};
    char name[16];
    (void)unused;
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "job-%d", i);
        add_job(database, "team", name, NULL, NULL);
        assert_true(claim_one(database, "worker", &claim));
        run_sql("UPDATE jobs SET desired = '%s' WHERE request_id = '%s'", desired[i], name);
        assert_fine(mf_store_release(database, "worker", &claim.lease, MF_RELEASE_RESTART, &slow, &error));
        assert_string_equal(ask("SELECT state FROM jobs WHERE request_id = '%s'", name), state[i]);
        mf_claim_free(&claim);
    }
    assert_string_equal(ask("SELECT ready || ' ' || running FROM tenant_load"), "0 0");
    mf_database_close(database);
}

static void test_retry_with_back_off_until_attempts_are_used_up(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    const struct mf_finish crash = {
        .outcome = MF_OUTCOME_FAILED, .error_status = MF_ERROR_TRAINER_CRASHED, .error_message = "signal 11"};
    (void)unused;
    add_job(database, "team", "crashes", NULL, NULL); /* three attempts */
    for (int attempt = 1; attempt <= 3; attempt++) {
        assert_true(claim_one(database, "worker", &claim));
        assert_int_equal(claim.attempt, attempt);
        enum mf_job_state state = end_as(database, "worker", &claim, crash, &slow);
        mf_claim_free(&claim);
        assert_int_equal(state, attempt < 3 ? MF_JOB_QUEUED : MF_JOB_FAILED);
        if (attempt == 3)
            break;
        /* 60 s ± 20 %, then 120 s ± 20 %; not before that. */
        assert_string_equal(
            ask("SELECT (ready_at IS NULL) || ' ' || (extract(epoch FROM not_before - now()) BETWEEN "
                "%d AND %d) FROM jobs",
                attempt * 48 - 2, attempt * 72),
            "true true");
        assert_false(claim_one(database, "worker", &claim));
        run_sql("UPDATE jobs SET not_before = now()");
        assert_fine(mf_store_reap(database, &(struct mf_reap_options){0}, NULL, &error));
    }
    assert_string_equal(ask("SELECT attempts || ' ' || error_code || ' ' || error_message FROM jobs"),
                        "3 trainer_crashed TrainingError: signal 11");
    assert_string_equal(ask("SELECT string_agg(type, ',' ORDER BY sequence) FROM job_events"),
                        "queued,running,attempt_failed,running,attempt_failed,running,failed");
    assert_string_equal(ask("SELECT detail ->> 'code' FROM job_events WHERE type = 'failed'"),
                        "trainer_crashed");
    mf_database_close(database);
}

static void test_what_is_not_retriable_fails_at_once(void **unused) {
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    const struct mf_finish finish = {
        .outcome = MF_OUTCOME_FAILED, .error_status = MF_ERROR_BAD_WEIGHTS, .error_message = "lies"};
    (void)unused;
    add_job(database, "team", "hopeless", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    assert_int_equal(end_as(database, "worker", &claim, finish, &slow), MF_JOB_FAILED);
    assert_string_equal(ask("SELECT error_message FROM job_overview"), "ModelAccessError: lies");
    assert_string_equal(ask("SELECT error_code || ' ' || jobs FROM failure_reasons"), "bad_weights 1");
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_finish_is_repeatable_and_final(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    const struct mf_finish done = {.outcome = MF_OUTCOME_SUCCEEDED,
                                   .result = "{\"train_loss\": 1.5, \"trained_tokens\": 1234}"};
    const struct mf_finish failed = {.outcome = MF_OUTCOME_FAILED, .error_status = MF_ERROR_BAD_WEIGHTS};
    (void)unused;
    add_job(database, "team", "done", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    run_sql("UPDATE jobs SET desired = 'cancel'"); /* done beats a late cancel */
    assert_int_equal(end_as(database, "worker", &claim, done, &at_once), MF_JOB_SUCCEEDED);
    assert_int_equal(end_as(database, "worker", &claim, done, &at_once), MF_JOB_SUCCEEDED);
    assert_status(mf_store_finish(database, "worker", &claim.lease, &failed, &at_once, NULL, &error),
                  MF_ERROR_LEASE_LOST);
    assert_int_equal(ask_number("SELECT count(*) FROM job_events WHERE type = 'succeeded'"), 1);
    assert_string_equal(ask("SELECT trained_tokens FROM job_overview"), "1234");
    assert_string_equal(ask("SELECT ready || ' ' || running FROM tenant_load"), "0 0");
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_cancel_and_pause_as_the_trainer_obeys(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    const struct mf_finish cancelled = {.outcome = MF_OUTCOME_CANCELLED},
                           paused = {.outcome = MF_OUTCOME_PAUSED};
    (void)unused;
    add_job(database, "team", "one", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    /* Nobody asked for it. */
    assert_status(mf_store_finish(database, "worker", &claim.lease, &cancelled, &at_once, NULL, &error),
                  MF_ERROR_INTERNAL);
    assert_string_equal(ask("SELECT state FROM jobs"), "running");
    run_sql("UPDATE jobs SET desired = 'pause'");
    assert_int_equal(end_as(database, "worker", &claim, paused, &at_once), MF_JOB_PAUSED);
    mf_claim_free(&claim);
    add_job(database, "team", "two", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    run_sql("UPDATE jobs SET desired = 'cancel' WHERE request_id = 'two'");
    assert_int_equal(end_as(database, "worker", &claim, cancelled, &at_once), MF_JOB_CANCELLED);
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_a_tampered_chain_shows(void **unused) {
    char job_id[MF_UUID_TEXT_BYTES];
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "audited", NULL, job_id);
    assert_true(claim_one(database, "worker", &claim));
    end_as(database, "worker", &claim, (struct mf_finish){.outcome = MF_OUTCOME_SUCCEEDED, .result = "{}"},
           &at_once);
    mf_claim_free(&claim);
    assert_string_equal(ask("SELECT audit_chain_whole('%s')", job_id), "t");
    run_sql("BEGIN; UPDATE job_events SET actor = 'somebody else' WHERE sequence = 2");
    assert_string_equal(ask("SELECT audit_chain_whole('%s')", job_id), "f");
    run_sql("ROLLBACK; BEGIN; DELETE FROM job_events WHERE sequence = 2");
    assert_string_equal(ask("SELECT audit_chain_whole('%s')", job_id), "f");
    run_sql("ROLLBACK");
    mf_database_close(database);
}

/* Ends of many attempts in one call: each by itself, and all or nothing when PostgreSQL refuses one. */
static void test_many_ends_in_one_call(void **unused) {
    enum { COUNT = 4 };
    struct mf_claim claims[COUNT];
    struct mf_ending endings[COUNT];
    struct mf_error error;
    struct mf_database *database = connect_worker();
    (void)unused;
    for (int i = 0; i < COUNT; i++) {
        char name[2] = {(char)('a' + i), 0};
        add_job(database, "team", name, NULL, NULL);
        assert_true(claim_one(database, "worker", &claims[i]));
        endings[i] =
            (struct mf_ending){.lease = &claims[i].lease,
                               .finish = {.outcome = MF_OUTCOME_SUCCEEDED, .result = "{\"steps\": 1}"}};
    }
    endings[1].finish = (struct mf_finish){
        .outcome = MF_OUTCOME_FAILED, .error_status = MF_ERROR_TRAINER_CRASHED, .error_message = "signal 11"};
    assert_fine(mf_store_release(database, "worker", &claims[2].lease, MF_RELEASE_DRAIN, &at_once, &error));
    endings[3].finish.result = "{\"text\": \"\\u0000\"}"; /* no jsonb holds that */
    assert_status(mf_store_finish_all(database, "worker", endings, COUNT, &at_once, &error),
                  MF_ERROR_UNSTORABLE);
    assert_int_equal(ask_number("SELECT count(*) FROM job_leases"), 3);
    endings[3].finish.result = "{}";
    for (int again = 0; again < 2; again++) { /* repeatable */
        assert_fine(mf_store_finish_all(database, "worker", endings, COUNT, &at_once, &error));
        assert_int_equal(endings[0].status, MF_OK);
        assert_int_equal(endings[0].state, MF_JOB_SUCCEEDED);
        assert_int_equal(endings[1].status, MF_OK);
        assert_int_equal(endings[1].state, MF_JOB_QUEUED);
        assert_int_equal(endings[2].status, MF_ERROR_LEASE_LOST);
        assert_int_equal(endings[3].status, MF_OK);
    }
    assert_string_equal(ask("SELECT string_agg(state, ' ' ORDER BY request_id) FROM jobs"),
                        "succeeded queued queued succeeded");
    assert_string_equal(ask("SELECT ready || ' ' || running FROM tenant_load"), "2 0");
    assert_int_equal(ask_number("SELECT count(*) FROM job_leases"), 0);
    assert_int_equal(ask_number("SELECT count(*) FROM jobs WHERE NOT audit_chain_whole(id)"), 0);
    for (int i = 0; i < COUNT; i++)
        mf_claim_free(&claims[i]);
    mf_database_close(database);
}

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        ON_NEW_DATABASE(test_a_stale_epoch_writes_nothing),
        ON_NEW_DATABASE(test_a_stale_epoch_of_the_same_worker_writes_nothing),
        ON_NEW_DATABASE(test_heartbeat_is_batched),
        ON_NEW_DATABASE(test_rescue_only_of_what_stands_still),
        ON_NEW_DATABASE(test_interrupted_again_and_again_fails_unless_there_is_progress),
        ON_NEW_DATABASE(test_drain_charges_nothing),
        ON_NEW_DATABASE(test_release_does_what_is_desired),
        ON_NEW_DATABASE(test_retry_with_back_off_until_attempts_are_used_up),
        ON_NEW_DATABASE(test_what_is_not_retriable_fails_at_once),
        ON_NEW_DATABASE(test_finish_is_repeatable_and_final),
        ON_NEW_DATABASE(test_cancel_and_pause_as_the_trainer_obeys),
        ON_NEW_DATABASE(test_a_tampered_chain_shows),
        ON_NEW_DATABASE(test_many_ends_in_one_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
