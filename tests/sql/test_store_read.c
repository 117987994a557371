/* What people read: status, history, events, the views' sums; all with a reader's rights. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ON_NEW_DATABASE(test) cmocka_unit_test_setup_teardown(test, create_migrated, drop_database)

static void in_batch(struct mf_ingest_request *request) {
    request->batch_id = "nightly";
}

/* One job done with metrics, one running half way, one failed, one waiting. */
static void fill(void) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface")};
    struct mf_error error;
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    const struct mf_worker_row worker = {.worker_id = "worker-1",
                                         .alive_s = 60,
                                         .host = "box",
                                         .boot_id = "b",
                                         .version = "0.1.0",
                                         .providers = providers,
                                         .provider_count = 1,
                                         .slots = 2,
                                         .details = "{\"memory_gib\": 8}"};
    struct mf_attempt_details details = mf_attempt_details_none();
    const struct mf_step_metric step = {
        .step = 10, .loss = 2, .tokens = 500, .tokens_per_second = 50, .elapsed_seconds = 10};
    const struct mf_metrics_batch batch = {
        .number = 1, .steps = &step, .step_count = 1, .phase = "train", .fraction = 0.25};
    const struct mf_finish done = {.outcome = MF_OUTCOME_SUCCEEDED, .result = "{\"eval_loss\": 1.5}"};
    const struct mf_finish failed = {.outcome = MF_OUTCOME_FAILED,
                                     .error_status = MF_ERROR_DATASET_NOT_FOUND,
                                     .error_message = "no such file"};
    assert_fine(mf_store_register_worker(database, &worker, &error));
    add_job(database, "team", "done", in_batch, NULL);
    assert_true(claim_one(database, "worker-1", &claim));
    assert_fine(mf_store_finish(database, "worker-1", &claim.lease, &done, &at_once, NULL, &error));
    mf_claim_free(&claim);
    add_job(database, "team", "failed", in_batch, NULL);
    assert_true(claim_one(database, "worker-1", &claim));
    assert_fine(mf_store_finish(database, "worker-1", &claim.lease, &failed, &at_once, NULL, &error));
    mf_claim_free(&claim);
    add_job(database, "team", "half way", in_batch, NULL);
    assert_true(claim_one(database, "worker-1", &claim));
    details.total_steps = 40;
    details.resumed_from_step = 0;
    details.device = "cpu";
    assert_fine(mf_store_update_attempt(database, "worker-1", &claim.lease, &details, &error));
    assert_fine(mf_store_write_metrics(database, "worker-1", &claim.lease, &batch, NULL, &error));
    mf_claim_free(&claim);
    add_job(database, "other", "waits", NULL, NULL);
    mf_database_close(database);
}

static void test_job_status(void **unused) {
    struct mf_error error;
    struct mf_job_status status;
    (void)unused;
    fill();
    struct mf_database *reader = connect_as("modelforge_reader");
    assert_fine(mf_store_job_by_request(reader, "team", "half way", &status, &error));
    assert_string_equal(status.state, "running");
    assert_string_equal(status.desired, "run");
    assert_string_equal(status.provider, "huggingface");
    assert_string_equal(status.model_name, "tiny");
    assert_string_equal(status.task, "text-generation");
    assert_string_equal(status.batch_id, "nightly");
    assert_string_equal(status.worker_id, "worker-1");
    assert_string_equal(status.phase, "train");
    assert_true(status.fraction == 0.25 && status.loss == 2 && status.tokens_per_second == 50);
    assert_int_equal(status.step, 10);
    assert_int_equal(status.total_steps, 40);
    assert_int_equal(status.trained_tokens, 500);
    /* 10 s for 10 steps: 30 s for the other 30, from when that was reported. */
    int64_t left = status.estimated_finish - status.started_at;
    assert_true(left > 29000 && left < 60000);
    assert_int_equal(status.finished_at, MF_TIME_NONE);
    assert_null(status.result);
    char job_id[MF_UUID_TEXT_BYTES];
    memcpy(job_id, status.job_id, sizeof job_id);
    mf_job_status_free(&status);
    assert_fine(mf_store_job_by_id(reader, job_id, &status, &error));
    assert_string_equal(status.request_id, "half way");
    mf_job_status_free(&status);

    assert_fine(mf_store_job_by_request(reader, "team", "done", &status, &error));
    assert_string_equal(status.result, "{\"eval_loss\": 1.5}");
    assert_true(status.finished_at >= status.started_at && status.started_at >= status.created_at);
    assert_true(isnan(status.loss));
    assert_int_equal(status.step, MF_COUNT_NONE);
    mf_job_status_free(&status);
    assert_fine(mf_store_job_by_request(reader, "team", "failed", &status, &error));
    assert_string_equal(status.error_code, "dataset_not_found");
    assert_string_equal(status.error_message, "DatasetError: no such file");
    assert_int_equal(status.attempts, 1);
    mf_job_status_free(&status);
    assert_status(mf_store_job_by_request(reader, "other", "done", &status, &error), MF_ERROR_NOT_FOUND);
    assert_status(mf_store_job_by_id(reader, "not-a-uuid", &status, &error), MF_ERROR_NOT_FOUND);
    mf_database_close(reader);
}

