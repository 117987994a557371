/* Reads for people and upkeep: everything through the public views. */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sql/store_private.h"

/* ---- one job ---- */

void mf_job_status_free(struct mf_job_status *status) {
    char *const texts[] = {status->tenant,     status->request_id,     status->batch_id,
                           status->provider,   status->model_name,     status->task,
                           status->strategy,   status->state,          status->desired,
                           status->error_code, status->waiting_reason, status->error_message,
                           status->worker_id,  status->phase,          status->result};
    for (size_t i = 0; i < MF_COUNT(texts); i++)
        free(texts[i]);
    *status = (struct mf_job_status){0};
}

static enum mf_status read_status(const PGresult *rows, struct mf_job_status *status,
                                  struct mf_error *error) {
    const struct {
        int column;
        char **text;
    } texts[] = {{1, &status->tenant},          {2, &status->request_id},  {3, &status->batch_id},
                 {4, &status->provider},        {5, &status->model_name},  {6, &status->task},
                 {7, &status->strategy},        {9, &status->state},       {10, &status->desired},
                 {11, &status->waiting_reason}, {15, &status->error_code}, {16, &status->error_message},
                 {17, &status->worker_id},      {18, &status->phase},      {25, &status->result}};
    snprintf(status->job_id, sizeof status->job_id, "%s", mf_result_text(rows, 0, 0));
    status->generation = (int32_t)mf_result_integer(rows, 0, 8);
    status->attempts = (int32_t)mf_result_integer(rows, 0, 12);
    status->max_attempts = (int32_t)mf_result_integer(rows, 0, 13);
    status->interruptions = (int32_t)mf_result_integer(rows, 0, 14);
    status->fraction = mf_result_number(rows, 0, 19);
    status->step = mf_count_or_none(rows, 0, 20);
    status->total_steps = mf_count_or_none(rows, 0, 21);
    status->trained_tokens = mf_count_or_none(rows, 0, 22);
    status->loss = mf_result_number(rows, 0, 23);
    status->tokens_per_second = mf_result_number(rows, 0, 24);
    status->created_at = mf_result_time(rows, 0, 26);
    status->started_at = mf_result_time(rows, 0, 27);
    status->finished_at = mf_result_time(rows, 0, 28);
    status->estimated_finish = mf_result_time(rows, 0, 29);
    for (size_t i = 0; i < MF_COUNT(texts); i++) {
        *texts[i].text = mf_result_copy(rows, 0, texts[i].column);
        if (!*texts[i].text && !mf_result_null(rows, 0, texts[i].column)) {
            mf_job_status_free(status);
            return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a job's status");
        }
    }
    return MF_OK;
}

static enum mf_status one_job(struct mf_database *database, enum mf_query query,
                              const struct mf_parameter *parameters, size_t count, const char *named,
                              struct mf_job_status *job, struct mf_error *error) {
    PGresult *rows = NULL;
    *job = (struct mf_job_status){0};
    enum mf_status status = mf_database_query(database, query, parameters, count, &rows, error);
    if (!status && !mf_result_rows(rows))
        status = mf_error_set(error, MF_ERROR_NOT_FOUND, "there is no job %s", named);
    if (!status)
        status = read_status(rows, job, error);
    mf_result_free(rows);
    return status;
}

enum mf_status mf_store_job_by_request(struct mf_database *database, const char *tenant,
                                       const char *request_id, struct mf_job_status *status,
                                       struct mf_error *error) {
    char named[400];
    const struct mf_parameter parameters[] = {mf_parameter_text(tenant), mf_parameter_text(request_id)};
    snprintf(named, sizeof named, "of request '%s' of tenant '%s'", request_id, tenant);
    return one_job(database, MF_QUERY_JOB_BY_REQUEST, parameters, 2, named, status, error);
}

enum mf_status mf_store_job_by_id(struct mf_database *database, const char *job_id,
                                  struct mf_job_status *status, struct mf_error *error) {
    struct mf_uuid uuid;
    const struct mf_parameter id = mf_parameter_text(job_id);
    *status = (struct mf_job_status){0};
    if (!mf_uuid_parse(job_id, &uuid))
        return mf_error_set(error, MF_ERROR_NOT_FOUND, "'%s' is no job id", job_id);
    return one_job(database, MF_QUERY_JOB_BY_ID, &id, 1, job_id, status, error);
}

/* ---- curves ---- */

