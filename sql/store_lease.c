/* Heartbeats, rescue, release and the end of an attempt. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sql/store_private.h"

/* ---- heartbeat ---- */

enum mf_status mf_store_heartbeat(struct mf_database *database, const char *worker_id,
                                  const struct mf_lease *leases, size_t count, struct mf_beat *beats,
                                  struct mf_error *error) {
    struct mf_array jobs = {0}, incarnations = {0}, epochs = {0};
    struct pg_result *rows = NULL;
    for (size_t i = 0; i < count; i++) {
        beats[i] = (struct mf_beat){.desired = MF_DESIRED_RUN};
        mf_array_text(&jobs, leases[i].job_id);
        mf_array_text(&incarnations, leases[i].incarnation);
        mf_array_integer(&epochs, leases[i].epoch);
    }
    if (!count)
        return MF_OK;
    const struct mf_parameter parameters[] = {mf_parameter_text(worker_id), mf_array_parameter(&jobs),
                                              mf_array_parameter(&incarnations), mf_array_parameter(&epochs)};
    enum mf_status status = mf_database_query(database, MF_QUERY_HEARTBEAT, parameters, 4, &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows); row++)
        for (size_t i = 0; i < count; i++)
            if (!strcmp(leases[i].job_id, mf_result_text(rows, row, 0))) {
                beats[i].held = true;
                beats[i].deadline_passed = mf_result_boolean(rows, row, 2);
                beats[i].preempted = mf_result_boolean(rows, row, 3);
                beats[i].desired = beats[i].deadline_passed
                                       ? MF_DESIRED_CANCEL
                                       : mf_job_desired_parse(mf_result_text(rows, row, 1));
            }
    mf_result_free(rows);
    mf_array_free(&jobs);
    mf_array_free(&incarnations);
    mf_array_free(&epochs);
    return status;
}

enum mf_status mf_store_list_leases(struct mf_database *database, const char *worker_id,
                                    struct mf_lease_row **rows, size_t *count, struct mf_error *error) {
    struct pg_result *found = NULL;
    const struct mf_parameter worker = mf_parameter_text(worker_id);
    *rows = NULL;
    *count = 0;
    enum mf_status status = mf_database_query(database, MF_QUERY_LEASES_LIST, &worker, 1, &found, error);
    size_t listed = status ? 0 : (size_t)mf_result_rows(found);
    struct mf_lease_row *list = listed ? calloc(listed, sizeof *list) : NULL;
    if (listed && !list)
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for leases");
    for (size_t i = 0; list && i < listed; i++) {
        struct mf_lease_row *row = &list[i];
        snprintf(row->lease.job_id, sizeof row->lease.job_id, "%s", mf_result_text(found, (int)i, 0));
        snprintf(row->lease.incarnation, sizeof row->lease.incarnation, "%s",
                 mf_result_text(found, (int)i, 1));
        row->lease.epoch = mf_result_integer(found, (int)i, 2);
        row->beat = mf_result_integer(found, (int)i, 3);
        snprintf(row->worker_id, sizeof row->worker_id, "%s", mf_result_text(found, (int)i, 4));
    }
    *rows = list;
    *count = list ? listed : 0;
    mf_result_free(found);
    return status;
}

/* ---- interruptions ---- */

/* The attempt ends by no fault of the trainer; too many of these without a new checkpoint end the job. */
static enum mf_status interrupt(struct mf_database *database, const struct mf_leased *job,
                                struct mf_attempt_end end, const struct mf_retry_policy *policy,
                                struct mf_error *error) {
    int32_t interruptions = job->interruptions + end.interruptions, drains = job->drains + end.drains;
    char text[MF_ERROR_TEXT_BYTES + 64];
    bool too_often = (end.interruptions && interruptions >= MF_INTERRUPTION_LIMIT) ||
                     (end.drains && drains >= MF_DRAIN_LIMIT);
    /* A pause or cancel that is wanted wins over the failure. */
    enum mf_job_trigger event =
        too_often && job->desired == MF_DESIRED_RUN ? MF_EVENT_FAIL : MF_EVENT_INTERRUPT;
    end.next = mf_job_next(job->state, event, job->desired);
    if (end.next == MF_JOB_FAILED) {
        struct mf_error failure;
        mf_error_set(&failure, MF_ERROR_INTERRUPTED,
                     "interrupted %d times (drained %d times) without a new checkpoint", interruptions,
                     drains);
        end.error_code = mf_status_code(failure.status);
        end.error_message = mf_error_format(&failure, text, sizeof text);
        end.event_type = mf_job_state_name(MF_JOB_FAILED);
    } else if (end.next != MF_JOB_QUEUED) {
        end.event_type = mf_job_state_name(end.next);
    }
    if (end.interruptions && end.delay_ms)
        end.delay_ms = mf_backoff_ms(policy, interruptions);
    return mf_attempts_end(database, &end, 1, error);
}

