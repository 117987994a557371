#include "worker/claim.h"

#include "common/clock.h"
#include "common/log.h"
#include "sql/store.h"
#include "worker/gpus.h"
#include "worker/job.h"
#include "worker/lease_watch.h"

#include <stdlib.h>

enum {
    MAX_LEASES = 128,
    BEATS_A_LEASE = 12, /* more than MF_LEASE_WATCH_POLLS, so that ten polls fit into a lease */
    COUNTS_MS = 5000
};

struct heart {
    struct mf_worker *worker;
    struct mf_link link;
    struct mf_lease_watch *watch;
    int64_t next_counts_ms;
};

static enum mf_status register_worker(struct heart *heart, struct mf_error *error) {
    const struct mf_worker *worker = heart->worker;
    if (atomic_load(&worker->draining))
        return MF_OK;
    int64_t memory[MF_MAX_GPUS];
    size_t working;
    json_t *described = mf_gpus_describe(worker->gpus, memory, &working);
    char *gpus = described ? json_dumps(described, JSON_COMPACT) : NULL;
    json_decref(described);
    struct mf_worker_row row = {.worker_id = worker->settings->worker_id,
                                .host = worker->settings->host,
                                .boot_id = worker->boot_id,
                                .version = MF_VERSION,
                                .providers = worker->providers,
                                .provider_count = worker->settings->slots ? worker->provider_count : 0,
                                .slots = worker->settings->slots,
                                .alive_s = (int32_t)(worker->settings->lease_ms / 1000 + 1),
                                .gpus = gpus,
                                .gpu_memory = memory,
                                .gpu_count = worker->settings->slots ? working : 0,
                                .labels = worker->settings->labels,
                                .details = worker->details};
    enum mf_status status = mf_store_register_worker(heart->link.database, &row, error);
    free(gpus);
    return status;
}

static enum mf_status beat(struct heart *heart, struct mf_error *error) {
    struct mf_worker *worker = heart->worker;
    struct mf_lease leases[MAX_LEASES];
    struct mf_beat beats[MAX_LEASES];
    size_t count = mf_job_table_leases(worker->jobs, leases, MAX_LEASES);
    enum mf_status status = MF_OK;
    if (count)
        status = mf_store_heartbeat(heart->link.database, worker->settings->worker_id, leases, count, beats,
                                    error);
    if (status)
        return status;
    atomic_store(&worker->last_beat_ms, mf_clock_boottime_ms());
    for (size_t i = 0; i < count; i++) {
        if (!beats[i].held) /* a job that just ended has no lease either: then this stops nothing */
            mf_job_table_stop(worker->jobs, &leases[i], MF_STOP_LEASE_LOST);
        else if (beats[i].deadline_passed)
            mf_job_table_stop(worker->jobs, &leases[i], MF_STOP_DEADLINE);
        else if (beats[i].desired == MF_DESIRED_CANCEL)
            mf_job_table_stop(worker->jobs, &leases[i], MF_STOP_CANCEL);
        else if (beats[i].desired == MF_DESIRED_PAUSE)
            mf_job_table_stop(worker->jobs, &leases[i], MF_STOP_PAUSE);
        else if (beats[i].preempted)
            mf_job_table_stop(worker->jobs, &leases[i], MF_STOP_PREEMPT);
    }
    return MF_OK;
}

static enum mf_status rescue(struct heart *heart, struct mf_error *error) {
    struct mf_worker *worker = heart->worker;
    struct mf_retry_policy policy = {worker->settings->retry_base_ms, worker->settings->retry_limit_ms};
    struct mf_lease_row *rows = NULL;
    size_t count = 0;
    int64_t asked_ms = mf_clock_boottime_ms();
    enum mf_status status = mf_store_list_leases(heart->link.database, NULL, &rows, &count, error);
    bool *due = calloc(count + 1, sizeof *due);
    if (!status && due)
        status = mf_lease_watch_poll(heart->watch, mf_database_session(heart->link.database), asked_ms,
                                     mf_clock_boottime_ms(), rows, count, due, error);
    for (size_t i = 0; !status && due && i < count; i++) {
        bool rescued = false;
        if (!due[i] || mf_job_table_has(worker->jobs, rows[i].lease.job_id, rows[i].lease.epoch))
            continue;
        status = mf_store_rescue(heart->link.database, &rows[i], worker->settings->worker_id, &policy,
                                 &rescued, error);
        if (!status && rescued) {
            mf_counter_add(&worker->counters, MF_COUNTER_RESCUES, 1);
            mf_log_warning("rescued a job", MF_LOG_TEXT("job_id", rows[i].lease.job_id),
                           MF_LOG_TEXT("from", rows[i].worker_id),
                           MF_LOG_INTEGER("epoch", rows[i].lease.epoch));
            mf_wakeup_raise(&worker->claim_wakeup);
            mf_wakeup_raise(&worker->outbox_wakeup);
        }
    }
    free(due);
    free(rows);
    return status;
}

