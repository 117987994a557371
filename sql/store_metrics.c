/* What a running attempt reports: metrics, details, checkpoints, artifacts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sql/store_private.h"

struct mf_attempt_details mf_attempt_details_none(void) {
    return (struct mf_attempt_details){.seed = MF_COUNT_NONE,
                                       .managed_bytes = MF_COUNT_NONE,
                                       .total_steps = MF_COUNT_NONE,
                                       .train_rows = MF_COUNT_NONE,
                                       .eval_rows = MF_COUNT_NONE,
                                       .train_tokens = MF_COUNT_NONE,
                                       .truncated_rows = MF_COUNT_NONE,
                                       .dropped_rows = MF_COUNT_NONE,
                                       .resumed_from_step = MF_COUNT_NONE,
                                       .exact = MF_COUNT_NONE};
}

/* ---- metrics ---- */

struct writing {
    const char *worker_id;
    const struct mf_lease *lease;
    const struct mf_metrics_batch *batch;
    bool repeat;
};

static void copy_number(struct mf_text *out, double value, char after) {
    struct mf_parameter number = mf_parameter_number(value);
    mf_text_puts(out, number.number);
    mf_text_append(out, &after, 1);
}

static enum mf_status copy_steps(struct mf_database *database, const struct writing *writing,
                                 struct mf_error *error) {
    const struct mf_metrics_batch *batch = writing->batch;
    struct mf_text rows = {0};
    for (size_t i = 0; i < batch->step_count; i++) {
        const struct mf_step_metric *step = &batch->steps[i];
        mf_text_printf(&rows, "%s\t%lld\t%lld\t", writing->lease->job_id, (long long)writing->lease->epoch,
                       (long long)step->step);
        copy_number(&rows, step->epoch, '\t');
        copy_number(&rows, step->loss, '\t');
        copy_number(&rows, step->learning_rate, '\t');
        copy_number(&rows, step->gradient_norm, '\t');
        mf_text_printf(&rows, "%lld\t", (long long)step->tokens);
        copy_number(&rows, step->tokens_per_second, '\t');
        copy_number(&rows, step->elapsed_seconds, '\n');
    }
    enum mf_status status = mf_text_status(&rows, error);
    if (!status)
        status = mf_database_copy(database, MF_QUERY_METRICS_COPY, rows.data, rows.length, error);
    mf_text_free(&rows);
    return status;
}

static enum mf_status write_evals(struct mf_database *database, const struct writing *writing,
                                  struct mf_error *error) {
    const struct mf_metrics_batch *batch = writing->batch;
    struct mf_array steps = {0}, losses = {0}, perplexities = {0};
    for (size_t i = 0; i < batch->eval_count; i++) {
        mf_array_integer(&steps, batch->evals[i].step);
        mf_array_number(&losses, batch->evals[i].loss);
        mf_array_number(&perplexities, batch->evals[i].perplexity);
    }
    const struct mf_parameter parameters[] = {
        mf_parameter_text(writing->lease->job_id), mf_parameter_integer(writing->lease->epoch),
        mf_array_parameter(&steps), mf_array_parameter(&losses), mf_array_parameter(&perplexities)};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_METRICS_EVALS, parameters, MF_COUNT(parameters), NULL, error);
    mf_array_free(&steps);
    mf_array_free(&losses);
    mf_array_free(&perplexities);
    return status;
}

/* A trainer may log anything; a byte that is not UTF-8 must not stop the metrics that travel with it. */
static void add_log_text(struct mf_array *array, const char *text) {
    char *clean = mf_clean_text(text);
    mf_array_text(array, clean ? clean : "(no memory for this line)");
    free(clean);
}

static enum mf_status write_logs(struct mf_database *database, const struct writing *writing,
                                 struct mf_error *error) {
    const struct mf_metrics_batch *batch = writing->batch;
    struct mf_array levels = {0}, messages = {0}, times = {0};
    for (size_t i = 0; i < batch->log_count; i++) {
        add_log_text(&levels, batch->logs[i].level);
        add_log_text(&messages, batch->logs[i].message);
        mf_array_time(&times, batch->logs[i].time);
    }
    const struct mf_parameter parameters[] = {mf_parameter_text(writing->lease->job_id),
                                              mf_parameter_integer(writing->lease->epoch),
                                              mf_array_parameter(&levels),
                                              mf_array_parameter(&messages),
                                              mf_array_parameter(&times),
                                              mf_parameter_integer(MF_LOG_ROWS_PER_ATTEMPT)};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_METRICS_LOGS, parameters, MF_COUNT(parameters), NULL, error);
    mf_array_free(&levels);
    mf_array_free(&messages);
    mf_array_free(&times);
    return status;
}