struct rescuing {
    const struct mf_lease_row *observed;
    const char *rescuer_id;
    const struct mf_retry_policy *policy;
    bool rescued;
};

static enum mf_status rescue(struct mf_database *database, void *context, struct mf_error *error) {
    struct rescuing *rescuing = context;
    const struct mf_lease_row *observed = rescuing->observed;
    struct pg_result *rows = NULL;
    const struct mf_parameter parameters[] = {
        mf_parameter_text(observed->lease.job_id), mf_parameter_integer(observed->lease.epoch),
        mf_parameter_text(observed->lease.incarnation), mf_parameter_integer(observed->beat),
        mf_parameter_text(observed->worker_id)};
    rescuing->rescued = false;
    enum mf_status status = mf_database_query(database, MF_QUERY_RESCUE_LOCK, parameters, 2, &rows, error);
    if (status || !mf_result_rows(rows))
        goto done;
    struct mf_leased job = mf_leased_read(rows, 0);
    mf_result_free(rows);
    rows = NULL;
    status = mf_database_query(database, MF_QUERY_RESCUE_LEASE, parameters, 5, &rows, error);
    if (status || !mf_result_rows(rows))
        goto done;
    status = interrupt(database, &job,
                       (struct mf_attempt_end){.lease = &observed->lease,
                                               .outcome = "lease_lost",
                                               .event_type = "lease_lost",
                                               .actor = rescuing->rescuer_id,
                                               .interruptions = 1,
                                               .delay_ms = rescuing->policy->base_ms,
                                               .detail = json_pack("{s:s}", "lost_by", observed->worker_id)},
                       rescuing->policy, error);
    rescuing->rescued = !status;
done:
    mf_result_free(rows);
    return status;
}

enum mf_status mf_store_rescue(struct mf_database *database, const struct mf_lease_row *observed,
                               const char *rescuer_id, const struct mf_retry_policy *policy, bool *rescued,
                               struct mf_error *error) {
    struct rescuing rescuing = {.observed = observed, .rescuer_id = rescuer_id, .policy = policy};
    enum mf_status status = mf_database_transaction(database, rescue, &rescuing, error);
    *rescued = !status && rescuing.rescued;
    return status;
}

/* How the attempt of a lease that is gone was ended by this worker: outcome and the job's state now; no row:
 * not by this worker. Returns MF_ERROR_LEASE_LOST with *error as it was, or why it cannot be read. */
static enum mf_status attempt_outcome(struct mf_database *database, const char *worker_id,
                                      const struct mf_lease *lease, struct pg_result **rows,
                                      struct mf_error *error) {
    const struct mf_parameter parameters[] = {
        mf_parameter_text(lease->job_id), mf_parameter_integer(lease->epoch), mf_parameter_text(worker_id)};
    struct mf_error failure;
    enum mf_status status =
        mf_database_query(database, MF_QUERY_ATTEMPT_OUTCOME, parameters, 3, rows, &failure);
    if (!status)
        return MF_ERROR_LEASE_LOST;
    *error = failure;
    return status;
}

struct releasing {
    const char *worker_id;
    const struct mf_lease *lease;
    enum mf_release_reason reason;
    const struct mf_retry_policy *policy;
};

static const char *const release_names[] = {[MF_RELEASE_DRAIN] = "drain",
                                            [MF_RELEASE_RESTART] = "restart",
                                            [MF_RELEASE_PREEMPTED] = "preempted",
                                            [MF_RELEASE_WATCHDOG] = "watchdog"};

static enum mf_status already_released(struct mf_database *database, const struct releasing *releasing,
                                       struct mf_error *error) {
    struct pg_result *rows = NULL;
    enum mf_status status = attempt_outcome(database, releasing->worker_id, releasing->lease, &rows, error);
    if (mf_result_rows(rows) && !strcmp(mf_result_text(rows, 0, 0), release_names[releasing->reason]))
        status = MF_OK;
    mf_result_free(rows);
    return status;
}

static enum mf_status release(struct mf_database *database, void *context, struct mf_error *error) {
    const struct releasing *releasing = context;
    struct mf_error local;
    bool drain = releasing->reason == MF_RELEASE_DRAIN;
    bool charged = !drain && releasing->reason != MF_RELEASE_PREEMPTED;
    struct mf_leased job;
    if (!error)
        error = &local;
    enum mf_status status = mf_lease_lock(database, releasing->worker_id, releasing->lease, &job, error);
    if (status == MF_ERROR_LEASE_LOST)
        return already_released(database, releasing, error);
    if (status)
        return status;
    status =
        interrupt(database, &job,
                  (struct mf_attempt_end){
                      .lease = releasing->lease,
                      .outcome = release_names[releasing->reason],
                      .event_type = "released",
                      .actor = releasing->worker_id,
                      .interruptions = charged,
                      .drains = drain,
                      .delay_ms = releasing->reason == MF_RELEASE_WATCHDOG ? releasing->policy->base_ms : 0,
                      .detail = json_pack("{s:s}", "reason", release_names[releasing->reason])},
                  releasing->policy, error);
    return status;
}

