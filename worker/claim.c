#include "worker/claim.h"

#include "common/clock.h"
#include "common/digest.h"
#include "common/log.h"
#include "sql/store.h"
#include "worker/failpoint.h"
#include "worker/gpus.h"
#include "worker/job.h"
#include "worker/supervisor.h"

#include <stdlib.h>
#include <string.h>

enum {
    SLICE_MS = 100, /* longest wait before times are looked at */
    REAP_MS = 1000,
    PARTITIONS_MS = 3600 * 1000,
    STATEMENT_MS = 20000,
    MAX_CLAIMS = 64,
    BUSY_MS = 20 /* until a worker of this host that chooses GPUs has done so */
};

struct claimer {
    struct mf_worker *worker;
    struct mf_link link;
    uint64_t session; /* in which this thread listens and has compared its leases */
    int64_t next_poll_ms, next_reap_ms, next_partitions_ms;
};

static struct mf_retry_policy retry_policy(const struct mf_worker *worker) {
    return (struct mf_retry_policy){worker->settings->retry_base_ms, worker->settings->retry_limit_ms};
}

/* Gives back what is leased to this worker and has no supervisor here: left by an earlier life of this boot
 * (its trainers died with it), or claimed by a COMMIT whose answer was lost. Leases of another boot are left
 * to observation like those of strangers. */
static enum mf_status compare_leases(struct claimer *claimer, struct mf_error *error) {
    struct mf_worker *worker = claimer->worker;
    const char *worker_id = worker->settings->worker_id;
    struct mf_retry_policy policy = retry_policy(worker);
    struct mf_lease_row *rows = NULL;
    size_t count = 0;
    if (!worker->same_boot)
        return MF_OK;
    enum mf_status status = mf_store_list_leases(claimer->link.database, worker_id, &rows, &count, error);
    for (size_t i = 0; !status && i < count; i++) {
        if (mf_job_table_has(worker->jobs, rows[i].lease.job_id, rows[i].lease.epoch))
            continue;
        mf_log_info("giving back a job that has no trainer here", MF_LOG_TEXT("job_id", rows[i].lease.job_id),
                    MF_LOG_INTEGER("epoch", rows[i].lease.epoch));
        status = mf_store_release(claimer->link.database, worker_id, &rows[i].lease, MF_RELEASE_RESTART,
                                  &policy, error);
        if (status == MF_ERROR_LEASE_LOST) /* ended meanwhile */
            status = MF_OK;
    }
    free(rows);
    return status;
}

static int64_t jittered(int64_t period_ms) {
    return period_ms / 2 + (int64_t)(mf_random_u64() % (uint64_t)(period_ms + 1));
}

/* What a new session needs before it may claim. */
static bool session_ready(struct claimer *claimer) {
    struct mf_error error;
    enum mf_status status;
    if (!mf_link_ready(&claimer->link))
        return false;
    uint64_t session = mf_database_session(claimer->link.database);
    if (session == claimer->session)
        return true;
    if ((status = mf_database_listen(claimer->link.database, MF_CHANNEL_JOBS, &error)) ||
        (status = compare_leases(claimer, &error))) {
        mf_link_note(&claimer->link, status, "comparing leases with trainers", &error);
        return false;
    }
    claimer->session = session;
    claimer->next_poll_ms = 0;
    return true;
}

/* A job that was claimed but cannot be supervised goes back. */
static void give_back(struct claimer *claimer, const struct mf_lease *lease) {
    struct mf_retry_policy policy = retry_policy(claimer->worker);
    struct mf_error error;
    enum mf_status status = mf_store_release(claimer->link.database, claimer->worker->settings->worker_id,
                                             lease, MF_RELEASE_WATCHDOG, &policy, &error);
    mf_link_note(&claimer->link, status, "giving a job back", &error);
}

/* The GPUs of a claimed job, out of what is held; NULL without a status: none. */
static enum mf_status take_gpus(const struct mf_claim *claim, struct mf_gpu_hold *hold,
                                struct mf_gpu_lock **gpus, struct mf_error *error) {
    *gpus = NULL;
    if (!claim->gpu_count)
        return MF_OK;
    if (!(*gpus = calloc(claim->gpu_count, sizeof **gpus)))
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a job's GPUs");
    for (size_t i = 0; i < claim->gpu_count; i++) {
        (*gpus)[i] = hold->gpu[claim->gpu[i]];
        hold->gpu[claim->gpu[i]].fd = -1;
    }
    return MF_OK;
}

static void start(struct claimer *claimer, struct mf_claim *claim, struct mf_gpu_hold *hold) {
    struct mf_worker *worker = claimer->worker;
    const struct mf_lease lease = claim->lease;
    struct mf_gpu_lock *gpus;
    struct mf_error error;
    mf_counter_add(&worker->counters, MF_COUNTER_CLAIMS, 1);
    mf_log_info("claimed a job", MF_LOG_TEXT("job_id", lease.job_id), MF_LOG_INTEGER("epoch", lease.epoch),
                MF_LOG_TEXT("tenant", claim->tenant), MF_LOG_TEXT("request_id", claim->request_id),
                MF_LOG_INTEGER("gpus", (int64_t)claim->gpu_count));
    const size_t gpu_count = claim->gpu_count;
    enum mf_status status = take_gpus(claim, hold, &gpus, &error);
    if (status)
        mf_claim_free(claim);
    else
        status = mf_supervisor_start(worker, claim, gpus, gpu_count, &error);
    if (!status)
        return;
    mf_log_error("a job could not be started", MF_LOG_TEXT("job_id", lease.job_id), MF_LOG_FAILURE(&error));
    give_back(claimer, &lease);
}