enum mf_status mf_store_loss_curve(struct mf_database *database, const char *job_id, int64_t after,
                                   struct mf_step_metric **steps, size_t *count, struct mf_error *error) {
    PGresult *rows = NULL;
    const struct mf_parameter parameters[] = {mf_parameter_text(job_id), mf_parameter_integer(after)};
    *steps = NULL;
    *count = 0;
    enum mf_status status =
        mf_database_query(database, MF_QUERY_READ_LOSS_CURVE, parameters, 2, &rows, error);
    size_t found = status ? 0 : (size_t)mf_result_rows(rows);
    struct mf_step_metric *list = found ? calloc(found, sizeof *list) : NULL;
    if (found && !list)
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a loss curve");
    for (size_t i = 0; list && i < found; i++)
        list[i] = (struct mf_step_metric){.step = mf_result_integer(rows, (int)i, 0),
                                          .epoch = mf_result_number(rows, (int)i, 1),
                                          .loss = mf_result_number(rows, (int)i, 2),
                                          .learning_rate = mf_result_number(rows, (int)i, 3),
                                          .gradient_norm = mf_result_number(rows, (int)i, 4),
                                          .tokens = mf_result_integer(rows, (int)i, 5),
                                          .tokens_per_second = mf_result_number(rows, (int)i, 6),
                                          .elapsed_seconds = mf_result_number(rows, (int)i, 7)};
    mf_result_free(rows);
    *steps = list;
    *count = list ? found : 0;
    return status;
}

enum mf_status mf_store_eval_curve(struct mf_database *database, const char *job_id,
                                   struct mf_eval_metric **evals, size_t *count, struct mf_error *error) {
    PGresult *rows = NULL;
    const struct mf_parameter id = mf_parameter_text(job_id);
    *evals = NULL;
    *count = 0;
    enum mf_status status = mf_database_query(database, MF_QUERY_READ_EVAL_CURVE, &id, 1, &rows, error);
    size_t found = status ? 0 : (size_t)mf_result_rows(rows);
    struct mf_eval_metric *list = found ? calloc(found, sizeof *list) : NULL;
    if (found && !list)
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for evaluations");
    for (size_t i = 0; list && i < found; i++)
        list[i] = (struct mf_eval_metric){.step = mf_result_integer(rows, (int)i, 0),
                                          .loss = mf_result_number(rows, (int)i, 1),
                                          .perplexity = mf_result_number(rows, (int)i, 2)};
    mf_result_free(rows);
    *evals = list;
    *count = list ? found : 0;
    return status;
}

/* ---- tables for printing ---- */

void mf_text_table_free(struct mf_text_table *table) {
    for (size_t i = 0; table->column && i < table->columns; i++)
        free(table->column[i]);
    for (size_t i = 0; table->cell && i < table->rows * table->columns; i++)
        free(table->cell[i]);
    free(table->column);
    free(table->cell);
    *table = (struct mf_text_table){0};
}

static bool fill_table(const PGresult *rows, struct mf_text_table *table) {
    table->columns = (size_t)PQnfields(rows);
    table->rows = (size_t)PQntuples(rows);
    table->column = calloc(table->columns + 1, sizeof *table->column);
    table->cell = calloc(table->columns * table->rows + 1, sizeof *table->cell);
    if (!table->column || !table->cell)
        return false;
    for (size_t column = 0; column < table->columns; column++)
        if (!(table->column[column] = strdup(PQfname(rows, (int)column))))
            return false;
    for (size_t i = 0; i < table->columns * table->rows; i++) {
        int row = (int)(i / table->columns), column = (int)(i % table->columns);
        table->cell[i] = mf_result_copy(rows, row, column);
        if (!table->cell[i] && !mf_result_null(rows, row, column))
            return false;
    }
    return true;
}

enum mf_status mf_read_table(struct mf_database *database, enum mf_query query,
                             const struct mf_parameter *parameters, size_t count, struct mf_text_table *table,
                             struct mf_error *error) {
    PGresult *rows = NULL;
    *table = (struct mf_text_table){0};
    enum mf_status status = mf_database_query(database, query, parameters, count, &rows, error);
    if (!status && !fill_table(rows, table)) {
        mf_text_table_free(table);
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a table");
    }
    mf_result_free(rows);
    return status;
}

static enum mf_status read_newest(struct mf_database *database, enum mf_query query, const char *tenant,
                                  size_t limit, struct mf_text_table *table, struct mf_error *error) {
    const struct mf_parameter parameters[] = {mf_parameter_text(tenant),
                                              mf_parameter_integer((int64_t)limit)};
    return mf_read_table(database, query, parameters, 2, table, error);
}

enum mf_status mf_store_jobs(struct mf_database *database, const char *tenant, size_t limit,
                             struct mf_text_table *table, struct mf_error *error) {
    return read_newest(database, MF_QUERY_READ_JOBS, tenant, limit, table, error);
}

enum mf_status mf_store_history(struct mf_database *database, const char *tenant, size_t limit,
                                struct mf_text_table *table, struct mf_error *error) {
    return read_newest(database, MF_QUERY_READ_HISTORY, tenant, limit, table, error);
}

enum mf_status mf_store_events(struct mf_database *database, const char *job_id, struct mf_text_table *table,
                               struct mf_error *error) {
    const struct mf_parameter id = mf_parameter_text(job_id);
    return mf_read_table(database, MF_QUERY_READ_EVENTS, &id, 1, table, error);
}

