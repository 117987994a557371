/* Batches as their sender follows them. */
#include "sql/store_private.h"

void mf_sent_batch_add(struct mf_sent_batch *batch, int32_t partition, int64_t offset, const char *job_id) {
    mf_array_integer(&batch->partition, partition);
    mf_array_integer(&batch->offset, offset);
    mf_array_text(&batch->job_id, job_id);
    batch->count++;
}

void mf_sent_batch_free(struct mf_sent_batch *batch) {
    mf_array_free(&batch->partition);
    mf_array_free(&batch->offset);
    mf_array_free(&batch->job_id);
}

enum { BATCH_PARAMETERS = 4 };

static void batch_parameters(struct mf_sent_batch *batch, struct mf_parameter parameters[BATCH_PARAMETERS]) {
    parameters[0] = mf_parameter_text(batch->topic);
    parameters[1] = mf_array_parameter(&batch->partition);
    parameters[2] = mf_array_parameter(&batch->offset);
    parameters[3] = mf_array_parameter(&batch->job_id);
}

enum mf_status mf_store_batch_progress(struct mf_database *database, struct mf_sent_batch *batch,
                                       struct mf_batch_progress *progress, struct mf_error *error) {
    struct mf_parameter parameters[BATCH_PARAMETERS];
    struct pg_result *rows = NULL;
    *progress = (struct mf_batch_progress){0};
    batch_parameters(batch, parameters);
    enum mf_status status =
        mf_database_query(database, MF_QUERY_READ_BATCH_PROGRESS, parameters, BATCH_PARAMETERS, &rows, error);
    if (status)
        return status;
    progress->taken = (size_t)mf_result_integer(rows, 0, 0);
    for (int state = 0; state < MF_JOB_STATE_COUNT; state++)
        progress->jobs[state] = mf_result_integer(rows, 0, 1 + state);
    mf_result_free(rows);
    return MF_OK;
}

enum mf_status mf_store_batch_ends(struct mf_database *database, struct mf_sent_batch *batch,
                                   struct mf_text_table *table, struct mf_error *error) {
    struct mf_parameter parameters[BATCH_PARAMETERS];
    batch_parameters(batch, parameters);
    return mf_read_table(database, MF_QUERY_READ_BATCH_ENDS, parameters, BATCH_PARAMETERS, table, error);
}

/* ---- the end of a batch ---- */

/* The event of one batch, in the audit trail of the job that ended last. */
static enum mf_status finish_batch(struct mf_database *database, const struct pg_result *due, int row,
                                   int64_t *finished, struct mf_error *error) {
    const char *batch_id = mf_result_text(due, row, 1);
    const struct mf_parameter name[] = {mf_parameter_text(mf_result_text(due, row, 0)),
                                        mf_parameter_text(batch_id)};
    struct pg_result *end = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_BATCH_FINISH, name, 2, &end, error);
    if (!status && mf_result_rows(end)) {
        int64_t epoch = mf_result_integer(end, 0, 2);
        json_t *detail = json_pack(
            "{s:s, s:I, s:I, s:I, s:I, s:I}", "batch_id", batch_id, "round",
            (json_int_t)mf_result_integer(due, row, 2), "jobs", (json_int_t)mf_result_integer(end, 0, 3),
            "succeeded", (json_int_t)mf_result_integer(end, 0, 4), "failed",
            (json_int_t)mf_result_integer(end, 0, 5), "cancelled", (json_int_t)mf_result_integer(end, 0, 6));
        status = detail ? mf_audit_write(database,
                                         (struct mf_audit){.job_id = mf_result_text(end, 0, 0),
                                                           .type = "batch_finished",
                                                           .state = mf_result_text(end, 0, 1),
                                                           .actor = "reaper",
                                                           .attempt = epoch ? epoch : MF_COUNT_NONE,
                                                           .step = MF_COUNT_NONE,
                                                           .detail = detail},
                                         error)
                        : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for an event");
        ++*finished;
    }
    mf_result_free(end);
    return status;
}

enum mf_status mf_batches_finish(struct mf_database *database, int32_t settle_s, int64_t *finished,
                                 struct mf_error *error) {
    const struct mf_parameter settle = mf_parameter_integer(settle_s);
    struct pg_result *due = NULL;
    *finished = 0;
    enum mf_status status = mf_database_query(database, MF_QUERY_BATCH_QUIET, NULL, 0, NULL, error);
    if (!status)
        status = mf_database_query(database, MF_QUERY_BATCH_DUE, &settle, 1, &due, error);
    for (int row = 0; !status && row < mf_result_rows(due); row++)
        status = finish_batch(database, due, row, finished, error);
    mf_result_free(due);
    return status;
}