enum mf_status mf_store_release(struct mf_database *database, const char *worker_id,
                                const struct mf_lease *lease, enum mf_release_reason reason,
                                const struct mf_retry_policy *policy, struct mf_error *error) {
    struct releasing releasing = {.worker_id = worker_id, .lease = lease, .reason = reason, .policy = policy};
    return mf_database_transaction(database, release, &releasing, error);
}

/* ---- finish ---- */

struct finishing {
    const char *worker_id;
    struct mf_ending *endings;
    size_t count;
    const struct mf_retry_policy *policy;
};

static const char *const outcome_names[] = {"succeeded", "failed", "cancelled", "paused"};

/* The lease is gone: perhaps because this very call did it before its answer was lost. */
static enum mf_status already_finished(struct mf_database *database, const char *worker_id,
                                       struct mf_ending *ending, struct mf_error *error) {
    struct pg_result *rows = NULL;
    struct mf_error failure;
    enum mf_status status = attempt_outcome(database, worker_id, ending->lease, &rows, &failure);
    if (status != MF_ERROR_LEASE_LOST) {
        *error = failure;
        return status;
    }
    bool same = false;
    if (mf_result_rows(rows)) {
        const char *recorded = mf_result_text(rows, 0, 0);
        enum mf_outcome outcome = ending->finish.outcome;
        same = !strcmp(recorded, outcome_names[outcome]) || /* beyond the deadline cancelled became failed */
               (outcome == MF_OUTCOME_CANCELLED && !strcmp(recorded, outcome_names[MF_OUTCOME_FAILED]));
    }
    if (same)
        ending->state = mf_job_state_parse(mf_result_text(rows, 0, 1));
    ending->status = same ? MF_OK : MF_ERROR_LEASE_LOST;
    mf_result_free(rows);
    return MF_OK;
}

/* A failure: tried again when it may be and attempts are left. */
static void decide_failure(const struct mf_leased *job, const struct mf_retry_policy *policy,
                           enum mf_status failure, struct mf_attempt_end *end) {
    bool again =
        mf_status_retriable(failure) && job->attempts + 1 < job->max_attempts && !job->deadline_passed;
    end->attempts = 1;
    end->next = mf_job_next(job->state, again ? MF_EVENT_FAIL_RETRIABLE : MF_EVENT_FAIL, job->desired);
    end->delay_ms = mf_backoff_ms(policy, job->attempts + 1);
    end->event_type = end->next == MF_JOB_QUEUED ? "attempt_failed" : mf_job_state_name(end->next);
    end->outcome = outcome_names[MF_OUTCOME_FAILED];
}

/* What becomes of a locked job. `text` keeps the error's text for `end`. */
static enum mf_status decide(const struct finishing *finishing, struct mf_ending *ending,
                             const struct mf_leased *job, struct mf_attempt_end *end,
                             char text[MF_ERROR_TEXT_BYTES + 64], struct mf_error *error) {
    const struct mf_finish *finish = &ending->finish;
    struct mf_error failure = {.status = MF_OK};
    enum mf_outcome outcome = finish->outcome;
    *end = (struct mf_attempt_end){
        .lease = ending->lease, .actor = finishing->worker_id, .outcome = outcome_names[outcome]};
    if (outcome == MF_OUTCOME_FAILED)
        mf_error_set(&failure, finish->error_status, "%s",
                     finish->error_message ? finish->error_message : "");
    if (outcome == MF_OUTCOME_CANCELLED && job->desired != MF_DESIRED_CANCEL && job->deadline_passed) {
        outcome = MF_OUTCOME_FAILED;
        mf_error_set(&failure, MF_ERROR_DEADLINE_EXCEEDED, "the deadline passed while the job was running");
    }
    switch (outcome) {
    case MF_OUTCOME_SUCCEEDED:
        end->next = mf_job_next(job->state, MF_EVENT_SUCCEED, job->desired);
        end->result = finish->result;
        break;
    case MF_OUTCOME_FAILED:
        decide_failure(job, finishing->policy, failure.status, end);
        end->error_code = finish->trainer_code ? finish->trainer_code : mf_status_code(failure.status);
        end->error_message = mf_error_format(&failure, text, MF_ERROR_TEXT_BYTES + 64);
        break;
    case MF_OUTCOME_CANCELLED:
        end->next = mf_job_next(job->state, MF_EVENT_TRAINER_CANCELLED, job->desired);
        break;
    case MF_OUTCOME_PAUSED:
        end->next = mf_job_next(job->state, MF_EVENT_TRAINER_PAUSED, job->desired);
        break;
    }
    if (end->next == MF_JOB_STATE_COUNT)
        return mf_error_set(error, MF_ERROR_INTERNAL,
                            "job %s: %s means nothing while it is %s and %s is desired",
                            ending->lease->job_id, outcome_names[outcome], mf_job_state_name(job->state),
                            mf_job_desired_name(job->desired));
    if (!end->event_type)
        end->event_type = end->next == MF_JOB_QUEUED ? "released" : mf_job_state_name(end->next);
    ending->state = end->next;
    ending->status = MF_OK;
    return MF_OK;
}

