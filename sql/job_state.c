#include "sql/job_state.h"

#include <stddef.h>
#include <string.h>

#define NONE MF_JOB_STATE_COUNT

/* next[state][event] by desired: run, pause, cancel. What is not listed is NONE, and so are combinations of
 * state and desired that the tables refuse (a queued job is to run, a paused one to pause, a cancelled one to
 * be cancelled). */
struct row {
    enum mf_job_state state;
    enum mf_job_trigger event;
    enum mf_job_state next[MF_DESIRED_COUNT];
};

static const struct row table[] = {
    /* state         event                      desired: run      pause          cancel */
    {MF_JOB_QUEUED, MF_EVENT_CLAIM, {MF_JOB_RUNNING, NONE, NONE}},
    {MF_JOB_QUEUED, MF_EVENT_FAIL, {MF_JOB_FAILED, NONE, NONE}},
    {MF_JOB_QUEUED, MF_EVENT_CANCEL, {MF_JOB_CANCELLED, NONE, NONE}},
    {MF_JOB_QUEUED, MF_EVENT_PAUSE, {MF_JOB_PAUSED, NONE, NONE}},

    {MF_JOB_RUNNING, MF_EVENT_SUCCEED, {MF_JOB_SUCCEEDED, MF_JOB_SUCCEEDED, MF_JOB_SUCCEEDED}},
    {MF_JOB_RUNNING, MF_EVENT_FAIL, {MF_JOB_FAILED, MF_JOB_FAILED, MF_JOB_FAILED}},
    {MF_JOB_RUNNING, MF_EVENT_FAIL_RETRIABLE, {MF_JOB_QUEUED, MF_JOB_PAUSED, MF_JOB_CANCELLED}},
    {MF_JOB_RUNNING, MF_EVENT_INTERRUPT, {MF_JOB_QUEUED, MF_JOB_PAUSED, MF_JOB_CANCELLED}},
    {MF_JOB_RUNNING, MF_EVENT_TRAINER_PAUSED, {MF_JOB_QUEUED, MF_JOB_PAUSED, MF_JOB_CANCELLED}},
    {MF_JOB_RUNNING, MF_EVENT_TRAINER_CANCELLED, {NONE, NONE, MF_JOB_CANCELLED}},
    {MF_JOB_RUNNING, MF_EVENT_CANCEL, {MF_JOB_RUNNING, MF_JOB_RUNNING, NONE}},
    {MF_JOB_RUNNING, MF_EVENT_PAUSE, {MF_JOB_RUNNING, NONE, NONE}},
    {MF_JOB_RUNNING, MF_EVENT_RESUME, {NONE, MF_JOB_RUNNING, NONE}},

    {MF_JOB_PAUSED, MF_EVENT_FAIL, {NONE, MF_JOB_FAILED, NONE}},
    {MF_JOB_PAUSED, MF_EVENT_CANCEL, {NONE, MF_JOB_CANCELLED, NONE}},
    {MF_JOB_PAUSED, MF_EVENT_RESUME, {NONE, MF_JOB_QUEUED, NONE}},

    {MF_JOB_FAILED, MF_EVENT_RETRY, {MF_JOB_FAILED, MF_JOB_FAILED, MF_JOB_FAILED}},
    {MF_JOB_CANCELLED, MF_EVENT_RETRY, {NONE, NONE, MF_JOB_CANCELLED}},
};

static const char *const state_names[MF_JOB_STATE_COUNT] = {
    [MF_JOB_QUEUED] = "queued",       [MF_JOB_RUNNING] = "running", [MF_JOB_PAUSED] = "paused",
    [MF_JOB_SUCCEEDED] = "succeeded", [MF_JOB_FAILED] = "failed",   [MF_JOB_CANCELLED] = "cancelled"};
static const char *const desired_names[MF_DESIRED_COUNT] = {"run", "pause", "cancel"};
static const char *const event_names[MF_JOB_EVENT_COUNT] = {[MF_EVENT_CLAIM] = "claim",
                                                            [MF_EVENT_SUCCEED] = "succeed",
                                                            [MF_EVENT_FAIL_RETRIABLE] = "fail_retriable",
                                                            [MF_EVENT_FAIL] = "fail",
                                                            [MF_EVENT_TRAINER_PAUSED] = "trainer_paused",
                                                            [MF_EVENT_TRAINER_CANCELLED] =
                                                                "trainer_cancelled",
                                                            [MF_EVENT_INTERRUPT] = "interrupt",
                                                            [MF_EVENT_CANCEL] = "cancel",
                                                            [MF_EVENT_PAUSE] = "pause",
                                                            [MF_EVENT_RESUME] = "resume",
                                                            [MF_EVENT_RETRY] = "retry"};

enum mf_job_state mf_job_next(enum mf_job_state state, enum mf_job_trigger event,
                              enum mf_job_desired desired) {
    if ((unsigned)desired >= MF_DESIRED_COUNT)
        return NONE;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].state == state && table[i].event == event)
            return table[i].next[desired];
    return NONE;
}

bool mf_job_reachable(enum mf_job_state state, enum mf_job_desired desired) {
    return state == MF_JOB_QUEUED      ? desired == MF_DESIRED_RUN
           : state == MF_JOB_PAUSED    ? desired == MF_DESIRED_PAUSE
           : state == MF_JOB_CANCELLED ? desired == MF_DESIRED_CANCEL
                                       : true;
}

bool mf_job_terminal(enum mf_job_state state) {
    return state == MF_JOB_SUCCEEDED || state == MF_JOB_FAILED || state == MF_JOB_CANCELLED;
}

static int find(const char *const *names, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (name && !strcmp(names[i], name))
            return i;
    return count;
}

const char *mf_job_state_name(enum mf_job_state state) {
    return (unsigned)state < MF_JOB_STATE_COUNT ? state_names[state] : "unknown";
}

enum mf_job_state mf_job_state_parse(const char *name) {
    return (enum mf_job_state)find(state_names, MF_JOB_STATE_COUNT, name);
}

const char *mf_job_desired_name(enum mf_job_desired desired) {
    return (unsigned)desired < MF_DESIRED_COUNT ? desired_names[desired] : "unknown";
}

enum mf_job_desired mf_job_desired_parse(const char *name) {
    return (enum mf_job_desired)find(desired_names, MF_DESIRED_COUNT, name);
}

const char *mf_job_event_name(enum mf_job_trigger event) {
    return (unsigned)event < MF_JOB_EVENT_COUNT ? event_names[event] : "unknown";
}
