/* Metrics once, the loss curve over attempts, logs capped, details, artifacts and checkpoints. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ON_NEW_DATABASE(test) cmocka_unit_test_setup_teardown(test, create_migrated, drop_database)
#define SHA                   "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* Steps first..last in one batch. */
static void write_steps(struct mf_database *database, const struct mf_claim *claim, int64_t number, int first,
                        int last, bool expect_repeat) {
    struct mf_error error;
    struct mf_step_metric steps[64];
    bool repeat = !expect_repeat;
    for (int step = first; step <= last; step++)
        steps[step - first] = (struct mf_step_metric){.step = step,
                                                      .epoch = step / 10.0,
                                                      .loss = 5.0 / step + (double)claim->lease.epoch * 100,
                                                      .learning_rate = 2e-4,
                                                      .gradient_norm = NAN,
                                                      .tokens = 100,
                                                      .tokens_per_second = 1000,
                                                      .elapsed_seconds = step * 0.5};
    const struct mf_metrics_batch batch = {.number = number,
                                           .steps = steps,
                                           .step_count = (size_t)(last - first + 1),
                                           .phase = "train",
                                           .fraction = last / 40.0};
    assert_fine(mf_store_write_metrics(database, "worker", &claim->lease, &batch, &repeat, &error));
    assert_int_equal(repeat, expect_repeat);
}

static void test_a_batch_is_written_once(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "job", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    write_steps(database, &claim, 1, 1, 10, false);
    write_steps(database, &claim, 2, 11, 20, false);
    write_steps(database, &claim, 2, 11, 20, true);
    write_steps(database, &claim, 1, 1, 10, true);
    const struct mf_metrics_batch gap = {.number = 4};
    assert_status(mf_store_write_metrics(database, "worker", &claim.lease, &gap, NULL, &error),
                  MF_ERROR_INTERNAL);
    assert_int_equal(ask_number("SELECT count(*) FROM step_metrics"), 20);
    assert_int_equal(ask_number("SELECT metrics_batch FROM job_leases"), 2);
    assert_string_equal(
        ask("SELECT phase || ' ' || phase_fraction || ' ' || step || ' ' || trained_tokens || ' ' || "
            "training_seconds FROM job_attempts"),
        "train 0.5 20 2000 10");
    assert_string_equal(ask("SELECT gradient_norm FROM step_metrics LIMIT 1"), "NaN");
    mf_claim_free(&claim);
    mf_database_close(database);
}

/* The process died between the rows and COMMIT: nothing of the batch is there, and the same number goes
 * again. */
