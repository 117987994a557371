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

void mf_leased_free(struct mf_leased *job) {
    free(job->queue);
    free(job->tenant);
    *job = (struct mf_leased){0};
}

enum mf_status mf_leased_read(const struct pg_result *row, struct mf_leased *job, struct mf_error *error) {
    *job = (struct mf_leased){.state = mf_job_state_parse(mf_result_text(row, 0, 0)),
                              .desired = mf_job_desired_parse(mf_result_text(row, 0, 1)),
                              .attempts = (int32_t)mf_result_integer(row, 0, 2),
                              .max_attempts = (int32_t)mf_result_integer(row, 0, 3),
                              .interruptions = (int32_t)mf_result_integer(row, 0, 4),
                              .drains = (int32_t)mf_result_integer(row, 0, 5),
                              .queue = mf_result_copy(row, 0, 6),
                              .tenant = mf_result_copy(row, 0, 7),
                              .deadline_passed = mf_result_boolean(row, 0, 8)};
    if (job->queue && job->tenant)
        return MF_OK;
    mf_leased_free(job);
    return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a job");
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
    if (!status)
        status = mf_result_rows(rows)
                     ? mf_leased_read(rows, job, error)
                     : mf_error_set(error, MF_ERROR_LEASE_LOST,
                                    "job %s: the lease of epoch %lld is not worker %s's any more",
                                    lease->job_id, (long long)lease->epoch, worker_id);
    mf_result_free(rows);
    return status;
}

enum mf_status mf_attempt_end(struct mf_database *database, const struct mf_lease *lease,
                              const struct mf_leased *job, const struct mf_attempt_end *end,
                              struct mf_error *error) {
    struct pg_result *rows = NULL;
    struct mf_count_changes changes = {0};
    json_t *detail = end->detail;
    int64_t delay = end->next == MF_JOB_QUEUED ? end->delay_ms : 0;
    const struct mf_parameter parameters[] = {mf_parameter_text(lease->job_id),
                                              mf_parameter_integer(lease->epoch),
                                              mf_parameter_text(mf_job_state_name(end->next)),
                                              mf_parameter_integer(delay),
                                              mf_parameter_integer(end->attempts),
                                              mf_parameter_integer(end->interruptions),
                                              mf_parameter_integer(end->drains),
                                              mf_parameter_text(end->error_code),
                                              mf_parameter_text(end->error_message),
                                              mf_parameter_text(end->outcome),
                                              mf_parameter_text(end->result)};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_ATTEMPT_END, parameters, MF_COUNT(parameters), &rows, error);
    if (!status && !mf_result_rows(rows))
        status = mf_error_set(error, MF_ERROR_INTERNAL, "job %s moved under its lock", lease->job_id);
    if (status)
        goto done;
    mf_count_changes_add(&changes, job->queue, job->tenant, end->next == MF_JOB_QUEUED && !delay, -1);
    status = mf_count_changes_write(database, &changes, error);
    if (status)
        goto done;
    if (!detail)
        detail = json_object();
    if (end->error_code) {
        json_object_set_new(detail, "code", json_string(end->error_code));
        json_object_set_new(detail, "message", json_string(end->error_message ? end->error_message : ""));
    }
    if (end->next == MF_JOB_QUEUED)
        json_object_set_new(detail, "retry_in_ms", json_integer(delay));
    status = mf_audit_write(database,
                            (struct mf_audit){.job_id = lease->job_id,
                                              .type = end->event_type,
                                              .state = mf_job_state_name(end->next),
                                              .actor = end->actor,
                                              .attempt = lease->epoch,
                                              .step = MF_COUNT_NONE,
                                              .detail = detail},
                            error);
    detail = NULL;
done:
    json_decref(detail);
    mf_count_changes_free(&changes);
    mf_result_free(rows);
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
