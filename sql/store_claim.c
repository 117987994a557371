/* Workers, claims, and the reaper that looks after jobs nobody leases. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sql/store_private.h"

enum { COUNTS_IDLE_S = 10 }; /* rows of queue_counts that were not used for so long are added up */

/* ---- workers ---- */

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
    struct mf_claim *claims;
    size_t limit, count;
    bool waiting; /* for other claims of a tenant that has a cap */
    bool busy;    /* nothing was found, but such a claim was under way */
};

/* Of the free GPUs that are large enough the smallest: large ones stay for jobs that need them. */
static enum mf_status take_gpus(const struct claiming *claiming, struct mf_claim *claim, int64_t wanted,
                                int64_t memory_bytes, struct mf_error *error) {
    const struct mf_claim_offer *offer = claiming->offer;
    claim->gpu_count = 0;
    for (size_t i = offer->gpu_count; i-- > 0 && (int64_t)claim->gpu_count < wanted;)
        if (!claiming->taken[i] && offer->gpu_memory[i] >= memory_bytes)
            claim->gpu[claim->gpu_count++] = (uint8_t)i;
    return (int64_t)claim->gpu_count == wanted
               ? MF_OK
               : mf_error_set(error, MF_ERROR_INTERNAL, "job %s was claimed for %lld GPUs, %zu are free",
                              claim->lease.job_id, (long long)wanted, claim->gpu_count);
}

/* A row of claim_jobs.sql. */
static enum mf_status read_claim(const struct claiming *claiming, const struct pg_result *rows, int row,
                                 struct mf_claim *claim, struct mf_error *error) {
    enum {
        JOB_ID,
        EPOCH,
        TENANT,
        REQUEST_ID,
        CREATED_AT,
        DEADLINE,
        GPUS,
        GPU_MEMORY,
        INCARNATION,
        ATTEMPT_ID,
        CONFIG,
        CHECKPOINT_URI,
        CHECKPOINT_STEP,
        CHECKPOINT_SHA256
    };
    struct mf_lease *lease = &claim->lease;
    snprintf(lease->job_id, sizeof lease->job_id, "%s", mf_result_text(rows, row, JOB_ID));
    snprintf(lease->incarnation, sizeof lease->incarnation, "%s", mf_result_text(rows, row, INCARNATION));
    snprintf(claim->attempt_id, sizeof claim->attempt_id, "%s", mf_result_text(rows, row, ATTEMPT_ID));
    lease->epoch = mf_result_integer(rows, row, EPOCH);
    claim->attempt = (int32_t)lease->epoch;
    if (mf_result_null(rows, row, CONFIG))
        return mf_error_set(error, MF_ERROR_INTERNAL, "job %s has no configuration", lease->job_id);
    claim->tenant = mf_result_copy(rows, row, TENANT);
    claim->request_id = mf_result_copy(rows, row, REQUEST_ID);
    claim->config = mf_result_copy(rows, row, CONFIG);
    claim->created_at = mf_result_time(rows, row, CREATED_AT);
    claim->deadline = mf_result_time(rows, row, DEADLINE);
    claim->checkpoint_uri = mf_result_copy(rows, row, CHECKPOINT_URI);
    claim->checkpoint_step = mf_result_integer(rows, row, CHECKPOINT_STEP);
    snprintf(claim->checkpoint_sha256, sizeof claim->checkpoint_sha256, "%s",
             mf_result_text(rows, row, CHECKPOINT_SHA256));
    if (!claim->tenant || !claim->request_id || !claim->config ||
        (!claim->checkpoint_uri && !mf_result_null(rows, row, CHECKPOINT_URI)))
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a claim");
    return take_gpus(claiming, claim, mf_result_integer(rows, row, GPUS),
                     mf_result_integer(rows, row, GPU_MEMORY), error);
}

static void forget_claims(struct claiming *claiming) {
    for (size_t i = 0; i < claiming->count; i++)
        mf_claim_free(&claiming->claims[i]);
    claiming->count = 0;
}