static void test_crash_between_rows_and_commit(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    bool repeat = true;
    struct mf_database *database = connect_worker();
    const struct mf_step_metric step = {.step = 1, .loss = 1};
    const struct mf_metrics_batch batch = {.number = 1, .steps = &step, .step_count = 1};
    (void)unused;
    add_job(database, "team", "job", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    kill_at_commit("job_leases", "UPDATE", "true");
    assert_fine(mf_database_execute(database, "SET application_name = 'victim'", &error));
    assert_status(mf_store_write_metrics(database, "worker", &claim.lease, &batch, &repeat, &error),
                  MF_ERROR_COMMIT_UNKNOWN);
    assert_int_equal(ask_number("SELECT count(*) FROM step_metrics"), 0);
    assert_fine(mf_database_reconnect(database, &error));
    assert_fine(mf_store_write_metrics(database, "worker", &claim.lease, &batch, &repeat, &error));
    assert_false(repeat);
    assert_int_equal(ask_number("SELECT count(*) FROM step_metrics"), 1);
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void resume_from(struct mf_database *database, const struct mf_claim *claim, int64_t step) {
    struct mf_error error;
    struct mf_attempt_details details = mf_attempt_details_none();
    details.resumed_from_step = step;
    assert_fine(mf_store_update_attempt(database, "worker", &claim->lease, &details, &error));
}

static void test_loss_curve_leaves_out_what_was_trained_again(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_step_metric *steps = NULL;
    size_t count = 0;
    char job_id[MF_UUID_TEXT_BYTES];
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "job", NULL, job_id);
    assert_true(claim_one(database, "worker", &claim));
    resume_from(database, &claim, 0);
    write_steps(database, &claim, 1, 1, 30, false);
    assert_fine(mf_store_release(database, "worker", &claim.lease, MF_RELEASE_DRAIN, &at_once, &error));
    mf_claim_free(&claim);
    assert_true(claim_one(database, "worker", &claim));
    assert_int_equal(ask_number("SELECT count(*) FROM loss_curve"), 30); /* it has not begun to train */
    resume_from(database, &claim, 20);
    assert_int_equal(ask_number("SELECT count(*) FROM loss_curve WHERE job_id = '%s'", job_id), 20);
    write_steps(database, &claim, 1, 21, 40, false);
    assert_fine(mf_store_loss_curve(database, job_id, 0, &steps, &count, &error));
    assert_int_equal(count, 40);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(steps[i].step, i + 1);
        assert_true(steps[i].loss > (i < 20 ? 100 : 200) && steps[i].loss < (i < 20 ? 106 : 206));
    }
    free(steps);
    assert_fine(mf_store_loss_curve(database, job_id, 38, &steps, &count, &error));
    assert_int_equal(count, 2);
    free(steps);
    assert_int_equal(ask_number("SELECT count(*) FROM loss_curve('%s')", job_id), 40);
    assert_int_equal(ask_number("SELECT max(step) FROM loss_curve('%s') WHERE attempt = 1", job_id), 20);
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_evals_and_logs(void **unused) {
    enum { LINES = 4000 };
    struct mf_error error;
    struct mf_claim claim;
    struct mf_eval_metric *evals = NULL;
    size_t count = 0;
    struct mf_database *database = connect_worker();
    static struct mf_log_line lines[LINES];
    const struct mf_eval_metric evaluations[] = {{10, 2.5, 12.18}, {20, 2.25, 9.48}};
    (void)unused;
    for (int i = 0; i < LINES; i++)
        lines[i] = (struct mf_log_line){.time = 1700000000000,
                                        .level = "info",
                                        .message = i ? "a \"line\", {with} \\ all" : "bad \xc3( byte"};
    add_job(database, "team", "job", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    for (int number = 1; number <= 3; number++) {
        const struct mf_metrics_batch batch = {.number = number,
                                               .evals = evaluations,
                                               .eval_count = number == 1 ? 2 : 0,
                                               .logs = lines,
                                               .log_count = LINES};
        assert_fine(mf_store_write_metrics(database, "worker", &claim.lease, &batch, NULL, &error));
    }
    assert_fine(mf_store_eval_curve(database, claim.lease.job_id, &evals, &count, &error));
    assert_int_equal(count, 2);
    assert_true(evals[1].step == 20 && evals[1].loss == 2.25 && evals[1].perplexity == 9.48);
    free(evals);
    assert_int_equal(ask_number("SELECT count(*) FROM job_logs"), MF_LOG_ROWS_PER_ATTEMPT);
    assert_int_equal(ask_number("SELECT log_rows FROM run_history"), 3 * LINES);
    assert_string_equal(ask("SELECT message FROM job_log WHERE line = 1"), "bad ?( byte");
    assert_string_equal(ask("SELECT message FROM job_log WHERE line = 2"), "a \"line\", {with} \\ all");
    struct mf_text_table table;
    assert_fine(mf_store_logs(database, claim.lease.job_id, 3, &table, &error));
    assert_int_equal(table.rows, 3);
    assert_string_equal(table.cell[1], "9998");
    mf_text_table_free(&table);
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_attempt_details_are_kept(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    struct mf_attempt_details details = mf_attempt_details_none();
    (void)unused;
    add_job(database, "team", "job", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    details.device = "cpu";
    details.versions = "{\"trainer\": \"0.1.0\"}";
    details.dataset_sha256 = SHA;
    details.seed = 42;
    assert_fine(mf_store_update_attempt(database, "worker", &claim.lease, &details, &error));
    details = mf_attempt_details_none();
    details.total_steps = 40;
    details.numeric_plan_sha256 = SHA;
    details.base_sha256 = SHA;
    details.base_revision = "main";
    details.gpu_uuids = "[\"GPU-1\"]";
    details.managed_bytes = 1 << 20;
    details.train_rows = 80;
    details.eval_rows = 20;
    details.train_tokens = 4000;
    details.truncated_rows = 1;
    details.dropped_rows = 2;
    details.resumed_from_step = 0;
    details.exact = 0;
    assert_string_equal(ask("SELECT coalesce(exact::text, 'unknown') FROM run_history"), "unknown");
    assert_fine(mf_store_update_attempt(database, "worker", &claim.lease, &details, &error));
    assert_string_equal(ask("SELECT exact FROM run_history"), "f");
    assert_string_equal(
        ask("SELECT concat_ws(' ', device, versions ->> 'trainer', dataset_sha256, seed, total_steps, "
            "base_revision, gpu_uuids ->> 0, managed_bytes, train_rows, eval_rows, train_tokens, "
            "truncated_rows, dropped_rows, resumed_from_step) FROM run_history"),
        "cpu 0.1.0 " SHA " 42 40 main GPU-1 1048576 80 20 4000 1 2 0");
    assert_string_equal(ask("SELECT numeric_plan_sha256 || base_sha256 FROM run_history"), SHA SHA);
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_artifacts_and_checkpoints(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    struct mf_stored_object adapter = {
        .kind = "adapter", .uri = "file:///runs/a", .size_bytes = 100, .sha256 = SHA};
    struct mf_stored_object checkpoint = {.uri = "file:///c/10", .size_bytes = 7, .sha256 = SHA, .step = 10};
    (void)unused;
    add_job(database, "team", "job", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    for (int i = 0; i < 2; i++) {
        assert_fine(mf_store_record_artifact(database, "worker", &claim.lease, &adapter, &error));
        assert_fine(mf_store_record_checkpoint(database, "worker", &claim.lease, &checkpoint, &error));
    }
    assert_int_equal(ask_number("SELECT count(*) FROM job_events WHERE type IN ('artifact', 'checkpoint')"),
                     2);
    adapter.size_bytes = 101;
    assert_status(mf_store_record_artifact(database, "worker", &claim.lease, &adapter, &error),
                  MF_ERROR_INTERNAL);
    checkpoint.uri = "file:///elsewhere";
    assert_status(mf_store_record_checkpoint(database, "worker", &claim.lease, &checkpoint, &error),
                  MF_ERROR_INTERNAL);
    checkpoint.step = 20;
    checkpoint.uri = "file:///c/20";
    assert_fine(mf_store_record_checkpoint(database, "worker", &claim.lease, &checkpoint, &error));
    assert_fine(mf_store_release(database, "worker", &claim.lease, MF_RELEASE_DRAIN, &at_once, &error));
    mf_claim_free(&claim);
    assert_true(claim_one(database, "worker", &claim));
    assert_string_equal(claim.checkpoint_uri, "file:///c/20");
    assert_int_equal(claim.checkpoint_step, 20);
    struct mf_text_table table;
    assert_fine(mf_store_artifacts(database, claim.lease.job_id, &table, &error));
    assert_int_equal(table.rows, 1);
    assert_string_equal(table.cell[0], "adapter");
    assert_string_equal(table.cell[3], SHA);
    mf_text_table_free(&table);
    mf_claim_free(&claim);
    mf_database_close(database);
}

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        ON_NEW_DATABASE(test_a_batch_is_written_once),
        ON_NEW_DATABASE(test_crash_between_rows_and_commit),
        ON_NEW_DATABASE(test_loss_curve_leaves_out_what_was_trained_again),
        ON_NEW_DATABASE(test_evals_and_logs),
        ON_NEW_DATABASE(test_attempt_details_are_kept),
        ON_NEW_DATABASE(test_artifacts_and_checkpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
