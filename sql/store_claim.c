/* Workers, claims, and the reaper that looks after jobs nobody leases. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sql/store_private.h"

enum { SKIPPED_QUEUES_LIMIT = 256 }; /* queues of a claim whose jobs all need more devices */

/* ---- workers ---- */

static void add_texts(struct mf_array *array, const char *const *texts, size_t count) {
    for (size_t i = 0; i < count; i++)
        mf_array_text(array, texts[i]);
}

enum mf_status mf_store_register_worker(struct mf_database *database, const struct mf_worker_row *worker,
                                        struct mf_error *error) {
    struct mf_array providers = {0};
    add_texts(&providers, worker->providers, worker->provider_count);
    const struct mf_parameter parameters[] = {
        mf_parameter_text(worker->worker_id),  mf_parameter_text(worker->host),
        mf_parameter_text(worker->boot_id),    mf_parameter_text(worker->version),
        mf_array_parameter(&providers),        mf_parameter_integer(worker->slots),
        mf_parameter_integer(worker->devices), mf_parameter_text(worker->details ? worker->details : "{}")};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_WORKER_REGISTER, parameters, MF_COUNT(parameters), NULL, error);
    mf_array_free(&providers);
    return status;
}

enum mf_status mf_store_unregister_worker(struct mf_database *database, const char *worker_id,
                                          struct mf_error *error) {
    const struct mf_parameter id = mf_parameter_text(worker_id);
    return mf_database_query(database, MF_QUERY_WORKER_STOP, &id, 1, NULL, error);
}

enum mf_status mf_store_worker_of_boot(struct mf_database *database, const char *worker_id,
                                       const char *boot_id, bool *same, struct mf_error *error) {
    const struct mf_parameter parameters[] = {mf_parameter_text(worker_id), mf_parameter_text(boot_id)};
    struct pg_result *result = NULL;
    enum mf_status status =
        mf_database_query(database, MF_QUERY_WORKER_OTHER_BOOT, parameters, 2, &result, error);
    if (!status)
        *same = !mf_result_boolean(result, 0, 0);
    mf_result_free(result);
    return status;
}

/* ---- claim ---- */

void mf_claim_free(struct mf_claim *claim) {
    free(claim->tenant);
    free(claim->request_id);
    free(claim->config);
    free(claim->checkpoint_uri);
    *claim = (struct mf_claim){0};
}

struct claiming {
    const char *worker_id;
    const char *const *providers;
    size_t provider_count;
    int32_t devices;
    struct mf_claim *claim;
    bool found;
};

/* The tenant whose turn it is; *rows without a row: nothing is ready. Once without waiting, once with. */
static enum mf_status pick_queue(struct mf_database *database, const struct claiming *claiming,
                                 const char *const *skipped, size_t skipped_count, struct pg_result **rows,
                                 struct mf_error *error) {
    struct mf_array providers = {0}, excluded = {0};
    add_texts(&providers, claiming->providers, claiming->provider_count);
    add_texts(&excluded, skipped, skipped_count);
    const struct mf_parameter parameters[] = {mf_array_parameter(&providers), mf_array_parameter(&excluded)};
    enum mf_status status = mf_database_query(database, MF_QUERY_CLAIM_QUEUE, parameters, 2, rows, error);
    if (!status && !mf_result_rows(*rows)) {
        mf_result_free(*rows);
        status = mf_database_query(database, MF_QUERY_CLAIM_QUEUE_WAIT, parameters, 2, rows, error);
    }
    mf_array_free(&providers);
    mf_array_free(&excluded);
    return status;
}