enum mf_status mf_store_live_workers(struct mf_database *database, struct mf_text_table *table,
                                     struct mf_error *error) {
    return mf_read_table(database, MF_QUERY_READ_WORKERS, NULL, 0, table, error);
}

enum mf_status mf_store_health(struct mf_database *database, struct mf_text_table *table,
                               struct mf_error *error) {
    const struct mf_parameter version = mf_parameter_text(MF_VERSION);
    return mf_read_table(database, MF_QUERY_READ_HEALTH, &version, 1, table, error);
}

enum mf_status mf_store_worker_rights(struct mf_database *database, struct mf_worker_rights *rights,
                                      struct mf_error *error) {
    PGresult *rows = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_WORKER_RIGHTS, NULL, 0, &rows, error);
    if (!status) {
        snprintf(rights->login, sizeof rights->login, "%s", mf_result_text(rows, 0, 0));
        rights->enough = mf_result_boolean(rows, 0, 1);
        rights->more = mf_result_boolean(rows, 0, 2);
    }
    mf_result_free(rows);
    return status;
}

enum mf_status mf_store_ingest_status(struct mf_database *database, struct mf_text_table *table,
                                      struct mf_error *error) {
    return mf_read_table(database, MF_QUERY_READ_INGEST, NULL, 0, table, error);
}

enum mf_status mf_store_artifacts(struct mf_database *database, const char *job_id,
                                  struct mf_text_table *table, struct mf_error *error) {
    const struct mf_parameter id = mf_parameter_text(job_id);
    return mf_read_table(database, MF_QUERY_READ_ARTIFACTS, &id, 1, table, error);
}

enum mf_status mf_store_logs(struct mf_database *database, const char *job_id, size_t limit,
                             struct mf_text_table *table, struct mf_error *error) {
    const struct mf_parameter parameters[] = {mf_parameter_text(job_id),
                                              mf_parameter_integer((int64_t)limit)};
    return mf_read_table(database, MF_QUERY_READ_LOGS, parameters, 2, table, error);
}

enum mf_status mf_store_record_fate(struct mf_database *database, const char *topic, int32_t partition,
                                    int64_t offset, bool *taken, struct mf_error *error) {
    PGresult *rows = NULL;
    const struct mf_parameter parameters[] = {mf_parameter_text(topic), mf_parameter_integer(partition),
                                              mf_parameter_integer(offset)};
    *taken = false;
    enum mf_status status = mf_database_query(database, MF_QUERY_READ_RECORD, parameters, 3, &rows, error);
    if (status)
        return status;
    *taken = mf_result_boolean(rows, 0, 0);
    if (!mf_result_null(rows, 0, 1))
        status = mf_error_set(error, mf_status_from_code(mf_result_text(rows, 0, 1)), "%s",
                              mf_result_text(rows, 0, 2));
    mf_result_free(rows);
    return status;
}

enum mf_status mf_store_command_fate(struct mf_database *database, const char *command_id,
                                     struct mf_command_fate *fate, struct mf_error *error) {
    PGresult *rows = NULL;
    const struct mf_parameter id = mf_parameter_text(command_id);
    *fate = (struct mf_command_fate){0};
    enum mf_status status = mf_database_query(database, MF_QUERY_COMMAND_READ, &id, 1, &rows, error);
    if (!status && mf_result_rows(rows)) {
        snprintf(fate->outcome, sizeof fate->outcome, "%s", mf_result_text(rows, 0, 0));
        snprintf(fate->note, sizeof fate->note, "%s", mf_result_text(rows, 0, 1));
        snprintf(fate->job_id, sizeof fate->job_id, "%s", mf_result_text(rows, 0, 2));
        fate->generation = (int32_t)mf_result_integer(rows, 0, 3);
        snprintf(fate->state, sizeof fate->state, "%s", mf_result_text(rows, 0, 4));
    }
    mf_result_free(rows);
    return status;
}

/* ---- upkeep ---- */

enum mf_status mf_store_job_counts(struct mf_database *database, int64_t counts[MF_JOB_STATE_COUNT],
                                   struct mf_error *error) {
    PGresult *rows = NULL;
    memset(counts, 0, MF_JOB_STATE_COUNT * sizeof *counts);
    enum mf_status status = mf_database_query(database, MF_QUERY_JOB_COUNTS, NULL, 0, &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows); row++) {
        enum mf_job_state state = mf_job_state_parse(mf_result_text(rows, row, 0));
        if (state != MF_JOB_STATE_COUNT)
            counts[state] = mf_result_integer(rows, row, 1);
    }
    mf_result_free(rows);
    return status;
}

enum mf_status mf_store_maintain_partitions(struct mf_database *database, struct mf_error *error) {
    return mf_database_query(database, MF_QUERY_MAINTAIN_PARTITIONS, NULL, 0, NULL, error);
}
