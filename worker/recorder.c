#include "worker/recorder.h"

#include "common/log.h"
#include "worker/failpoint.h"
#include "worker/job.h"
#include "worker/supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PERIOD_MS = 200,
    BATCH_RECORDS = 512,
    MAX_JOBS = 128,
    BATCHES_A_TURN = 64 /* of one job, before the others have their turn */
};

/* One batch, unpacked from the spool. */
struct batch {
    struct mf_step_metric step[BATCH_RECORDS];
    struct mf_eval_metric eval[BATCH_RECORDS];
    struct mf_log_line log[BATCH_RECORDS];
    char *text[BATCH_RECORDS]; /* of the log lines, level and message */
    size_t steps, evals, logs;
};

struct recorder {
    struct mf_worker *worker;
    struct mf_link link;
    struct batch batch;
    struct mf_job *ending[MAX_JOBS]; /* all but their ends is written: those are written together */
    size_t ending_count;
};

static void unpack(void *context, const void *bytes, size_t length) {
    struct batch *batch = context;
    struct mf_record record;
    memcpy(&record, bytes, sizeof record);
    if (record.kind == MF_RECORD_STEP) {
        batch->step[batch->steps++] = record.step;
    } else if (record.kind == MF_RECORD_EVAL) {
        batch->eval[batch->evals++] = record.eval;
    } else {
        size_t level = strlen(record.log.level) + 1;
        char *text = malloc(level + (length - sizeof record));
        if (!text)
            return; /* a log line is detail */
        memcpy(text, record.log.level, level);
        memcpy(text + level, (const char *)bytes + sizeof record, length - sizeof record);
        batch->text[batch->logs] = text;
        batch->log[batch->logs++] = (struct mf_log_line){record.log.time, text, text + level};
    }
}

static void clear(struct batch *batch) {
    for (size_t i = 0; i < batch->logs; i++)
        free(batch->text[i]);
    batch->steps = batch->evals = batch->logs = 0;
}

static const char *worker_id(const struct recorder *recorder) {
    return recorder->worker->settings->worker_id;
}

/* What PostgreSQL refuses for its values and the job can do without must not hold the job up. */
static enum mf_status let_go(struct mf_job *job, const char *what, const struct mf_error *error) {
    char text[MF_ERROR_TEXT_BYTES];
    snprintf(text, sizeof text, "%s could not be stored: %.400s", what, error->message);
    mf_log_warning(text, MF_LOG_TEXT("job_id", job->claim.lease.job_id), MF_LOG_FAILURE(error));
    mf_job_log(job, "warning", text);
    return MF_OK;
}

/* Writes details once they changed. */
static enum mf_status write_details(struct recorder *recorder, struct mf_job *job, struct mf_error *error) {
    enum { TEXTS = 6 };
    pthread_mutex_lock(&job->lock);
    bool changed = job->details_changed;
    struct mf_attempt_details details = job->details;
    char *texts[TEXTS] = {NULL};
    if (changed) {
        const char *const from[TEXTS] = {job->device,         job->gpu_uuids,
                                         job->versions,       job->numeric_plan_sha256,
                                         job->dataset_sha256, job->base_revision};
        for (int i = 0; i < TEXTS; i++)
            texts[i] = from[i] ? strdup(from[i]) : NULL;
        job->details_changed = false;
    }
    pthread_mutex_unlock(&job->lock);
    if (!changed)
        return MF_OK;
    details.device = texts[0];
    details.gpu_uuids = texts[1];
    details.versions = texts[2];
    details.numeric_plan_sha256 = texts[3];
    details.dataset_sha256 = texts[4];
    details.base_revision = texts[5];
    enum mf_status status = mf_store_update_attempt(recorder->link.database, worker_id(recorder),
                                                    &job->claim.lease, &details, error);
    for (int i = 0; i < TEXTS; i++)
        free(texts[i]);
    if (status == MF_ERROR_UNSTORABLE) /* the same values would be refused for ever */
        return let_go(job, "what is known of the attempt", error);
    if (status) {
        pthread_mutex_lock(&job->lock);
        job->details_changed = true;
        pthread_mutex_unlock(&job->lock);
    }
    return status;
}

/* Sends one batch; *more says whether the spool may hold further records. A batch that fails is built again
 * from the same records, which stay in the spool, so a repeat carries the same number and the same rows. */