/* Lease, attempt, counts and audit of the job that claim_job.sql moved. */
static enum mf_status take_lease(struct mf_database *database, const struct claiming *claiming,
                                 const char *queue, const char *tenant, const struct pg_result *job,
                                 struct mf_error *error) {
    struct mf_claim *claim = claiming->claim;
    struct mf_count_changes changes = {0};
    struct pg_result *rows = NULL;
    snprintf(claim->lease.job_id, sizeof claim->lease.job_id, "%s", mf_result_text(job, 0, 0));
    claim->lease.epoch = mf_result_integer(job, 0, 1);
    const struct mf_parameter parameters[] = {mf_parameter_text(claim->lease.job_id),
                                              mf_parameter_integer(claim->lease.epoch),
                                              mf_parameter_text(claiming->worker_id)};
    enum mf_status status = mf_database_query(database, MF_QUERY_CLAIM_LEASE, parameters, 3, &rows, error);
    if (!status && !mf_result_rows(rows))
        status = mf_error_set(error, MF_ERROR_INTERNAL, "job %s has no configuration", claim->lease.job_id);
    if (status)
        goto done;
    snprintf(claim->lease.incarnation, sizeof claim->lease.incarnation, "%s", mf_result_text(rows, 0, 0));
    snprintf(claim->attempt_id, sizeof claim->attempt_id, "%s", mf_result_text(rows, 0, 1));
    claim->attempt = (int32_t)claim->lease.epoch;
    claim->tenant = strdup(tenant);
    claim->request_id = mf_result_copy(job, 0, 2);
    claim->config = mf_result_copy(rows, 0, 2);
    claim->created_at = mf_result_time(job, 0, 3);
    claim->deadline = mf_result_time(job, 0, 4);
    claim->checkpoint_uri = mf_result_copy(rows, 0, 3);
    claim->checkpoint_step = mf_result_integer(rows, 0, 4);
    snprintf(claim->checkpoint_sha256, sizeof claim->checkpoint_sha256, "%s",
             mf_result_null(rows, 0, 5) ? "" : mf_result_text(rows, 0, 5));
    if (!claim->tenant || !claim->request_id || !claim->config ||
        (!claim->checkpoint_uri && !mf_result_null(rows, 0, 3))) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a claim");
        goto done;
    }
    mf_count_changes_add(&changes, queue, tenant, -1, 1);
    status = mf_count_changes_write(database, &changes, error);
    if (!status)
        status = mf_audit_write(database,
                                (struct mf_audit){.job_id = claim->lease.job_id,
                                                  .type = "running",
                                                  .state = mf_job_state_name(MF_JOB_RUNNING),
                                                  .actor = claiming->worker_id,
                                                  .attempt = claim->lease.epoch,
                                                  .step = MF_COUNT_NONE},
                                error);
done:
    mf_count_changes_free(&changes);
    mf_result_free(rows);
    return status;
}

/* The first job of the picked queue that fits; `skipped` gets the queue's key when none does. */
static enum mf_status claim_from(struct mf_database *database, struct claiming *claiming, const char *queue,
                                 const char *tenant, char **skipped, struct mf_error *error) {
    struct pg_result *job = NULL;
    const struct mf_parameter parameters[] = {mf_parameter_text(queue), mf_parameter_text(tenant),
                                              mf_parameter_integer(claiming->devices)};
    enum mf_status status = mf_database_query(database, MF_QUERY_CLAIM_JOB, parameters, 3, &job, error);
    if (!status && mf_result_rows(job)) {
        status = take_lease(database, claiming, queue, tenant, job, error);
        claiming->found = !status;
    } else if (!status) {
        size_t bytes = strlen(queue) + strlen(tenant) + 2;
        *skipped = malloc(bytes);
        if (*skipped)
            snprintf(*skipped, bytes, "%s/%s", queue, tenant);
        else
            status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a claim");
    }
    mf_result_free(job);
    return status;
}

static enum mf_status claim_one(struct mf_database *database, void *context, struct mf_error *error) {
    struct claiming *claiming = context;
    char *skipped[SKIPPED_QUEUES_LIMIT] = {0};
    size_t skipped_count = 0;
    enum mf_status status = MF_OK;
    mf_claim_free(claiming->claim);
    claiming->found = false;
    while (!status && !claiming->found && skipped_count < SKIPPED_QUEUES_LIMIT) {
        struct pg_result *queue = NULL;
        status = pick_queue(database, claiming, (const char *const *)skipped, skipped_count, &queue, error);
        bool any = !status && mf_result_rows(queue) > 0;
        if (any)
            status = claim_from(database, claiming, mf_result_text(queue, 0, 0), mf_result_text(queue, 0, 1),
                                &skipped[skipped_count], error);
        mf_result_free(queue);
        if (!any)
            break;
        skipped_count += skipped[skipped_count] != NULL;
    }
    for (size_t i = 0; i < skipped_count; i++)
        free(skipped[i]);
    return status;
}

