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