static enum mf_status write_progress(struct mf_database *database, const struct writing *writing,
                                     struct mf_error *error) {
    const struct mf_metrics_batch *batch = writing->batch;
    const struct mf_step_metric *last = batch->step_count ? &batch->steps[batch->step_count - 1] : NULL;
    int64_t tokens = 0;
    for (size_t i = 0; i < batch->step_count; i++)
        tokens += batch->steps[i].tokens;
    const struct mf_parameter none = mf_parameter_null();
    const struct mf_parameter parameters[] = {mf_parameter_text(writing->lease->job_id),
                                              mf_parameter_integer(writing->lease->epoch),
                                              mf_parameter_text(batch->phase),
                                              mf_parameter_number(batch->fraction),
                                              last ? mf_parameter_integer(last->step) : none,
                                              mf_parameter_integer(tokens),
                                              last ? mf_parameter_number(last->elapsed_seconds) : none,
                                              last ? mf_parameter_number(last->loss) : none,
                                              last ? mf_parameter_number(last->tokens_per_second) : none};
    return mf_database_query(database, MF_QUERY_METRICS_PROGRESS, parameters, MF_COUNT(parameters), NULL,
                             error);
}

/* The batch's number was not the next one: a repeat is fine, anything else is not. */
static enum mf_status judge_number(struct mf_database *database, struct writing *writing,
                                   const struct mf_parameter *lease, struct mf_error *error) {
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_METRICS_TAKEN, lease, 4, &rows, error);
    if (!status && !mf_result_rows(rows))
        status = mf_error_set(error, MF_ERROR_LEASE_LOST, "job %s: the lease of epoch %lld is lost",
                              writing->lease->job_id, (long long)writing->lease->epoch);
    else if (!status && mf_result_integer(rows, 0, 0) >= writing->batch->number)
        writing->repeat = true;
    else if (!status)
        status = mf_error_set(error, MF_ERROR_INTERNAL, "job %s: metrics batch %lld after %lld",
                              writing->lease->job_id, (long long)writing->batch->number,
                              (long long)mf_result_integer(rows, 0, 0));
    mf_result_free(rows);
    return status;
}

static enum mf_status write_metrics(struct mf_database *database, void *context, struct mf_error *error) {
    struct writing *writing = context;
    const struct mf_metrics_batch *batch = writing->batch;
    struct pg_result *rows = NULL;
    const struct mf_parameter parameters[] = {
        mf_parameter_text(writing->lease->job_id), mf_parameter_integer(writing->lease->epoch),
        mf_parameter_text(writing->lease->incarnation), mf_parameter_text(writing->worker_id),
        mf_parameter_integer(batch->number)};
    writing->repeat = false;
    enum mf_status status = mf_database_query(database, MF_QUERY_METRICS_TAKE, parameters, 5, &rows, error);
    bool taken = !status && mf_result_rows(rows) > 0;
    mf_result_free(rows);
    if (status)
        return status;
    if (!taken)
        return judge_number(database, writing, parameters, error);
    if (batch->step_count)
        status = copy_steps(database, writing, error);
    if (!status && batch->eval_count)
        status = write_evals(database, writing, error);
    if (!status && batch->log_count)
        status = write_logs(database, writing, error);
    if (!status && (batch->step_count || batch->phase))
        status = write_progress(database, writing, error);
    return status;
}

enum mf_status mf_store_write_metrics(struct mf_database *database, const char *worker_id,
                                      const struct mf_lease *lease, const struct mf_metrics_batch *batch,
                                      bool *repeat, struct mf_error *error) {
    struct writing writing = {.worker_id = worker_id, .lease = lease, .batch = batch};
    enum mf_status status = mf_database_transaction(database, write_metrics, &writing, error);
    if (repeat)
        *repeat = !status && writing.repeat;
    return status;
}

/* ---- details, artifacts, checkpoints: each under the lease's lock ---- */

struct reporting {
    const char *worker_id;
    const struct mf_lease *lease;
    const struct mf_attempt_details *details;
    const struct mf_stored_object *object;
};

static enum mf_status lock_only(struct mf_database *database, const struct reporting *reporting,
                                struct mf_error *error) {
    struct mf_leased job;
    enum mf_status status = mf_lease_lock(database, reporting->worker_id, reporting->lease, &job, error);
    return status;
}

static enum mf_status update_attempt(struct mf_database *database, void *context, struct mf_error *error) {
    const struct reporting *reporting = context;
    const struct mf_attempt_details *details = reporting->details;
    const struct mf_parameter parameters[] = {mf_parameter_text(reporting->lease->job_id),
                                              mf_parameter_integer(reporting->lease->epoch),
                                              mf_parameter_text(details->device),
                                              mf_parameter_text(details->gpu_uuids),
                                              mf_parameter_text(details->versions),
                                              mf_parameter_text(details->numeric_plan_sha256),
                                              mf_parameter_text(details->dataset_sha256),
                                              mf_parameter_text(details->base_sha256),
                                              mf_parameter_text(details->base_revision),
                                              mf_optional_count(details->seed),
                                              mf_optional_count(details->managed_bytes),
                                              mf_optional_count(details->total_steps),
                                              mf_optional_count(details->train_rows),
                                              mf_optional_count(details->eval_rows),
                                              mf_optional_count(details->train_tokens),
                                              mf_optional_count(details->truncated_rows),
                                              mf_optional_count(details->dropped_rows),
                                              mf_optional_count(details->resumed_from_step),
                                              mf_optional_count(details->exact)};
    enum mf_status status = lock_only(database, reporting, error);
    return status ? status
                  : mf_database_query(database, MF_QUERY_ATTEMPT_UPDATE, parameters, MF_COUNT(parameters),
                                      NULL, error);
}

