#include "worker/job.h"

#include "common/clock.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_JOBS = 128 };

struct mf_job_table {
    pthread_mutex_t lock;
    struct mf_job *job[MAX_JOBS];
    size_t count;
};

enum mf_status mf_job_table_new(struct mf_job_table **table, struct mf_error *error) {
    *table = calloc(1, sizeof **table);
    if (!*table)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the job table");
    pthread_mutex_init(&(*table)->lock, NULL);
    return MF_OK;
}

void mf_job_table_free(struct mf_job_table *table) {
    if (table)
        pthread_mutex_destroy(&table->lock);
    free(table);
}

void mf_job_table_add(struct mf_job_table *table, struct mf_job *job) {
    pthread_mutex_lock(&table->lock);
    if (table->count < MAX_JOBS) /* worker.slots is at most 64 */
        table->job[table->count++] = job;
    mf_counter_set(&job->worker->counters, MF_COUNTER_RUNNING, (int64_t)table->count);
    pthread_mutex_unlock(&table->lock);
}

void mf_job_table_remove(struct mf_job_table *table, struct mf_job *job) {
    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; i < table->count; i++)
        if (table->job[i] == job) {
            table->job[i] = table->job[--table->count];
            break;
        }
    mf_counter_set(&job->worker->counters, MF_COUNTER_RUNNING, (int64_t)table->count);
    pthread_mutex_unlock(&table->lock);
}

size_t mf_job_table_count(struct mf_job_table *table) {
    pthread_mutex_lock(&table->lock);
    size_t count = table->count;
    pthread_mutex_unlock(&table->lock);
    return count;
}

static bool is_of(const struct mf_job *job, const char *job_id, int64_t epoch) {
    return job->claim.lease.epoch == epoch && !strcmp(job->claim.lease.job_id, job_id);
}

bool mf_job_table_has(struct mf_job_table *table, const char *job_id, int64_t epoch) {
    bool found = false;
    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; i < table->count && !found; i++)
        found = is_of(table->job[i], job_id, epoch);
    pthread_mutex_unlock(&table->lock);
    return found;
}

size_t mf_job_table_list(struct mf_job_table *table, struct mf_job **jobs, size_t limit) {
    pthread_mutex_lock(&table->lock);
    size_t count = table->count < limit ? table->count : limit;
    for (size_t i = 0; i < count; i++)
        jobs[i] = table->job[i];
    pthread_mutex_unlock(&table->lock);
    return count;
}

size_t mf_job_table_leases(struct mf_job_table *table, struct mf_lease *leases, size_t limit) {
    pthread_mutex_lock(&table->lock);
    size_t count = table->count < limit ? table->count : limit;
    for (size_t i = 0; i < count; i++)
        leases[i] = table->job[i]->claim.lease;
    pthread_mutex_unlock(&table->lock);
    return count;
}

static void wake(struct mf_job *job) {
    uint64_t one = 1;
    if (write(job->wake_fd, &one, sizeof one) < 0) { /* full: it is awake already */
    }
}

static void stop(struct mf_job *job, enum mf_stop_reason reason) {
    int before = atomic_load(&job->stop);
    while (before < (int)reason && !atomic_compare_exchange_weak(&job->stop, &before, (int)reason)) {
    }
    if (before < (int)reason)
        wake(job);
}

void mf_job_table_stop(struct mf_job_table *table, const struct mf_lease *lease, enum mf_stop_reason reason) {
    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; i < table->count; i++)
        if (is_of(table->job[i], lease->job_id, lease->epoch))
            stop(table->job[i], reason);
    pthread_mutex_unlock(&table->lock);
}

void mf_job_table_stop_all(struct mf_job_table *table, enum mf_stop_reason reason) {
    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; i < table->count; i++)
        stop(table->job[i], reason);
    pthread_mutex_unlock(&table->lock);
}

void mf_job_table_kill_all(struct mf_job_table *table) {
    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; i < table->count; i++) {
        atomic_store(&table->job[i]->kill_now, true);
        wake(table->job[i]);
    }
    pthread_mutex_unlock(&table->lock);
}

void mf_job_log(struct mf_job *job, const char *level, const char *message) {
    struct {
        struct mf_record record;
        char message[MF_PROTOCOL_MAX_TEXT + 1];
    } line = {.record = {.kind = MF_RECORD_LOG}};
    line.record.log.time = mf_clock_realtime_ms();
    (void)stpncpy(line.record.log.level, level, sizeof line.record.log.level - 1);
    size_t length = strnlen(message, MF_PROTOCOL_MAX_TEXT);
    memcpy(line.message, message, length);
    mf_spool_append(job->spool, MF_SPOOL_KEEP, &line, offsetof(__typeof__(line), message) + length + 1);
}