static void test_history_and_events(void **unused) {
    struct mf_error error;
    struct mf_text_table table;
    char job_id[MF_UUID_TEXT_BYTES];
    (void)unused;
    fill();
    struct mf_database *reader = connect_as("modelforge_reader");
    assert_fine(mf_store_history(reader, "team", 2, &table, &error));
    assert_int_equal(table.rows, 2);
    assert_string_equal(table.column[1], "tenant");
    assert_string_equal(table.cell[2], "half way"); /* the newest first */
    assert_string_equal(table.cell[table.columns + 2], "failed");
    mf_text_table_free(&table);
    assert_fine(mf_store_history(reader, "nobody", 10, &table, &error));
    assert_int_equal(table.rows, 0);
    mf_text_table_free(&table);
    snprintf(job_id, sizeof job_id, "%s", ask("SELECT id FROM jobs WHERE request_id = 'failed'"));
    assert_fine(mf_store_events(reader, job_id, &table, &error));
    assert_int_equal(table.rows, 3);
    assert_string_equal(table.cell[2 * table.columns + 2], "failed");
    mf_text_table_free(&table);
    mf_database_close(reader);
}

static void test_summaries(void **unused) {
    struct mf_error error;
    int64_t counts[MF_JOB_STATE_COUNT];
    (void)unused;
    fill();
    struct mf_database *worker = connect_worker();
    assert_string_equal(
        ask("SELECT concat_ws(' ', jobs, running, succeeded, failed, queued, finished_at IS NULL) "
            "FROM batch_summary WHERE batch_id = 'nightly'"),
        "3 1 1 1 0 t");
    assert_string_equal(
        ask("SELECT concat_ws(' ', ready, running, delayed, paused, oldest_ready_at IS NOT NULL) "
            "FROM queue_depth WHERE tenant = 'other'"),
        "1 0 0 0 t");
    assert_string_equal(ask("SELECT concat_ws(' ', jobs, succeeded, failed, cancelled, trained_tokens, "
                            "device_seconds > 0) FROM tenant_usage WHERE tenant = 'team'"),
                        "3 1 1 0 500 t");
    assert_string_equal(ask("SELECT concat_ws(' ', providers[1], running, details ->> 'memory_gib', "
                            "stopped_at IS NULL) FROM worker_status"),
                        "huggingface 1 8 t");
    assert_string_equal(ask("SELECT last_message FROM failure_reasons"), "DatasetError: no such file");
    assert_string_equal(ask("SELECT concat_ws(' ', source_topic, source_partition, submitted_by, schema_id) "
                            "FROM audit_trail WHERE request_id = 'done' AND sequence = 1"),
                        "filled 0 somebody 7");
    assert_fine(mf_store_job_counts(worker, counts, &error));
    assert_int_equal(counts[MF_JOB_QUEUED], 1);
    assert_int_equal(counts[MF_JOB_RUNNING], 1);
    assert_int_equal(counts[MF_JOB_SUCCEEDED], 1);
    assert_int_equal(counts[MF_JOB_FAILED], 1);
    assert_int_equal(counts[MF_JOB_CANCELLED], 0);
    assert_fine(mf_store_unregister_worker(worker, "worker-1", &error));
    assert_string_equal(ask("SELECT stopped_at IS NOT NULL FROM worker_status"), "t");
    mf_database_close(worker);
}

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        ON_NEW_DATABASE(test_job_status),
        ON_NEW_DATABASE(test_history_and_events),
        ON_NEW_DATABASE(test_summaries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