static enum mf_status write_batch(struct recorder *recorder, struct mf_job *job, bool *more,
                                  struct mf_error *error) {
    struct batch *batch = &recorder->batch;
    int64_t dropped = mf_spool_take_dropped(job->spool);
    if (dropped) {
        char marker[160];
        snprintf(marker, sizeof marker, "%lld metric records were dropped: PostgreSQL was away for too long",
                 (long long)dropped);
        mf_job_log(job, "warning", marker);
        mf_counter_add(&recorder->worker->counters, MF_COUNTER_SPOOL_DROPPED, dropped);
    }
    size_t records =
        mf_spool_peek(job->spool, job->batch_open ? job->batch_records : BATCH_RECORDS, unpack, batch);
    *more = records == BATCH_RECORDS || job->batch_open;
    pthread_mutex_lock(&job->lock);
    bool phase_changed = job->phase_changed;
    enum mf_phase phase = job->phase;
    double fraction = job->fraction;
    job->phase_changed = false;
    pthread_mutex_unlock(&job->lock);
    if (!records && !phase_changed && !job->batch_open)
        return MF_OK;
    job->batch_open = true;
    job->batch_records = records;
    struct mf_metrics_batch rows = {.number = job->batch_number + 1,
                                    .steps = batch->step,
                                    .step_count = batch->steps,
                                    .evals = batch->eval,
                                    .eval_count = batch->evals,
                                    .logs = batch->log,
                                    .log_count = batch->logs,
                                    .phase = phase_changed ? mf_phase_name(phase) : NULL,
                                    .fraction = fraction};
    bool repeat = false;
    mf_failpoint("recorder.before_metrics");
    enum mf_status status = mf_store_write_metrics(recorder->link.database, worker_id(recorder),
                                                   &job->claim.lease, &rows, &repeat, error);
    mf_failpoint("recorder.after_metrics");
    if (!status) {
        job->batch_number++;
        job->batch_open = false;
        mf_spool_remove(job->spool, records);
        mf_counter_add(&recorder->worker->counters, MF_COUNTER_METRIC_ROWS, (int64_t)records);
    } else if (status ==
               MF_ERROR_UNSTORABLE) { /* detail that PostgreSQL cannot hold must not hold the job up */
        mf_log_warning("metrics were refused", MF_LOG_TEXT("job_id", job->claim.lease.job_id),
                       MF_LOG_FAILURE(error));
        job->batch_open = false;
        mf_spool_remove(job->spool, records);
        mf_counter_add(&recorder->worker->counters, MF_COUNTER_SPOOL_DROPPED, (int64_t)records);
        status = MF_OK;
    } else if (phase_changed) {
        pthread_mutex_lock(&job->lock);
        job->phase_changed = true;
        pthread_mutex_unlock(&job->lock);
    }
    clear(batch);
    return status;
}

/* Moves the pointer to the checkpoint that waits, if there is one. */
static enum mf_status write_checkpoint(struct recorder *recorder, struct mf_job *job,
                                       struct mf_error *error) {
    pthread_mutex_lock(&job->lock);
    struct mf_job_checkpoint checkpoint = job->checkpoint;
    job->checkpoint = (struct mf_job_checkpoint){0};
    pthread_mutex_unlock(&job->lock);
    if (!checkpoint.stored.uri)
        return MF_OK;
    struct mf_stored_object row = {.uri = checkpoint.stored.uri,
                                   .size_bytes = checkpoint.stored.size_bytes,
                                   .sha256 = checkpoint.stored.sha256,
                                   .step = checkpoint.step};
    mf_failpoint("recorder.before_checkpoint");
    enum mf_status status = mf_store_record_checkpoint(recorder->link.database, worker_id(recorder),
                                                       &job->claim.lease, &row, error);
    if (status == MF_ERROR_UNSTORABLE) {
        status = let_go(job, "a checkpoint", error);
    } else if (status) {
        pthread_mutex_lock(&job->lock);
        if (!job->checkpoint.stored.uri) { /* else a newer one came meanwhile */
            job->checkpoint = checkpoint;
            checkpoint.stored.uri = NULL;
        }
        pthread_mutex_unlock(&job->lock);
    } else if (job->limits_checkpoints) {
        atomic_store(&recorder->worker->collect_checkpoints, true);
        mf_wakeup_raise(&recorder->worker->collector_wakeup);
    }
    mf_stored_artifact_free(&checkpoint.stored);
    return status;
}