static void claim(struct claimer *claimer) {
    struct mf_worker *worker = claimer->worker;
    struct mf_claim claims[MAX_CLAIMS] = {{.attempt = 0}};
    struct mf_gpu_hold hold;
    struct mf_error error;
    int64_t memory[MF_MAX_GPUS];
    size_t used = mf_job_table_count(worker->jobs), slots = (size_t)worker->settings->slots, count = 0;
    if (used >= slots || atomic_load(&worker->draining))
        return;
    mf_gpus_hold(worker->gpus, &hold);
    if (hold.busy) {
        claimer->next_poll_ms = mf_clock_monotonic_ms() + jittered(BUSY_MS);
        return;
    }
    for (size_t i = 0; i < hold.count; i++)
        memory[i] = hold.gpu[i].memory_bytes;
    const struct mf_claim_offer offer = {.worker_id = worker->settings->worker_id,
                                         .providers = worker->providers,
                                         .provider_count = worker->provider_count,
                                         .labels = worker->settings->labels,
                                         .has_gpus = mf_gpus_any(worker->gpus),
                                         .gpu_memory = memory,
                                         .gpu_count = hold.count};
    mf_failpoint("claim.before");
    enum mf_status status =
        mf_store_claim(claimer->link.database, &offer, slots - used, claims, &count, &error);
    if (count)
        mf_failpoint("claim.after");
    mf_link_note(&claimer->link, status, "claiming", &error);
    for (size_t i = 0; i < count; i++)
        start(claimer, &claims[i], &hold);
    mf_gpu_hold_end(&hold);
    if (count) {
        mf_wakeup_raise(&worker->heartbeat_wakeup);
        mf_wakeup_raise(&worker->outbox_wakeup);
    }
}

static void reap(struct claimer *claimer) {
    struct mf_worker *worker = claimer->worker;
    struct mf_reap_options options = {.provider_grace_s = worker->settings->provider_grace_s,
                                      .reserve_s = worker->settings->reserve_s,
                                      .preempt_s = worker->settings->preempt_s,
                                      .batch_settle_s = worker->settings->batch_settle_s};
    struct mf_reap_report report = {0};
    struct mf_error error;
    enum mf_status status = mf_store_reap(claimer->link.database, &options, &report, &error);
    if (mf_link_note(&claimer->link, status, "reaping", &error))
        return;
    mf_counter_add(&worker->counters, MF_COUNTER_READIED, report.readied);
    mf_counter_add(&worker->counters, MF_COUNTER_FAILED_DEADLINE, report.failed_deadline);
    mf_counter_add(&worker->counters, MF_COUNTER_FAILED_PROVIDER, report.failed_provider);
    if (report.readied)
        claimer->next_poll_ms = 0;
    if (report.preempted)
        mf_wakeup_raise(&worker->heartbeat_wakeup); /* one of them may run here */
    if (report.failed_deadline + report.failed_provider + report.preempted + report.batches)
        mf_wakeup_raise(&worker->outbox_wakeup);
}

static void one_turn(struct claimer *claimer) {
    struct mf_error error;
    bool notified = false;
    int64_t now = mf_clock_monotonic_ms();
    if (now >= claimer->next_partitions_ms) {
        enum mf_status status = mf_store_maintain_partitions(claimer->link.database, &error);
        if (mf_link_note(&claimer->link, status, "making partitions", &error))
            return;
        claimer->next_partitions_ms = now + PARTITIONS_MS;
    }
    if (now >= claimer->next_reap_ms) {
        claimer->next_reap_ms = now + jittered(REAP_MS);
        reap(claimer);
    }
    if (!claimer->link.failures && now >= claimer->next_poll_ms) {
        claimer->next_poll_ms = now + jittered(claimer->worker->settings->claim_poll_ms);
        claim(claimer);
    }
    if (claimer->link.failures)
        return;
    int64_t wait_ms = claimer->next_poll_ms - mf_clock_monotonic_ms();
    wait_ms = wait_ms < 0 ? 0 : wait_ms > SLICE_MS ? SLICE_MS : wait_ms;
    if (mf_link_note(&claimer->link,
                     mf_database_wait(claimer->link.database, (int)wait_ms, claimer->worker->claim_wakeup.fd,
                                      &notified, &error),
                     "waiting for jobs", &error))
        return;
    if (mf_wakeup_wait(&claimer->worker->claim_wakeup, 0) || notified)
        claimer->next_poll_ms = 0; /* a slot became free, or a job ready */
}

void *mf_claim_main(void *argument) {
    struct claimer claimer = {.worker = argument};
    mf_link_init(&claimer.link, argument, "modelforge-worker claim", STATEMENT_MS);
    while (!atomic_load(&claimer.worker->stopping)) {
        if (session_ready(&claimer))
            one_turn(&claimer);
        else
            mf_wakeup_wait(&claimer.worker->claim_wakeup, SLICE_MS);
    }
    mf_link_close(&claimer.link);
    return NULL;
}
