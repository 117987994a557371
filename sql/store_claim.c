/* Workers, claims, and the reaper that looks after jobs nobody leases. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sql/store_private.h"

enum { SKIPPED_QUEUES_LIMIT = 256 }; /* queues of a claim whose jobs all need what is not there */

/* ---- workers ---- */

static void add_texts(struct mf_array *array, const char *const *texts, size_t count) {
    for (size_t i = 0; i < count; i++)
        mf_array_text(array, texts[i]);
}

static void add_integers(struct mf_array *array, const int64_t *values, size_t count) {
    for (size_t i = 0; i < count; i++)
        mf_array_integer(array, values[i]);
}

enum mf_status mf_store_register_worker(struct mf_database *database, const struct mf_worker_row *worker,
                                        struct mf_error *error) {
    struct mf_array names = {0}, on_cpu = {0}, on_gpu = {0}, many_gpus = {0}, memory = {0};
    for (size_t i = 0; i < worker->provider_count; i++) {
        const struct mf_worker_provider *provider = &worker->providers[i];
        mf_array_text(&names, provider->name);
        if (provider->on_cpu)
            mf_array_text(&on_cpu, provider->name);
        if (provider->on_gpu)
            mf_array_text(&on_gpu, provider->name);
        if (provider->many_gpus)
            mf_array_text(&many_gpus, provider->name);
    }
    add_integers(&memory, worker->gpu_memory, worker->gpu_count);
    const struct mf_parameter parameters[] = {
        mf_parameter_text(worker->worker_id),
        mf_parameter_text(worker->host),
        mf_parameter_text(worker->boot_id),
        mf_parameter_text(worker->version),
        mf_array_parameter(&names),
        mf_parameter_integer(worker->slots),
        mf_parameter_integer(worker->gpu_count ? (int64_t)worker->gpu_count : 1),
        mf_parameter_text(worker->details ? worker->details : "{}"),
        mf_array_parameter(&on_cpu),
        mf_array_parameter(&on_gpu),
        mf_array_parameter(&many_gpus),
        mf_parameter_text(worker->gpus ? worker->gpus : "[]"),
        mf_array_parameter(&memory),
        mf_parameter_text(worker->labels ? worker->labels : "{}"),
        mf_parameter_integer(worker->alive_s)};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_WORKER_REGISTER, parameters, MF_COUNT(parameters), NULL, error);
    mf_array_free(&names);
    mf_array_free(&on_cpu);
    mf_array_free(&on_gpu);
    mf_array_free(&many_gpus);
    mf_array_free(&memory);
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
    const struct mf_claim_offer *offer;
    const bool *taken; /* by earlier claims: GPUs of the offer */
    struct mf_claim *claim;
    bool found;
};

/* The tenant whose turn it is; *rows without a row: nothing is ready. Once without waiting, once with. */
static enum mf_status pick_queue(struct mf_database *database, const struct claiming *claiming,
                                 const char *const *skipped, size_t skipped_count, struct pg_result **rows,
                                 struct mf_error *error) {
    struct mf_array providers = {0}, excluded = {0};
    for (size_t i = 0; i < claiming->offer->provider_count; i++)
        mf_array_text(&providers, claiming->offer->providers[i].name);
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

/* Of the free GPUs that are large enough the smallest: large ones stay for jobs that need them. */
static enum mf_status take_gpus(const struct claiming *claiming, int64_t wanted, int64_t memory_bytes,
                                struct mf_error *error) {
    const struct mf_claim_offer *offer = claiming->offer;
    struct mf_claim *claim = claiming->claim;
    claim->gpu_count = 0;
    for (size_t i = offer->gpu_count; i-- > 0 && (int64_t)claim->gpu_count < wanted;)
        if (!claiming->taken[i] && offer->gpu_memory[i] >= memory_bytes)
            claim->gpu[claim->gpu_count++] = (uint8_t)i;
    return (int64_t)claim->gpu_count == wanted
               ? MF_OK
               : mf_error_set(error, MF_ERROR_INTERNAL, "job %s was claimed for %lld GPUs, %zu are free",
                              claim->lease.job_id, (long long)wanted, claim->gpu_count);
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
                                              mf_parameter_text(claiming->offer->worker_id)};
    enum mf_status status =
        take_gpus(claiming, mf_result_integer(job, 0, 5), mf_result_integer(job, 0, 6), error);
    if (!status)
        status = mf_database_query(database, MF_QUERY_CLAIM_LEASE, parameters, 3, &rows, error);
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
                                                  .actor = claiming->offer->worker_id,
                                                  .attempt = claim->lease.epoch,
                                                  .step = MF_COUNT_NONE},
                                error);