enum mf_status mf_store_claim(struct mf_database *database, const char *worker_id,
                              const char *const *providers, size_t provider_count, int32_t devices,
                              size_t limit, struct mf_claim *claims, size_t *count, struct mf_error *error) {
    *count = 0;
    while (*count < limit) {
        claims[*count] = (struct mf_claim){0};
        struct claiming claiming = {.worker_id = worker_id,
                                    .providers = providers,
                                    .provider_count = provider_count,
                                    .devices = devices,
                                    .claim = &claims[*count]};
        enum mf_status status = mf_database_transaction(database, claim_one, &claiming, error);
        if (status || !claiming.found) {
            mf_claim_free(&claims[*count]);
            return status;
        }
        ++*count;
    }
    return MF_OK;
}

/* ---- reaper ---- */

struct reaping {
    const struct mf_reap_options *options;
    struct mf_reap_report *report;
};

static struct mf_unleased read_unleased(const struct pg_result *rows, int row) {
    /* id, state, queue, tenant, is_ready, lease_epoch */
    return (struct mf_unleased){.job_id = mf_result_text(rows, row, 0),
                                .state = mf_job_state_parse(mf_result_text(rows, row, 1)),
                                .queue = mf_result_text(rows, row, 2),
                                .tenant = mf_result_text(rows, row, 3),
                                .ready = mf_result_boolean(rows, row, 4),
                                .epoch = mf_result_integer(rows, row, 5)};
}

static enum mf_status fail_unleased(struct mf_database *database, const struct mf_unleased *job,
                                    const struct mf_error *failure, struct mf_count_changes *changes,
                                    struct mf_error *error) {
    char text[MF_ERROR_TEXT_BYTES + 64];
    return mf_close_unleased(database, job, MF_JOB_FAILED, mf_status_code(failure->status),
                             mf_error_format(failure, text, sizeof text), "reaper", NULL, changes, error);
}

static enum mf_status reap_ready(struct mf_database *database, struct mf_reap_report *report,
                                 struct mf_count_changes *changes, struct mf_error *error) {
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_REAP_READY, NULL, 0, &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows); row++, report->readied++)
        mf_count_changes_add(changes, mf_result_text(rows, row, 0), mf_result_text(rows, row, 1), 1, 0);
    mf_result_free(rows);
    return status;
}

static enum mf_status reap_deadlines(struct mf_database *database, struct mf_reap_report *report,
                                     struct mf_count_changes *changes, struct mf_error *error) {
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_REAP_DEADLINE, NULL, 0, &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows); row++, report->failed_deadline++) {
        struct mf_unleased job = read_unleased(rows, row);
        struct mf_error failure;
        mf_error_set(&failure, MF_ERROR_DEADLINE_EXCEEDED, "the deadline %s passed while the job was %s",
                     mf_result_text(rows, row, 6), mf_job_state_name(job.state));
        status = fail_unleased(database, &job, &failure, changes, error);
    }
    mf_result_free(rows);
    return status;
}

/* Why nobody could take a job: columns 6 ... of reap_grace.sql. */
static void explain_unplaceable(const struct pg_result *rows, int row, const char *provider,
                                struct mf_error *failure) {
    bool offered = !mf_result_null(rows, row, 8);
    const char *valid = mf_result_null(rows, row, 9) ? "none" : mf_result_text(rows, row, 9);
    if (offered)
        mf_error_set(failure, MF_ERROR_PLAN_TOO_LARGE,
                     "the job needs %s devices at once; the live workers of provider '%s' have at most %s",
                     mf_result_text(rows, row, 6), provider, mf_result_text(rows, row, 8));
    else if (!mf_result_null(rows, row, 10)) /* a live worker has it, but cannot run it: its own words */
        mf_error_set(failure, MF_ERROR_PROVIDER_UNAVAILABLE, "%s", mf_result_text(rows, row, 10));
    else if (mf_result_boolean(rows, row, 7))
        mf_error_set(
            failure, MF_ERROR_PROVIDER_UNAVAILABLE,
            "Provider '%s' is offered by no live worker. Providers of the live workers: %s. Start a worker "
            "that offers it, or choose another provider",
            provider, valid);
    else
        mf_error_set(failure, MF_ERROR_UNKNOWN_PROVIDER, "Unknown provider '%s'. Valid providers: %s",
                     provider, valid);
}

