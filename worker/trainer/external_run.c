#include "worker/trainer/external_run.h"

#include "common/clock.h"
#include "worker/trainer/external_session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TURN_MS = 100,
    OBEY_MS = 120000 /* without a worker, which has limits of its own: from a cancel to the kill */
};

struct relay {
    struct mf_job *job;
    const struct mf_external_input *input;
    const char *name; /* of the provider */
    bool inexact;     /* it says that it does not go on from a checkpoint bit for bit */
    bool warned;
    struct mf_event *last;
};

/* A copy that outlives the line that it was read from. */
static void keep(struct mf_event *to, const struct mf_event *from) {
    *to = *from;
    json_incref(to->storage);
}

static void say_hello(struct relay *relay, const struct mf_event *event) {
    char version[MF_PROTOCOL_MAX_TEXT];
    struct mf_event hello = *event;
    snprintf(version, sizeof version, MF_VERSION " %s: %.3500s", relay->name, event->hello.version);
    hello.hello.version = version;
    hello.storage = NULL;
    mf_report_event(relay->job->report, &hello);
}

static void say_plan(struct relay *relay, const struct mf_event *event) {
    const struct mf_job *job = relay->job;
    struct mf_event plan = *event;
    plan.storage = NULL;
    plan.plan.dataset_sha256 = job->dataset.sha256;
    plan.plan.base_revision = job->runtime.location.commit;
    plan.plan.dropped_rows = relay->input->dropped_rows;
    plan.plan.truncated_rows = relay->input->truncated_rows;
    if (relay->inexact && job->resume_from) /* it may be of the same plan, yet not the same bits */
        plan.plan.resumed_plan_sha256 = plan.plan.numeric_plan_sha256;
    mf_report_event(job->report, &plan);
}

/* The request allows to go on from a checkpoint only bit for bit: one that cannot keep that promise is not
 * kept. */
static void say_checkpoint(struct relay *relay, const struct mf_event *event) {
    if (!relay->inexact || !relay->job->request.exact_resume) {
        mf_report_event(relay->job->report, event);
        return;
    }
    if (!relay->warned)
        mf_report_log(
            relay->job->report, "warning",
            "no checkpoint is kept: the provider '%s' does not go on from one bit for bit, as "
            "exact_resume asks; an interrupted run begins at step 0, exact_resume false lets it go on",
            relay->name);
    relay->warned = true;
}

static void pass_on(void *context, const struct mf_event *event) {
    struct relay *relay = context;
    switch (event->type) {
    case MF_EVENT_ACK: /* this process answers for it */
    case MF_EVENT_PONG:
        break;
    case MF_EVENT_HELLO:
        say_hello(relay, event);
        break;
    case MF_EVENT_PLAN:
        say_plan(relay, event);
        break;
    case MF_EVENT_CHECKPOINT:
        say_checkpoint(relay, event);
        break;
    default:
        if (mf_event_is_terminal(event->type))
            keep(relay->last, event);
        else
            mf_report_event(relay->job->report, event);
    }
}

/* Tells the program what this process was told, each once. */
static void tell(struct mf_session *session, struct mf_report *report, bool *paused, bool *cancelled) {
    if (mf_report_take_checkpoint(report))
        (void)mf_session_command(session, MF_TRAINER_CHECKPOINT);
    if (!*paused && mf_report_pause_wanted(report)) {
        *paused = true;
        (void)mf_session_command(session, MF_TRAINER_PAUSE);
    }
    if (!*cancelled && mf_report_cancelled(report)) {
        *cancelled = true;
        (void)mf_session_command(session, MF_TRAINER_CANCEL);
    }
}

static enum mf_status run(struct relay *relay, struct mf_external *program, struct mf_error *error) {
    struct mf_report *report = relay->job->report;
    const struct mf_session_options options = {.program = program,
                                               .request_path = relay->input->request_path,
                                               .directory = relay->input->work_folder,
                                               .output_folder = relay->job->output_dir,
                                               .checkpoint_folder = relay->job->checkpoint_dir,
                                               .environment = relay->input->environment,
                                               .hello_ms = mf_external_patience_ms(),
                                               .show_text = true,
                                               .on_event = pass_on,
                                               .context = relay};
    struct mf_session session;
    bool paused = false, cancelled = false;
    int64_t cancelled_ms = 0;
    enum mf_status status = mf_session_start(&options, &session, error);
    if (status != MF_OK)
        return status;
    while (!session.exit.finished) {
        mf_session_turn(&session, TURN_MS);
        tell(&session, report, &paused, &cancelled);
        if (cancelled && !cancelled_ms)
            cancelled_ms = mf_clock_monotonic_ms();
        if (cancelled && mf_clock_monotonic_ms() - cancelled_ms > OBEY_MS)
            mf_session_kill(&session);
    }
    status = mf_session_judge(&session, error);
    if (status == MF_ERROR_TRAINER_CRASHED && cancelled) /* the signal that told us told the program, too */
        status = mf_error_set(error, MF_ERROR_CANCELLED, "cancelled");
    mf_session_close(&session);
    return status;
}

enum mf_status mf_external_run(struct mf_job *job, struct mf_external *program, struct mf_event *last,
                               struct mf_error *error) {
    struct mf_external_input input = {0};
    struct relay relay = {.job = job, .input = &input, .name = program->name, .last = last};
    json_t *answer = NULL;
    *last = (struct mf_event){0};
    mf_report_progress(job->report, MF_PHASE_LOAD, 0);
    enum mf_status status = mf_external_ask(program, &answer, error);
    relay.inexact = json_is_false(json_object_get(answer, "exact_resume"));
    const int64_t most = mf_external_max_gpus(answer), gpus = job->request.gpus;
    if (status == MF_OK && gpus > most)
        status = mf_error_set(error, MF_ERROR_UNSUPPORTED_FIELD,
                              "gpus: %lld is refused by this provider: its program takes at most %lld",
                              (long long)gpus, (long long)most);
    if (status == MF_OK)
        status = mf_external_input_make(job, program, answer, &input, error);
    if (status == MF_OK && (status = mf_report_check(job->report, error)) == MF_OK)
        status = run(&relay, program, error);
    if (status != MF_OK)
        mf_event_destroy(last);
    mf_external_input_close(&input);
    json_decref(answer);
    return status;
}