/* Locks the jobs whose leases still hold: rows as leases_lock.sql gives them. */
static enum mf_status lock_leases(struct mf_database *database, const struct finishing *finishing,
                                  struct pg_result **rows, struct mf_error *error) {
    struct mf_array ids = {0}, epochs = {0}, incarnations = {0};
    for (size_t i = 0; i < finishing->count; i++) {
        const struct mf_lease *lease = finishing->endings[i].lease;
        mf_array_text(&ids, lease->job_id);
        mf_array_integer(&epochs, lease->epoch);
        mf_array_text(&incarnations, lease->incarnation);
    }
    const struct mf_parameter parameters[] = {mf_array_parameter(&ids), mf_array_parameter(&epochs),
                                              mf_array_parameter(&incarnations),
                                              mf_parameter_text(finishing->worker_id)};
    enum mf_status status = mf_database_query(database, MF_QUERY_LEASES_LOCK, parameters, 4, rows, error);
    mf_array_free(&ids);
    mf_array_free(&epochs);
    mf_array_free(&incarnations);
    return status;
}

/* Decides and writes what the rows of leases_lock.sql say; the other endings stay lost. */
static enum mf_status end_held(struct mf_database *database, const struct finishing *finishing,
                               const struct pg_result *rows, struct mf_error *error) {
    const size_t held = (size_t)mf_result_rows(rows);
    enum mf_status status = MF_OK;
    if (!held)
        return MF_OK;
    char(*texts)[MF_ERROR_TEXT_BYTES + 64] = calloc(held, sizeof *texts);
    struct mf_attempt_end *ends = calloc(held, sizeof *ends);
    if (!texts || !ends) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for ends");
        goto done;
    }
    for (size_t i = 0; !status && i < held; i++) {
        const struct mf_leased job = mf_leased_read(rows, (int)i);
        struct mf_ending *ending = &finishing->endings[mf_result_integer(rows, (int)i, 7) - 1];
        status = decide(finishing, ending, &job, &ends[i], texts[i], error);
    }
    if (!status)
        status = mf_attempts_end(database, ends, held, error);
done:
    free(ends);
    free(texts);
    return status;
}

static enum mf_status finish(struct mf_database *database, void *context, struct mf_error *error) {
    struct finishing *finishing = context;
    struct pg_result *rows = NULL;
    struct mf_error local;
    if (!error)
        error = &local;
    enum mf_status status = lock_leases(database, finishing, &rows, error);
    for (size_t i = 0; i < finishing->count; i++)
        finishing->endings[i].status = MF_ERROR_LEASE_LOST;
    if (!status)
        status = end_held(database, finishing, rows, error);
    for (size_t i = 0; !status && i < finishing->count; i++)
        if (finishing->endings[i].status)
            status = already_finished(database, finishing->worker_id, &finishing->endings[i], error);
    mf_result_free(rows);
    return status;
}

enum mf_status mf_store_finish_all(struct mf_database *database, const char *worker_id,
                                   struct mf_ending *endings, size_t count,
                                   const struct mf_retry_policy *policy, struct mf_error *error) {
    struct finishing finishing = {
        .worker_id = worker_id, .endings = endings, .count = count, .policy = policy};
    return count ? mf_database_transaction(database, finish, &finishing, error) : MF_OK;
}

enum mf_status mf_store_finish(struct mf_database *database, const char *worker_id,
                               const struct mf_lease *lease, const struct mf_finish *finish_,
                               const struct mf_retry_policy *policy, enum mf_job_state *state,
                               struct mf_error *error) {
    struct mf_ending ending = {.lease = lease, .finish = *finish_, .state = MF_JOB_STATE_COUNT};
    enum mf_status status = mf_store_finish_all(database, worker_id, &ending, 1, policy, error);
    if (!status && ending.status)
        status =
            mf_error_set(error, ending.status, "job %s: the lease of epoch %lld is not worker %s's any more",
                         lease->job_id, (long long)lease->epoch, worker_id);
    if (!status && state)
        *state = ending.state;
    return status;
}