static void count_end(struct mf_worker *worker, const struct mf_job *job, enum mf_job_state state) {
    enum mf_counter counter = job->end.kind == MF_END_ABANDON   ? MF_COUNTER_FINISHED_LOST
                              : job->end.kind == MF_END_RELEASE ? MF_COUNTER_FINISHED_RELEASED
                              : state == MF_JOB_SUCCEEDED       ? MF_COUNTER_FINISHED_SUCCEEDED
                              : state == MF_JOB_CANCELLED       ? MF_COUNTER_FINISHED_CANCELLED
                              : state == MF_JOB_FAILED          ? MF_COUNTER_FINISHED_FAILED
                                                                : MF_COUNTER_FINISHED_REQUEUED;
    mf_counter_add(&worker->counters, counter, 1);
    mf_log_info("an attempt ended", MF_LOG_TEXT("job_id", job->claim.lease.job_id),
                MF_LOG_INTEGER("epoch", job->claim.lease.epoch),
                MF_LOG_TEXT("end", job->end.kind == MF_END_ABANDON   ? "lease lost"
                                   : job->end.kind == MF_END_RELEASE ? "released"
                                                                     : mf_job_state_name(state)),
                MF_LOG_FAILURE(&job->end.error));
}

static struct mf_retry_policy retry_policy(const struct recorder *recorder) {
    const struct mf_settings *settings = recorder->worker->settings;
    return (struct mf_retry_policy){settings->retry_base_ms, settings->retry_limit_ms};
}

static enum mf_status write_artifacts(struct recorder *recorder, struct mf_job *job, struct mf_error *error) {
    for (; job->artifacts_stored < job->artifact_count; job->artifacts_stored++) {
        const struct mf_job_artifact *artifact = &job->artifact[job->artifacts_stored];
        struct mf_stored_object row = {.kind = artifact->kind,
                                       .uri = artifact->stored.uri,
                                       .size_bytes = artifact->stored.size_bytes,
                                       .sha256 = artifact->stored.sha256};
        enum mf_status status = mf_store_record_artifact(recorder->link.database, worker_id(recorder),
                                                         &job->claim.lease, &row, error);
        if (status)
            return status;
    }
    return MF_OK;
}

/* An end that PostgreSQL refuses would be written again for ever and the job would never end: it fails, with
 * what can be stored. The artifacts stay in the storage, without a row. */
static void fail_unstorable(struct mf_job *job, const struct mf_error *refusal) {
    struct mf_job_end *end = &job->end;
    mf_log_error("an end could not be stored", MF_LOG_TEXT("job_id", job->claim.lease.job_id),
                 MF_LOG_FAILURE(refusal));
    enum mf_status status = end->outcome == MF_OUTCOME_FAILED ? end->error.status : MF_ERROR_UNSTORABLE;
    mf_error_set(&end->error, status, "%s",
                 end->outcome == MF_OUTCOME_FAILED ? "the message of this error could not be stored"
                                                   : "PostgreSQL refuses what this attempt ended with");
    end->outcome = MF_OUTCOME_FAILED;
    *end->trainer_code = 0;
    job->artifacts_stored = job->artifact_count;
}

static void forget(struct recorder *recorder, struct mf_job *job, enum mf_job_state state) {
    count_end(recorder->worker, job, state);
    mf_job_table_remove(recorder->worker->jobs, job);
    mf_wakeup_raise(&recorder->worker->claim_wakeup);
    mf_supervisor_free(job); /* removes its files, too: the next job need not wait for that */
    mf_wakeup_raise(&recorder->worker->outbox_wakeup);
}

/* The last of a job: what is released is over with, what has finished waits for write_ends(). */
static enum mf_status write_last(struct recorder *recorder, struct mf_job *job, struct mf_error *error) {
    if (job->end.kind == MF_END_RELEASE) {
        const struct mf_retry_policy policy = retry_policy(recorder);
        enum mf_status status = mf_store_release(recorder->link.database, worker_id(recorder),
                                                 &job->claim.lease, job->end.release, &policy, error);
        if (!status)
            forget(recorder, job, MF_JOB_STATE_COUNT);
        return status;
    }
    enum mf_status status = write_artifacts(recorder, job, error);
    if (status == MF_ERROR_UNSTORABLE) {
        fail_unstorable(job, error);
        status = MF_OK;
    }
    if (!status)
        recorder->ending[recorder->ending_count++] = job;
    return status;
}

static enum mf_status write_job(struct recorder *recorder, struct mf_job *job, struct mf_error *error) {
    bool ended = atomic_load(&job->ended); /* before the spool is read: nothing is added to it afterwards */
    bool more = true;
    enum mf_status status = write_details(recorder, job, error);
    for (int i = 0; !status && more && (ended || i < BATCHES_A_TURN); i++)
        status = write_batch(recorder, job, &more, error);
    if (!status)
        status = write_checkpoint(recorder, job, error);
    return status || !ended ? status : write_last(recorder, job, error);
}