static enum mf_status reap_unplaceable(struct mf_database *database, const struct reaping *reaping,
                                       struct mf_count_changes *changes, struct mf_error *error) {
    const struct mf_parameter alive = mf_parameter_integer(reaping->options->worker_alive_s);
    const struct mf_parameter limits[] = {mf_parameter_integer(reaping->options->provider_grace_s), alive};
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_REAP_PLACEABLE, &alive, 1, NULL, error);
    if (!status)
        status = mf_database_query(database, MF_QUERY_REAP_UNPLACEABLE, &alive, 1, NULL, error);
    if (!status)
        status = mf_database_query(database, MF_QUERY_REAP_GRACE, limits, 2, &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows); row++, reaping->report->failed_provider++) {
        struct mf_unleased job = read_unleased(rows, row);
        struct mf_error failure;
        explain_unplaceable(rows, row, job.queue, &failure);
        status = fail_unleased(database, &job, &failure, changes, error);
    }
    mf_result_free(rows);
    return status;
}

static enum mf_status reap_preempt(struct mf_database *database, const struct reaping *reaping,
                                   struct mf_error *error) {
    const struct mf_parameter limits[] = {mf_parameter_integer(reaping->options->worker_alive_s),
                                          mf_parameter_integer(reaping->options->preempt_s)};
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_REAP_PREEMPT, limits, 2, &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows); row++, reaping->report->preempted++)
        status = mf_audit_write(database,
                                (struct mf_audit){.job_id = mf_result_text(rows, row, 0),
                                                  .type = "preempt_requested",
                                                  .state = mf_job_state_name(MF_JOB_RUNNING),
                                                  .actor = "reaper",
                                                  .attempt = mf_result_integer(rows, row, 1),
                                                  .step = MF_COUNT_NONE},
                                error);
    mf_result_free(rows);
    return status;
}

static enum mf_status reap(struct mf_database *database, void *context, struct mf_error *error) {
    struct reaping *reaping = context;
    struct mf_count_changes changes = {0};
    struct pg_result *rows = NULL;
    const struct mf_parameter all_jobs = mf_parameter_null();
    *reaping->report = (struct mf_reap_report){0};
    enum mf_status status = mf_database_query(database, MF_QUERY_REAP_LOCK, NULL, 0, &rows, error);
    bool mine = !status && mf_result_boolean(rows, 0, 0);
    mf_result_free(rows);
    if (!mine)
        return status;
    /* In this order: what is closed must be seen with the ready_at that the earlier steps left. */
    status = reap_ready(database, reaping->report, &changes, error);
    if (!status)
        status = reap_deadlines(database, reaping->report, &changes, error);
    if (!status)
        status = reap_unplaceable(database, reaping, &changes, error);
    if (!status)
        status = reap_preempt(database, reaping, error);
    if (!status)
        status = mf_apply_waiting_commands(database, &all_jobs, &changes, error);
    if (!status)
        status = mf_database_query(database, MF_QUERY_COMMANDS_EXPIRE, NULL, 0, NULL, error);
    if (!status)
        status =
            mf_batches_finish(database, reaping->options->batch_settle_s, &reaping->report->batches, error);
    if (!status)
        status = mf_count_changes_write(database, &changes, error);
    mf_count_changes_free(&changes);
    return status;
}

enum mf_status mf_store_reap(struct mf_database *database, const struct mf_reap_options *options,
                             struct mf_reap_report *report, struct mf_error *error) {
    struct mf_reap_report local;
    struct reaping reaping = {.options = options, .report = report ? report : &local};
    return mf_database_transaction(database, reap, &reaping, error);
}
