/* From what a trainer did to what is recorded of its attempt. */
#include "worker/job.h"

#include "common/json.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(struct mf_job_end *end, const struct mf_error *error) {
    end->kind = MF_END_FINISH;
    end->outcome = MF_OUTCOME_FAILED;
    end->error = *error;
}

static void release(struct mf_job_end *end, enum mf_release_reason reason) {
    end->kind = MF_END_RELEASE;
    end->release = reason;
}

static json_t *number_or_null(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static void succeed(const struct mf_trainer_story *story, struct mf_job_end *end) {
    json_t *result = json_pack(
        "{s:I, s:o, s:o, s:o, s:I}", "steps", (json_int_t)story->steps, "train_loss",
        number_or_null(story->train_loss), "eval_loss", number_or_null(story->eval_loss), "perplexity",
        number_or_null(story->perplexity), "trained_tokens", (json_int_t)story->trained_tokens);
    end->kind = MF_END_FINISH;
    end->outcome = MF_OUTCOME_SUCCEEDED;
    enum mf_status status =
        result ? mf_json_canonical(result, &end->result, &end->error)
               : mf_error_set(&end->error, MF_ERROR_OUT_OF_MEMORY, "no memory for the result");
    if (status)
        end->outcome = MF_OUTCOME_FAILED;
    json_decref(result);
}

/* A trainer that was told to stop and is gone, whatever its last word was. */
static void stopped(const struct mf_trainer_story *story, struct mf_job_end *end) {
    switch (story->stop) {
    case MF_STOP_PAUSE: /* one that did not obey is killed: its newest checkpoint is what the pause leaves */
        end->kind = MF_END_FINISH;
        end->outcome = MF_OUTCOME_PAUSED;
        return;
    case MF_STOP_CANCEL:
        end->kind = MF_END_FINISH;
        end->outcome = MF_OUTCOME_CANCELLED;
        return;
    case MF_STOP_DEADLINE:
        end->kind = MF_END_FINISH;
        end->outcome = MF_OUTCOME_FAILED;
        mf_error_set(&end->error, MF_ERROR_DEADLINE_EXCEEDED,
                     "the job was not done by its deadline (step %lld)", (long long)story->step);
        return;
    case MF_STOP_BLIND:
        release(end, MF_RELEASE_WATCHDOG);
        snprintf(end->note, sizeof end->note, "stopped: PostgreSQL could not be reached for too long");
        return;
    case MF_STOP_PREEMPT:
        release(end, MF_RELEASE_PREEMPTED);
        return;
    default:
        release(end, MF_RELEASE_DRAIN);
        return;
    }
}

static void crashed(const struct mf_trainer_story *story, struct mf_job_end *end) {
    char how[128];
    struct mf_error error;
    mf_process_exit_text(&story->exit, how, sizeof how);
    if (story->terminal != MF_EVENT_UNKNOWN)
        mf_error_set(&error, MF_ERROR_TRAINER_CRASHED, "the trainer said %s but then ended with %s",
                     mf_event_type_name(story->terminal), how);
    else
        mf_error_set(&error, MF_ERROR_TRAINER_CRASHED,
                     "the trainer ended without saying why: %s in phase %s after step %lld%s%s", how,
                     mf_phase_name(story->phase), (long long)story->step,
                     *story->last_words.text ? "; it wrote: " : "", story->last_words.text);
    fail(end, &error);
}

/* It kept to the protocol: a terminal line and the exit status that belongs to it. */
static void ended_in_order(const struct mf_trainer_story *story, struct mf_job_end *end) {
    struct mf_error error;
    if (story->terminal == MF_EVENT_DONE && story->artifact_count) {
        succeed(story, end);
    } else if (story->terminal == MF_EVENT_DONE) {
        mf_error_set(&error, MF_ERROR_PROVIDER_PROTOCOL, "the trainer said done but named no artifact");
        fail(end, &error);
    } else if (story->terminal == MF_EVENT_ERROR && story->said.status == MF_ERROR_CHECKPOINT_PLAN) {
        /* the fault of the host that took the job: no attempt is charged, the next host may be another one */
        release(end, MF_RELEASE_WATCHDOG);
        snprintf(end->note, sizeof end->note, "given back: %s: %.1500s", mf_status_code(story->said.status),
                 story->said.message);
    } else if (story->terminal == MF_EVENT_ERROR) {
        fail(end, &story->said);
        /* an external program's own code is kept when it has the form of one */
        if (story->said.status == MF_ERROR_INTERNAL && strcmp(story->said_code, "internal") != 0 &&
            !story->said_code[strspn(story->said_code, "abcdefghijklmnopqrstuvwxyz0123456789_")])
            memcpy(end->trainer_code, story->said_code, sizeof end->trainer_code);
    } else if (story->stop != MF_STOP_NONE) {
        stopped(story, end);
    } else {
        mf_error_set(&error, MF_ERROR_PROVIDER_PROTOCOL, "the trainer said %s without being asked to",
                     mf_event_type_name(story->terminal));
        fail(end, &error);
    }
}

void mf_job_judge(const struct mf_trainer_story *story, struct mf_job_end *end) {
    memset(end, 0, sizeof *end);
    bool in_order = story->terminal != MF_EVENT_UNKNOWN && story->exit.finished && !story->exit.signal &&
                    story->exit.code == mf_event_exit_status(story->terminal);
    if (story->stop == MF_STOP_LEASE_LOST) {
        end->kind = MF_END_ABANDON;
    } else if (story->broke.status) {
        fail(end, &story->broke);
    } else if (in_order) {
        ended_in_order(story, end);
    } else if (story->stop != MF_STOP_NONE) {
        stopped(story, end);
    } else if (story->silent_ms) {
        release(end, MF_RELEASE_WATCHDOG);
        snprintf(end->note, sizeof end->note,
                 "%s: nothing was heard from the trainer for %lld s in phase %s after step %lld",
                 mf_status_code(MF_ERROR_TRAINER_TIMEOUT), (long long)(story->silent_ms / 1000),
                 mf_phase_name(story->phase), (long long)story->step);
    } else {
        crashed(story, end);
    }
}

void mf_job_end_free(struct mf_job_end *end) {
    free(end->result);
    end->result = NULL;
}