/* What a failure means for the job; false when the connection is broken and the turn is over. */
static bool go_on(struct recorder *recorder, struct mf_job *job, enum mf_status status,
                  struct mf_error *error) {
    if (!status)
        return true;
    if (status == MF_ERROR_LEASE_LOST) {
        if (atomic_load(&job->ended)) {
            job->end.kind = MF_END_ABANDON;
            forget(recorder, job, MF_JOB_STATE_COUNT);
        } else {
            mf_job_table_stop(recorder->worker->jobs, &job->claim.lease, MF_STOP_LEASE_LOST);
        }
        return true;
    }
    mf_link_note(&recorder->link, status, "recording a job", error);
    return recorder->link.failures == 0;
}

static struct mf_ending ending_of(const struct mf_job *job) {
    const struct mf_job_end *end = &job->end;
    return (struct mf_ending){
        .lease = &job->claim.lease,
        .finish = {.outcome = end->outcome,
                   .result = end->result,
                   .error_status = end->error.status,
                   .error_message = end->outcome == MF_OUTCOME_FAILED ? end->error.message : NULL,
                   .trainer_code = *end->trainer_code ? end->trainer_code : NULL}};
}

/* The ends of some jobs, in one transaction. One that PostgreSQL refuses is found by writing each alone.
 * False when the connection is broken. */
static bool write_some_ends(struct recorder *recorder, struct mf_job *const *jobs, size_t count) {
    const struct mf_retry_policy policy = retry_policy(recorder);
    struct mf_ending endings[MAX_JOBS];
    struct mf_error error = {0};
    for (size_t i = 0; i < count; i++)
        endings[i] = ending_of(jobs[i]);
    mf_failpoint("recorder.before_finish");
    enum mf_status status =
        mf_store_finish_all(recorder->link.database, worker_id(recorder), endings, count, &policy, &error);
    if (!status)
        mf_failpoint("recorder.after_finish");
    if ((status == MF_ERROR_UNSTORABLE || status == MF_ERROR_INTERNAL) && count > 1) {
        bool fine = true;
        for (size_t i = 0; fine && i < count; i++)
            fine = write_some_ends(recorder, &jobs[i], 1);
        return fine;
    }
    if (status == MF_ERROR_UNSTORABLE) {
        fail_unstorable(jobs[0], &error);
        endings[0] = ending_of(jobs[0]);
        status =
            mf_store_finish_all(recorder->link.database, worker_id(recorder), endings, 1, &policy, &error);
    }
    if (status)
        return go_on(recorder, jobs[0], status, &error);
    for (size_t i = 0; i < count; i++) {
        if (endings[i].status)
            jobs[i]->end.kind = MF_END_ABANDON;
        forget(recorder, jobs[i], endings[i].status ? MF_JOB_STATE_COUNT : endings[i].state);
    }
    return true;
}

static bool write_ends(struct recorder *recorder) {
    size_t count = recorder->ending_count;
    recorder->ending_count = 0;
    return !count || write_some_ends(recorder, recorder->ending, count);
}

static void one_turn(struct recorder *recorder) {
    struct mf_job *jobs[MAX_JOBS];
    size_t count = mf_job_table_list(recorder->worker->jobs, jobs, MAX_JOBS);
    int64_t waiting = 0;
    for (size_t i = 0; i < count; i++)
        waiting += (int64_t)mf_spool_depth(jobs[i]->spool);
    mf_counter_set(&recorder->worker->counters, MF_COUNTER_SPOOL_RECORDS, waiting);
    recorder->ending_count = 0; /* what the last turn could not write is in this one again */
    for (size_t i = 0; i < count; i++) {
        struct mf_error error = {0};
        if (atomic_load(&jobs[i]->ended) && jobs[i]->end.kind == MF_END_ABANDON) {
            forget(recorder, jobs[i], MF_JOB_STATE_COUNT);
            continue;
        }
        if (!mf_link_ready(&recorder->link))
            return;
        if (mf_spool_depth(jobs[i]->spool) > BATCH_RECORDS && !write_ends(recorder))
            return; /* ends do not wait for a job that has much to write */
        enum mf_status status = write_job(recorder, jobs[i], &error);
        if (!go_on(recorder, jobs[i], status, &error))
            return;
    }
    (void)write_ends(recorder);
}

void *mf_recorder_main(void *argument) {
    struct mf_worker *worker = argument;
    struct recorder *recorder = calloc(1, sizeof *recorder);
    if (!recorder)
        abort();
    recorder->worker = worker;
    mf_link_init(&recorder->link, worker, "modelforge-worker recorder", 20000);
    while (!atomic_load(&worker->stopping)) {
        mf_wakeup_wait(&worker->recorder_wakeup, PERIOD_MS);
        one_turn(recorder);
    }
    mf_link_close(&recorder->link);
    free(recorder);
    return NULL;
}