enum mf_status mf_store_update_attempt(struct mf_database *database, const char *worker_id,
                                       const struct mf_lease *lease, const struct mf_attempt_details *details,
                                       struct mf_error *error) {
    struct reporting reporting = {.worker_id = worker_id, .lease = lease, .details = details};
    return mf_database_transaction(database, update_attempt, &reporting, error);
}

/* Inserts under the fence. Nothing inserted: *fresh false when the row that is there is equal, else a defect.
 */
static enum mf_status insert_object(struct mf_database *database, const struct reporting *reporting,
                                    enum mf_query insert, enum mf_query compare, struct mf_parameter key,
                                    bool *fresh, struct mf_error *error) {
    const struct mf_stored_object *object = reporting->object;
    struct pg_result *rows = NULL;
    const struct mf_parameter parameters[] = {mf_parameter_text(reporting->lease->job_id),
                                              mf_parameter_integer(reporting->lease->epoch),
                                              key,
                                              mf_parameter_text(object->uri),
                                              mf_parameter_integer(object->size_bytes),
                                              mf_parameter_text(object->sha256)};
    enum mf_status status = lock_only(database, reporting, error);
    if (!status)
        status = mf_database_query(database, insert, parameters, MF_COUNT(parameters), &rows, error);
    *fresh = !status && mf_result_rows(rows) > 0;
    mf_result_free(rows);
    if (status || *fresh)
        return status;
    status = mf_database_query(database, compare, parameters, MF_COUNT(parameters), &rows, error);
    if (!status && (!mf_result_rows(rows) || !mf_result_boolean(rows, 0, 0)))
        status = mf_error_set(error, MF_ERROR_INTERNAL, "job %s: %s was recorded before with another content",
                              reporting->lease->job_id, object->kind ? object->kind : "the checkpoint");
    mf_result_free(rows);
    return status;
}

static enum mf_status audit_object(struct mf_database *database, const struct reporting *reporting,
                                   const char *type, int64_t step, struct mf_error *error) {
    const struct mf_stored_object *object = reporting->object;
    return mf_audit_write(
        database,
        (struct mf_audit){.job_id = reporting->lease->job_id,
                          .type = type,
                          .state = mf_job_state_name(MF_JOB_RUNNING),
                          .actor = reporting->worker_id,
                          .attempt = reporting->lease->epoch,
                          .step = step,
                          .detail = json_pack("{s:s*, s:s, s:I, s:s}", "kind", object->kind, "uri",
                                              object->uri, "size_bytes", (json_int_t)object->size_bytes,
                                              "sha256", object->sha256)},
        error);
}

static enum mf_status record_artifact(struct mf_database *database, void *context, struct mf_error *error) {
    const struct reporting *reporting = context;
    bool fresh = false;
    enum mf_status status =
        insert_object(database, reporting, MF_QUERY_ARTIFACT_INSERT, MF_QUERY_ARTIFACT_EQUAL,
                      mf_parameter_text(reporting->object->kind), &fresh, error);
    return status || !fresh ? status : audit_object(database, reporting, "artifact", MF_COUNT_NONE, error);
}

enum mf_status mf_store_record_artifact(struct mf_database *database, const char *worker_id,
                                        const struct mf_lease *lease, const struct mf_stored_object *object,
                                        struct mf_error *error) {
    struct reporting reporting = {.worker_id = worker_id, .lease = lease, .object = object};
    return mf_database_transaction(database, record_artifact, &reporting, error);
}

static enum mf_status record_checkpoint(struct mf_database *database, void *context, struct mf_error *error) {
    const struct reporting *reporting = context;
    bool fresh = false;
    enum mf_status status =
        insert_object(database, reporting, MF_QUERY_CHECKPOINT_INSERT, MF_QUERY_CHECKPOINT_EQUAL,
                      mf_parameter_integer(reporting->object->step), &fresh, error);
    return status || !fresh ? status
                            : audit_object(database, reporting, "checkpoint", reporting->object->step, error);
}

enum mf_status mf_store_record_checkpoint(struct mf_database *database, const char *worker_id,
                                          const struct mf_lease *lease, const struct mf_stored_object *object,
                                          struct mf_error *error) {
    struct reporting reporting = {.worker_id = worker_id, .lease = lease, .object = object};
    return mf_database_transaction(database, record_checkpoint, &reporting, error);
}