done:
    mf_count_changes_free(&changes);
    mf_result_free(rows);
    return status;
}

/* The first job of a queue that fits and, with `only`, is this one; claiming->found says whether there is
 * one. `gpus` false: none that takes a GPU. The queue's row is locked. */
static enum mf_status claim_job(struct mf_database *database, struct claiming *claiming, const char *queue,
                                const char *tenant, const char *only, bool gpus, struct mf_error *error) {
    const struct mf_claim_offer *offer = claiming->offer;
    struct pg_result *job = NULL;
    struct mf_array memory = {0};
    struct mf_worker_provider runs = {0};
    for (size_t i = 0; i < offer->provider_count; i++)
        if (!strcmp(offer->providers[i].name, queue))
            runs = offer->providers[i];
    for (size_t i = 0; gpus && i < offer->gpu_count; i++)
        if (!claiming->taken[i])
            mf_array_integer(&memory, offer->gpu_memory[i]);
    const struct mf_parameter parameters[] = {mf_parameter_text(queue),
                                              mf_parameter_text(tenant),
                                              mf_parameter_boolean(runs.on_cpu),
                                              mf_parameter_boolean(runs.on_gpu),
                                              mf_parameter_boolean(runs.many_gpus),
                                              mf_parameter_boolean(offer->has_gpus),
                                              mf_array_parameter(&memory),
                                              mf_parameter_text(offer->labels ? offer->labels : "{}"),
                                              only ? mf_parameter_text(only) : mf_parameter_null()};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_CLAIM_JOB, parameters, MF_COUNT(parameters), &job, error);
    if (!status && mf_result_rows(job)) {
        status = take_lease(database, claiming, queue, tenant, job, error);
        claiming->found = !status;
    }
    mf_result_free(job);
    mf_array_free(&memory);
    return status;
}

static char *queue_key(const char *queue, const char *tenant) {
    size_t bytes = strlen(queue) + strlen(tenant) + 2;
    char *key = malloc(bytes);
    if (key)
        snprintf(key, bytes, "%s/%s", queue, tenant);
    return key;
}

/* The job that this worker is kept free for, when it fits by now. *gpus becomes false while it waits: nobody
 * else takes a GPU of this host meanwhile. */
static enum mf_status claim_reserved(struct mf_database *database, struct claiming *claiming, bool *gpus,
                                     struct mf_error *error) {
    struct pg_result *rows = NULL;
    const struct mf_parameter worker = mf_parameter_text(claiming->offer->worker_id);
    enum mf_status status = mf_database_query(database, MF_QUERY_CLAIM_RESERVED, &worker, 1, &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows) && !claiming->found; row++) {
        *gpus = false;
        if (mf_result_boolean(rows, row, 3) && mf_result_boolean(rows, row, 4))
            status = claim_job(database, claiming, mf_result_text(rows, row, 0), mf_result_text(rows, row, 1),
                               mf_result_text(rows, row, 2), true, error);
    }
    mf_result_free(rows);
    return status;
}

static enum mf_status claim_one(struct mf_database *database, void *context, struct mf_error *error) {
    struct claiming *claiming = context;
    char *skipped[SKIPPED_QUEUES_LIMIT] = {0};
    size_t skipped_count = 0;
    enum mf_status status = MF_OK;
    bool gpus = true;
    mf_claim_free(claiming->claim);
    claiming->found = false;
    if (claiming->offer->has_gpus)
        status = claim_reserved(database, claiming, &gpus, error);
    while (!status && !claiming->found && skipped_count < SKIPPED_QUEUES_LIMIT) {
        struct pg_result *queue = NULL;
        status = pick_queue(database, claiming, (const char *const *)skipped, skipped_count, &queue, error);
        bool any = !status && mf_result_rows(queue) > 0;
        if (any) {
            const char *name = mf_result_text(queue, 0, 0), *tenant = mf_result_text(queue, 0, 1);
            status = claim_job(database, claiming, name, tenant, NULL, gpus, error);
            if (!status && !claiming->found && !(skipped[skipped_count++] = queue_key(name, tenant)))
                status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a claim");
        }
        mf_result_free(queue);
        if (!any)
            break;
    }
    for (size_t i = 0; i < skipped_count; i++)
        free(skipped[i]);
    return status;
}