/* The next jobs that fit or, with `only`, this one. `gpus` false: none that takes a GPU. */
static enum mf_status claim_jobs(struct mf_database *database, struct claiming *claiming, const char *only,
                                 bool gpus, struct mf_error *error) {
    const struct mf_claim_offer *offer = claiming->offer;
    struct mf_array names = {0}, on_cpu = {0}, on_gpu = {0}, many_gpus = {0}, memory = {0};
    struct pg_result *rows = NULL;
    for (size_t i = 0; i < offer->provider_count; i++) {
        mf_array_text(&names, offer->providers[i].name);
        mf_array_boolean(&on_cpu, offer->providers[i].on_cpu);
        mf_array_boolean(&on_gpu, offer->providers[i].on_gpu);
        mf_array_boolean(&many_gpus, offer->providers[i].many_gpus);
    }
    for (size_t i = 0; gpus && i < offer->gpu_count; i++)
        if (!claiming->taken[i])
            mf_array_integer(&memory, offer->gpu_memory[i]);
    const struct mf_parameter parameters[] = {mf_parameter_text(offer->worker_id),
                                              mf_parameter_integer((int64_t)claiming->limit),
                                              mf_array_parameter(&names),
                                              mf_array_parameter(&on_cpu),
                                              mf_array_parameter(&on_gpu),
                                              mf_array_parameter(&many_gpus),
                                              mf_parameter_boolean(offer->has_gpus),
                                              mf_array_parameter(&memory),
                                              mf_parameter_text(offer->labels ? offer->labels : "{}"),
                                              mf_parameter_text(only),
                                              mf_parameter_boolean(claiming->waiting)};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_CLAIM_JOBS, parameters, MF_COUNT(parameters), &rows, error);
    claiming->busy = !status && mf_result_rows(rows) == 1 && mf_result_null(rows, 0, 0);
    for (int row = 0; !status && !claiming->busy && row < mf_result_rows(rows); row++) {
        struct mf_claim *claim = &claiming->claims[claiming->count++];
        *claim = (struct mf_claim){0};
        status = read_claim(claiming, rows, row, claim, error);
    }
    mf_result_free(rows);
    mf_array_free(&names);
    mf_array_free(&on_cpu);
    mf_array_free(&on_gpu);
    mf_array_free(&many_gpus);
    mf_array_free(&memory);
    return status;
}

/* The job that this worker is kept free for, when it fits by now. *gpus becomes false while it waits: nobody
 * else takes a GPU of this host meanwhile. */
static enum mf_status claim_reserved(struct mf_database *database, struct claiming *claiming, bool *gpus,
                                     struct mf_error *error) {
    struct pg_result *rows = NULL;
    const struct mf_parameter worker = mf_parameter_text(claiming->offer->worker_id);
    enum mf_status status = mf_database_query(database, MF_QUERY_CLAIM_RESERVED, &worker, 1, &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows) && !claiming->count; row++) {
        *gpus = false;
        if (mf_result_boolean(rows, row, 1) && mf_result_boolean(rows, row, 2))
            status = claim_jobs(database, claiming, mf_result_text(rows, row, 0), true, error);
    }
    mf_result_free(rows);
    return status;
}

static enum mf_status claim(struct mf_database *database, void *context, struct mf_error *error) {
    struct claiming *claiming = context;
    enum mf_status status = MF_OK;
    bool gpus = true;
    forget_claims(claiming);
    if (claiming->offer->has_gpus)
        status = claim_reserved(database, claiming, &gpus, error);
    if (!status && !claiming->count)
        status = claim_jobs(database, claiming, NULL, gpus, error);
    return status;
}

/* One transaction, and a second one where the first could not tell whether there is something. */
static enum mf_status claim_some(struct mf_database *database, struct claiming *claiming,
                                 struct mf_error *error) {
    enum mf_status status = mf_database_transaction(database, claim, claiming, error);
    while (!status && claiming->busy) {
        claiming->waiting = true;
        status = mf_database_transaction(database, claim, claiming, error);
    }
    if (status)
        forget_claims(claiming);
    return status;
}

enum mf_status mf_store_claim(struct mf_database *database, const struct mf_claim_offer *offer, size_t limit,
                              struct mf_claim *claims, size_t *count, struct mf_error *error) {
    bool taken[MF_MAX_GPUS] = {false};
    enum mf_status status = MF_OK;
    *count = 0;
    while (*count < limit) {
        /* What a job takes of the GPUs decides what fits next. */
        struct claiming claiming = {.offer = offer,
                                    .taken = taken,
                                    .claims = claims + *count,
                                    .limit = offer->has_gpus ? 1 : limit - *count};
        status = claim_some(database, &claiming, error);
        *count += claiming.count;
        if (status || !claiming.count || !offer->has_gpus)
            break;
        for (size_t i = 0; i < claiming.claims->gpu_count; i++)
            taken[claiming.claims->gpu[i]] = true;
    }
    return status;
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
    const struct mf_parameter all_jobs = mf_parameter_null(), idle = mf_parameter_integer(COUNTS_IDLE_S);
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
    if (!status)
        status = mf_database_query(database, MF_QUERY_REAP_COUNTS, &idle, 1, NULL, error);
    mf_count_changes_free(&changes);
    return status;
}

enum mf_status mf_store_reap(struct mf_database *database, const struct mf_reap_options *options,
                             struct mf_reap_report *report, struct mf_error *error) {
    struct mf_reap_report local;
    struct reaping reaping = {.options = options, .report = report ? report : &local};
    return mf_database_transaction(database, reap, &reaping, error);
}
