/* The job's state machine: ONE table, state x event x desired -> state. The statements of sql/queries/ carry
 * the expected state in their WHERE; this table says which they may name, and tests hold the two together.
 * JOB_STATES.md is the table as a picture. */
#ifndef MF_SQL_JOB_STATE_H
#define MF_SQL_JOB_STATE_H

#include <stdbool.h>

#include "common/error.h"

enum mf_job_state {
    MF_JOB_QUEUED,
    MF_JOB_RUNNING,
    MF_JOB_PAUSED,
    MF_JOB_SUCCEEDED,
    MF_JOB_FAILED,
    MF_JOB_CANCELLED,
    MF_JOB_STATE_COUNT
};

/* What the user wants. */
enum mf_job_desired { MF_DESIRED_RUN, MF_DESIRED_PAUSE, MF_DESIRED_CANCEL, MF_DESIRED_COUNT };

enum mf_job_trigger {
    MF_EVENT_CLAIM,          /* a worker takes the lease */
    MF_EVENT_SUCCEED,        /* the trainer said done, everything is durable */
    MF_EVENT_FAIL_RETRIABLE, /* failed, attempts are left */
    MF_EVENT_FAIL,           /* failed for good: not retriable, attempts used up, no progress, deadline */
    MF_EVENT_TRAINER_PAUSED, /* the trainer obeyed a pause */
    MF_EVENT_TRAINER_CANCELLED,
    MF_EVENT_INTERRUPT, /* lease lost, drain, preempted: no attempt charged */
    MF_EVENT_CANCEL,    /* commands; on a running job they only set `desired` */
    MF_EVENT_PAUSE,
    MF_EVENT_RESUME,
    MF_EVENT_RETRY, /* the ended job stays as it is; its next generation is a new job, queued */
    MF_JOB_EVENT_COUNT
};

/* The next state, or MF_JOB_STATE_COUNT when the event means nothing there (a command is then audited as
 * ignored, a worker's write is refused). A command that only changes `desired` returns the same state. */
enum mf_job_state mf_job_next(enum mf_job_state state, enum mf_job_trigger event,
                              enum mf_job_desired desired);
/* Whether a job may be in this state with this wish; the tables hold it by a constraint. */
bool mf_job_reachable(enum mf_job_state state, enum mf_job_desired desired);
bool mf_job_terminal(enum mf_job_state state);

const char *mf_job_state_name(enum mf_job_state state); /* "queued" ...: what PostgreSQL holds */
/* MF_JOB_STATE_COUNT / MF_DESIRED_COUNT for an unknown name. */
enum mf_job_state mf_job_state_parse(const char *name);
const char *mf_job_desired_name(enum mf_job_desired desired);
enum mf_job_desired mf_job_desired_parse(const char *name);
const char *mf_job_event_name(enum mf_job_trigger event);

/* JOB_STATES.md: the picture and the table. *markdown is malloc'ed. MF_ERROR_OUT_OF_MEMORY. */
enum mf_status mf_job_states_markdown(char **markdown, struct mf_error *error);

#endif
