/* What the parts of the store share: audit rows, counts, ends. */
#include <stdlib.h>
#include <string.h>

#include "sql/store_private.h"

struct mf_parameter mf_optional_count(int64_t value) {
    return value == MF_COUNT_NONE ? mf_parameter_null() : mf_parameter_integer(value);
}

int64_t mf_count_or_none(const struct pg_result *rows, int row, int column) {
    return mf_result_null(rows, row, column) ? MF_COUNT_NONE : mf_result_integer(rows, row, column);
}

enum mf_status mf_audit_write(struct mf_database *database, struct mf_audit audit, struct mf_error *error) {
    char *detail = audit.detail ? json_dumps(audit.detail, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    bool no_memory = audit.detail && !detail;
    json_decref(audit.detail);
    if (no_memory)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "audit row: no memory for its detail");
    const struct mf_parameter parameters[] = {
        mf_parameter_text(audit.job_id),  mf_parameter_text(audit.type), mf_parameter_text(audit.state),
        mf_optional_count(audit.attempt), mf_optional_count(audit.step), mf_parameter_text(audit.actor),
        mf_parameter_text(detail)};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_AUDIT_INSERT, parameters, MF_COUNT(parameters), NULL, error);
    free(detail);
    return status;
}

void mf_count_changes_add(struct mf_count_changes *changes, const char *queue, const char *tenant, int ready,
                          int running) {
    if (!ready && !running)
        return;
    mf_array_text(&changes->queue, queue);
    mf_array_text(&changes->tenant, tenant);
    mf_array_integer(&changes->ready, ready);
    mf_array_integer(&changes->running, running);
    changes->any = true;
}

enum mf_status mf_count_changes_write(struct mf_database *database, struct mf_count_changes *changes,
                                      struct mf_error *error) {
    if (!changes->any)
        return MF_OK;
    const struct mf_parameter parameters[] = {
        mf_array_parameter(&changes->queue), mf_array_parameter(&changes->tenant),
        mf_array_parameter(&changes->ready), mf_array_parameter(&changes->running)};
    return mf_database_query(database, MF_QUERY_TENANT_COUNTS, parameters, MF_COUNT(parameters), NULL, error);
}

void mf_count_changes_free(struct mf_count_changes *changes) {
    mf_array_free(&changes->queue);
    mf_array_free(&changes->tenant);
    mf_array_free(&changes->ready);
    mf_array_free(&changes->running);
    changes->any = false;
}

enum mf_status mf_close_unleased(struct mf_database *database, const struct mf_unleased *job,
                                 enum mf_job_state next, const char *error_code, const char *error_message,
                                 const char *actor, json_t *detail, struct mf_count_changes *changes,
                                 struct mf_error *error) {
    const struct mf_parameter parameters[] = {
        mf_parameter_text(job->job_id),
        mf_parameter_text(mf_job_state_name(job->state)),
        mf_parameter_text(mf_job_state_name(next)),
        mf_parameter_text(error_code),
        mf_parameter_text(error_message),
        mf_parameter_text(next == MF_JOB_CANCELLED ? mf_job_desired_name(MF_DESIRED_CANCEL) : NULL)};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_JOB_CLOSE, parameters, MF_COUNT(parameters), NULL, error);
    if (status) {
        json_decref(detail);
        return status;
    }
    if (error_code) {
        if (!detail)
            detail = json_object();
        json_object_set_new(detail, "code", json_string(error_code));
        json_object_set_new(detail, "message", json_string(error_message ? error_message : ""));
    }
    mf_count_changes_add(changes, job->queue, job->tenant, job->ready ? -1 : 0, 0);
    return mf_audit_write(database,
                          (struct mf_audit){.job_id = job->job_id,
                                            .type = mf_job_state_name(next),
                                            .state = mf_job_state_name(next),
                                            .actor = actor,
                                            .attempt = job->epoch ? job->epoch : MF_COUNT_NONE,
                                            .step = MF_COUNT_NONE,
                                            .detail = detail},
                          error);
}

struct mf_leased mf_leased_read(const struct pg_result *rows, int row) {
    return (struct mf_leased){.state = mf_job_state_parse(mf_result_text(rows, row, 0)),
                              .desired = mf_job_desired_parse(mf_result_text(rows, row, 1)),
                              .attempts = (int32_t)mf_result_integer(rows, row, 2),
                              .max_attempts = (int32_t)mf_result_integer(rows, row, 3),
                              .interruptions = (int32_t)mf_result_integer(rows, row, 4),
                              .drains = (int32_t)mf_result_integer(rows, row, 5),
                              .deadline_passed = mf_result_boolean(rows, row, 6)};
}