/* Gauges that come from the database. */
static enum mf_status read_counts(struct heart *heart, struct mf_error *error) {
    static const enum mf_counter counter[MF_JOB_STATE_COUNT] = {
        [MF_JOB_QUEUED] = MF_COUNTER_JOBS_QUEUED, [MF_JOB_RUNNING] = MF_COUNTER_JOBS_RUNNING,
        [MF_JOB_PAUSED] = MF_COUNTER_JOBS_PAUSED, [MF_JOB_SUCCEEDED] = MF_COUNTER_JOBS_SUCCEEDED,
        [MF_JOB_FAILED] = MF_COUNTER_JOBS_FAILED, [MF_JOB_CANCELLED] = MF_COUNTER_JOBS_CANCELLED};
    int64_t counts[MF_JOB_STATE_COUNT], waiting, parked, now = mf_clock_monotonic_ms();
    if (now < heart->next_counts_ms)
        return MF_OK;
    heart->next_counts_ms = now + COUNTS_MS;
    enum mf_status status = mf_store_job_counts(heart->link.database, counts, error);
    if (!status)
        status = mf_store_outbox_depth(heart->link.database, &waiting, &parked, error);
    if (status)
        return status;
    for (int i = 0; i < MF_JOB_STATE_COUNT; i++)
        mf_counter_set(&heart->worker->counters, counter[i], counts[i]);
    mf_counter_set(&heart->worker->counters, MF_COUNTER_OUTBOX_WAITING, waiting);
    mf_counter_set(&heart->worker->counters, MF_COUNTER_OUTBOX_PARKED, parked);
    return MF_OK;
}

static void stop_when_blind(struct heart *heart) {
    struct mf_worker *worker = heart->worker;
    int64_t away_ms = mf_clock_boottime_ms() - atomic_load(&worker->last_beat_ms);
    /* Where this process itself stood still, the next beat tells whether PostgreSQL can be reached. */
    if (heart->link.failures && away_ms > worker->settings->blind_limit_ms)
        mf_job_table_stop_all(worker->jobs, MF_STOP_BLIND);
}

void *mf_heartbeat_main(void *argument) {
    struct heart heart = {.worker = argument};
    struct mf_worker *worker = heart.worker;
    struct mf_error error;
    int64_t period_ms = worker->settings->lease_ms / BEATS_A_LEASE;
    /* A statement that takes a third of the lease is no beat any more. */
    mf_link_init(&heart.link, worker, "modelforge-worker heartbeat", (int)(worker->settings->lease_ms / 3));
    if (mf_lease_watch_new(worker->settings->lease_ms, worker->settings->lease_ms / 4, &heart.watch, &error))
        abort();
    while (!atomic_load(&worker->stopping)) {
        enum mf_status status = MF_OK;
        if (mf_link_ready(&heart.link)) {
            if ((status = beat(&heart, &error)) || (status = register_worker(&heart, &error)) ||
                (status = rescue(&heart, &error)) || (status = read_counts(&heart, &error)))
                mf_link_note(&heart.link, status, "heartbeat", &error);
        }
        stop_when_blind(&heart);
        int64_t wait_ms = heart.link.failures ? mf_link_delay_ms(&heart.link) : period_ms;
        mf_wakeup_wait(&worker->heartbeat_wakeup, wait_ms < 10 ? 10 : wait_ms);
    }
    if (mf_link_ready(&heart.link))
        (void)mf_store_unregister_worker(heart.link.database, worker->settings->worker_id, &error);
    mf_link_close(&heart.link);
    mf_lease_watch_free(heart.watch);
    return NULL;
}