enum mf_status mf_store_claim(struct mf_database *database, const struct mf_claim_offer *offer, size_t limit,
                              struct mf_claim *claims, size_t *count, struct mf_error *error) {
    bool taken[MF_MAX_GPUS] = {false};
    *count = 0;
    while (*count < limit) {
        struct mf_claim *claim = &claims[*count];
        *claim = (struct mf_claim){0};
        struct claiming claiming = {.offer = offer, .taken = taken, .claim = claim};
        enum mf_status status = mf_database_transaction(database, claim_one, &claiming, error);
        if (status || !claiming.found) {
            mf_claim_free(claim);
            return status;
        }
        for (size_t i = 0; i < claim->gpu_count; i++)
            taken[claim->gpu[i]] = true;
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
    const char *valid = mf_result_null(rows, row, 9) ? "none" : mf_result_text(rows, row, 9);
    if (mf_result_boolean(rows, row, 7))
        mf_error_set(failure, MF_ERROR_UNPLACEABLE, "%s. What the live workers of this provider have: %s",
                     mf_result_text(rows, row, 6),
                     mf_result_null(rows, row, 10) ? "nothing" : mf_result_text(rows, row, 10));
    else if (!mf_result_null(rows, row, 11)) /* a live worker has it, but cannot run it: its own words */
        mf_error_set(failure, MF_ERROR_PROVIDER_UNAVAILABLE, "%s", mf_result_text(rows, row, 11));
    else if (mf_result_boolean(rows, row, 8))
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
    const struct mf_parameter grace = mf_parameter_integer(reaping->options->provider_grace_s);
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_REAP_PLACEABLE, NULL, 0, NULL, error);
    if (!status)
        status = mf_database_query(database, MF_QUERY_REAP_UNPLACEABLE, NULL, 0, NULL, error);
    if (!status)
        status = mf_database_query(database, MF_QUERY_REAP_GRACE, &grace, 1, &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows); row++, reaping->report->failed_provider++) {
        struct mf_unleased job = read_unleased(rows, row);
        struct mf_error failure;
        explain_unplaceable(rows, row, job.queue, &failure);
        status = fail_unleased(database, &job, &failure, changes, error);
    }
    mf_result_free(rows);
    return status;
}

static enum mf_status reap_reserve(struct mf_database *database, const struct reaping *reaping,
                                   struct mf_error *error) {
    const struct mf_parameter reserve = mf_parameter_integer(reaping->options->reserve_s);
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_REAP_UNRESERVE, NULL, 0, NULL, error);
    if (!status)
        status = mf_database_query(database, MF_QUERY_REAP_RESERVE, &reserve, 1, &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows); row++, reaping->report->reserved++)
        status = mf_audit_write(
            database,
            (struct mf_audit){.job_id = mf_result_text(rows, row, 0),
                              .type = "reserved",
                              .state = mf_job_state_name(MF_JOB_QUEUED),
                              .actor = "reaper",
                              .attempt = mf_result_integer(rows, row, 1),
                              .step = MF_COUNT_NONE,
                              .detail = json_pack("{s:s}", "worker", mf_result_text(rows, row, 2))},
            error);
    mf_result_free(rows);
    return status;
}

static enum mf_status reap_preempt(struct mf_database *database, const struct reaping *reaping,
                                   struct mf_error *error) {
    const struct mf_parameter wait = mf_parameter_integer(reaping->options->preempt_s);
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_REAP_PREEMPT, &wait, 1, &rows, error);
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
        status = reap_reserve(database, reaping, error);
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