enum mf_status mf_lease_lock(struct mf_database *database, const char *worker_id,
                             const struct mf_lease *lease, struct mf_leased *job, struct mf_error *error) {
    struct pg_result *rows = NULL;
    *job = (struct mf_leased){0};
    const struct mf_parameter parameters[] = {
        mf_parameter_text(lease->job_id), mf_parameter_integer(lease->epoch),
        mf_parameter_text(lease->incarnation), mf_parameter_text(worker_id)};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_LEASE_LOCK, parameters, MF_COUNT(parameters), &rows, error);
    if (!status && mf_result_rows(rows))
        *job = mf_leased_read(rows, 0);
    else if (!status)
        status = mf_error_set(error, MF_ERROR_LEASE_LOST,
                              "job %s: the lease of epoch %lld is not worker %s's any more", lease->job_id,
                              (long long)lease->epoch, worker_id);
    mf_result_free(rows);
    return status;
}

/* The detail of the audit row, as text the caller frees. */
static char *describe_end(struct mf_attempt_end *end, int64_t delay_ms) {
    json_t *detail = end->detail ? end->detail : json_object();
    end->detail = NULL;
    if (end->error_code) {
        json_object_set_new(detail, "code", json_string(end->error_code));
        json_object_set_new(detail, "message", json_string(end->error_message ? end->error_message : ""));
    }
    if (end->next == MF_JOB_QUEUED)
        json_object_set_new(detail, "retry_in_ms", json_integer(delay_ms));
    char *text = detail ? json_dumps(detail, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(detail);
    return text;
}

enum { END_ARRAYS = 14 };

static bool add_end(struct mf_array *next, struct mf_attempt_end *end) {
    int64_t delay = end->next == MF_JOB_QUEUED ? end->delay_ms : 0;
    char *detail = describe_end(end, delay);
    mf_array_text(next++, end->lease->job_id);
    mf_array_integer(next++, end->lease->epoch);
    mf_array_text(next++, mf_job_state_name(end->next));
    mf_array_integer(next++, delay);
    mf_array_integer(next++, end->attempts);
    mf_array_integer(next++, end->interruptions);
    mf_array_integer(next++, end->drains);
    mf_array_text(next++, end->error_code);
    mf_array_text(next++, end->error_message);
    mf_array_text(next++, end->outcome);
    mf_array_text(next++, end->result);
    mf_array_text(next++, end->actor);
    mf_array_text(next++, end->event_type);
    mf_array_text(next++, detail);
    free(detail);
    return detail != NULL;
}

enum mf_status mf_attempts_end(struct mf_database *database, struct mf_attempt_end *ends, size_t count,
                               struct mf_error *error) {
    struct mf_array arrays[END_ARRAYS] = {0};
    struct mf_parameter parameters[END_ARRAYS];
    struct pg_result *rows = NULL;
    bool described = true;
    for (size_t i = 0; i < count; i++)
        described = add_end(arrays, &ends[i]) && described;
    for (size_t i = 0; i < END_ARRAYS; i++)
        parameters[i] = mf_array_parameter(&arrays[i]);
    enum mf_status status = described ? mf_database_query(database, MF_QUERY_ATTEMPTS_END, parameters,
                                                          MF_COUNT(parameters), &rows, error)
                                      : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for an event");
    if (!status && mf_result_integer(rows, 0, 0) != (int64_t)count)
        status = mf_error_set(error, MF_ERROR_INTERNAL, "%zu jobs were to end under their locks, %lld did",
                              count, (long long)mf_result_integer(rows, 0, 0));
    mf_result_free(rows);
    for (size_t i = 0; i < END_ARRAYS; i++)
        mf_array_free(&arrays[i]);
    return status;
}

char *mf_clean_text(const char *text) {
    char *copy = strdup(text);
    for (unsigned char *at = (unsigned char *)copy; at && *at;) {
        size_t length = mf_utf8_length(at);
        if (!length)
            *at = '?';
        at += length ? length : 1;
    }
    return copy;
}

int64_t mf_backoff_ms(const struct mf_retry_policy *policy, int32_t times) {
    int64_t delay = policy->base_ms;
    for (int32_t i = 1; i < times && delay < policy->limit_ms; i++)
        delay *= 2;
    if (delay > policy->limit_ms)
        delay = policy->limit_ms;
    if (delay <= 0)
        return 0;
    int64_t spread = delay / 5;
    return delay - spread + (int64_t)(mf_random_u64() % (uint64_t)(2 * spread + 1));
}
