#include "worker/supervisor.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/log.h"
#include "common/text.h"
#include "worker/attempt.h"
#include "worker/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    TICK_MS = 100,             /* how often time limits are looked at */
    TERMINATE_MS = 5000,       /* from SIGTERM to SIGKILL */
    LAST_WORD_MS = 10000,      /* from the terminal line to the exit */
    STORAGE_RETRY_MS = 600000, /* how long a failing storage is tried */
    EVENTS_A_TURN = 256
};

/* How far the stopping of a trainer has come. */
enum stage { STAGE_RUNNING, STAGE_ASKED, STAGE_TERMINATED, STAGE_KILLED };

struct supervision {
    struct mf_job *job;
    const struct mf_settings *settings;
    struct mf_trainer_story story;
    struct mf_process process;
    struct mf_protocol_writer writer;
    struct mf_protocol_reader reader;
    int event_fd, command_fd, text_fd; /* this side's ends; -1 once closed */
    int64_t last_heard_ms, stage_ms, terminal_ms;
    struct mf_event_order order;
    enum stage stage;
    char *artifact_path[MF_JOB_MAX_ARTIFACTS];
    int64_t artifact_bytes[MF_JOB_MAX_ARTIFACTS];
};

/* ---- starting --------------------------------------------------------------------------------------- */

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* "CUDA_VISIBLE_DEVICES=GPU-...,GPU-...": nothing after the = hides every GPU. NULL: no memory. */
static char *visible_gpus(const struct mf_job *job) {
    struct mf_text text = {0};
    mf_text_printf(&text, "CUDA_VISIBLE_DEVICES=");
    for (size_t i = 0; i < job->gpu_count; i++)
        mf_text_printf(&text, "%s%s", i ? "," : "", job->gpus[i].uuid);
    char *result = mf_text_status(&text, NULL) ? NULL : strdup(mf_text_string(&text));
    mf_text_free(&text);
    return result;
}

static void let_go_of_gpus(struct mf_job *job) {
    for (size_t i = 0; i < job->gpu_count; i++)
        mf_gpu_unlock(&job->gpus[i]);
}

static enum mf_status start_trainer(struct supervision *s, struct mf_error *error) {
    int events[2] = {-1, -1}, commands[2] = {-1, -1}, text[2] = {-1, -1};
    const struct mf_job *job = s->job;
    char *visible = visible_gpus(job), *request = mf_path_join(job->folder, "request.json");
    const char **environment = visible ? mf_attempt_environment(true, job->dataset_in_s3, visible) : NULL;
    enum mf_status status = MF_OK;
    if (!environment || !request) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to start a trainer");
        goto done;
    }
    if (pipe2(events, O_CLOEXEC) || pipe2(commands, O_CLOEXEC) || pipe2(text, O_CLOEXEC)) {
        status = mf_error_errno(error, errno, "a pipe to the trainer");
        goto done;
    }
    const char *const argv[] = {s->settings->trainer_path, "run", request, NULL};
    enum { PIPES = 4 };
    struct mf_process_descriptor descriptors[PIPES + MF_MAX_GPUS] = {{events[1], MF_PROTOCOL_EVENT_FD},
                                                                     {commands[0], MF_PROTOCOL_COMMAND_FD},
                                                                     {text[1], STDOUT_FILENO},
                                                                     {text[1], STDERR_FILENO}};
    for (size_t i = 0; i < job->gpu_count;
         i++) /* it does nothing with them: that they are open is the lock */
        descriptors[PIPES + i] =
            (struct mf_process_descriptor){job->gpus[i].fd, MF_PROTOCOL_COMMAND_FD + 1 + (int)i};
    const struct mf_process_options options = {.argv = argv,
                                               .environment = environment,
                                               .directory = s->job->folder,
                                               .descriptors = descriptors,
                                               .descriptor_count = PIPES + job->gpu_count,
                                               .death_signal = SIGKILL};
    status = mf_spawner_spawn(s->job->worker->spawner, &options, &s->process, error);
    if (status)
        goto done;
    (void)fcntl(events[0], F_SETFL, O_NONBLOCK);
    (void)fcntl(text[0], F_SETFL, O_NONBLOCK);
    s->event_fd = events[0];
    s->command_fd = commands[1];
    s->text_fd = text[0];
    events[0] = commands[1] = text[0] = -1;
    s->reader.fd = s->event_fd;
    mf_protocol_writer_init(&s->writer, s->command_fd);
done:
    for (int i = 0; i < 2; i++) {
        close_fd(&events[i]);
        close_fd(&commands[i]);
        close_fd(&text[i]);
    }
    let_go_of_gpus(s->job);
    free(request);
    free(environment);
    free(visible);
    return status;
}

/* ---- what the trainer reports ----------------------------------------------------------------------- */

/* Where to say how the trainer broke the protocol: the first reason stays, later ones go nowhere. */
static struct mf_error *fault(struct supervision *s) {
    return s->story.broke.status ? NULL : &s->story.broke;
}

static void set_text(char **slot, char *text) {
    free(*slot);
    *slot = text;
}

static void take_hello(struct supervision *s, const struct mf_event *event) {
    struct mf_job *job = s->job;
    const struct mf_event_device *device = &event->hello.device[0];
    json_t *uuids = json_array(),
           *versions = json_pack("{s:s, s:s}", "trainer", event->hello.version, "worker", MF_VERSION);
    for (size_t i = 0; i < event->hello.device_count; i++)
        if (*event->hello.device[i].uuid)
            json_array_append_new(uuids, json_string(event->hello.device[i].uuid));
    char *name = NULL;
    if (event->hello.device_count && asprintf(&name, "%s: %s", device->name, device->description) < 0)
        name = NULL;
    pthread_mutex_lock(&job->lock);
    set_text(&job->device, name);
    if (json_array_size(uuids)) /* else what it was given stays */
        set_text(&job->gpu_uuids, json_dumps(uuids, JSON_COMPACT));
    set_text(&job->versions, json_dumps(versions, JSON_COMPACT));
    job->details.device = job->device;
    job->details.gpu_uuids = job->gpu_uuids;
    job->details.versions = job->versions;
    job->details_changed = true;
    pthread_mutex_unlock(&job->lock);
    json_decref(uuids);
    json_decref(versions);
}

static void take_plan(struct supervision *s, const struct mf_event *event) {
    struct mf_job *job = s->job;
    const char *dataset = event->plan.dataset_sha256, *revision = event->plan.base_revision;
    pthread_mutex_lock(&job->lock);
    struct mf_attempt_details *details = &job->details;
    details->exact = !*event->plan.resumed_plan_sha256;
    set_text(&job->numeric_plan_sha256, strdup(event->plan.numeric_plan_sha256));
    set_text(&job->dataset_sha256, *dataset ? strdup(dataset) : NULL);
    set_text(&job->base_revision, *revision ? strdup(revision) : NULL);
    details->numeric_plan_sha256 = job->numeric_plan_sha256;
    details->dataset_sha256 = job->dataset_sha256;
    details->base_revision = job->base_revision;
    details->managed_bytes = event->plan.managed_bytes;
    details->total_steps = event->plan.total_steps;
    details->train_rows = event->plan.train_rows;
    details->eval_rows = event->plan.eval_rows;
    details->train_tokens = event->plan.train_tokens;
    details->truncated_rows = event->plan.truncated_rows;
    details->dropped_rows = event->plan.dropped_rows;
    job->details_changed = true;
    pthread_mutex_unlock(&job->lock);
}

static void take_progress(struct supervision *s, enum mf_phase phase, double fraction) {
    struct mf_job *job = s->job;
    s->story.phase = phase;
    pthread_mutex_lock(&job->lock);
    job->phase = phase;
    job->fraction = fraction;
    job->phase_changed = true;
    pthread_mutex_unlock(&job->lock);
}

static void take_step(struct supervision *s, const struct mf_event *event) {
    s->story.step = event->step.step;
    s->story.phase = MF_PHASE_TRAIN;
    struct mf_record record;
    memset(&record, 0, sizeof record);
    record.kind = MF_RECORD_STEP;
    record.step = (struct mf_step_metric){.step = event->step.step,
                                          .epoch = event->step.epoch,
                                          .loss = event->step.loss,
                                          .learning_rate = event->step.learning_rate,
                                          .gradient_norm = event->step.gradient_norm,
                                          .tokens = event->step.tokens,
                                          .tokens_per_second = event->step.tokens_per_second,
                                          .elapsed_seconds = event->step.elapsed_seconds};
    mf_spool_append(s->job->spool, MF_SPOOL_THIN, &record, sizeof record);
}

static void take_eval(struct supervision *s, const struct mf_event *event) {
    struct mf_record record;
    memset(&record, 0, sizeof record);
    record.kind = MF_RECORD_EVAL;
    record.eval = (struct mf_eval_metric){event->eval.step, event->eval.loss, event->eval.perplexity};
    mf_spool_append(s->job->spool, MF_SPOOL_KEEP, &record, sizeof record);
}

static void take_artifact(struct supervision *s, const struct mf_event *event) {
    struct mf_job *job = s->job;
    size_t at = s->story.artifact_count;
    if (!(s->artifact_path[at] = strdup(event->artifact.path)))
        return;
    s->artifact_bytes[at] = event->artifact.size_bytes;
    (void)stpncpy(job->artifact[at].kind, event->artifact.kind, sizeof job->artifact[at].kind - 1);
    s->story.artifact_count++;
}

/* Hands a durable checkpoint to the recorder; one that still waits there is not needed any more. */
static void offer_checkpoint(struct mf_job *job, const struct mf_job_checkpoint *checkpoint) {
    pthread_mutex_lock(&job->lock);
    struct mf_job_checkpoint before = job->checkpoint;
    job->checkpoint = *checkpoint;
    pthread_mutex_unlock(&job->lock);
    mf_stored_artifact_free(&before.stored);
    mf_wakeup_raise(&job->worker->recorder_wakeup);
}

/* The trainer's own copy of what the storage has now: a long run would fill the disk. */
static void remove_copy(const struct mf_job *job, const char *path) {
    struct mf_error error;
    char *resolved = NULL;
    if (!mf_path_resolve_beneath(job->folder, path, &resolved, &error))
        (void)mf_tree_remove(resolved, &error);
    free(resolved);
}

/* Makes a checkpoint durable before the pointer may move to it. A storage that fails costs this checkpoint,
 * not the run: the one before stays the one to resume from. */
static void take_checkpoint(struct supervision *s, const struct mf_event *event) {
    struct mf_job *job = s->job;
    struct mf_error error;
    struct mf_job_checkpoint checkpoint = {.step = event->checkpoint.step};
    char *key = NULL;
    if (asprintf(&key, "%s/%s/%s/checkpoints/step-%08lld", job->claim.tenant, job->claim.lease.job_id,
                 job->claim.attempt_id, (long long)checkpoint.step) < 0)
        return;
    enum mf_status status = mf_storage_publish(job->worker->storage, job->folder, event->checkpoint.path, key,
                                               &job->kill_now, &checkpoint.stored, &error);
    free(key);
    if (status == MF_ERROR_PROVIDER_PROTOCOL) {
        mf_error_set(fault(s), status, "%s", error.message);
    } else if (status) {
        mf_log_warning("the storage does not take a checkpoint",
                       MF_LOG_TEXT("job_id", job->claim.lease.job_id), MF_LOG_FAILURE(&error));
        mf_job_log(job, "warning", "a checkpoint could not be stored; the one before it stays");
    } else {
        offer_checkpoint(job, &checkpoint);
        remove_copy(job, event->checkpoint.path);
    }
    s->last_heard_ms = mf_clock_monotonic_ms(); /* the trainer was not read meanwhile */
}

static void take_log(struct supervision *s, const struct mf_event *event) {
    static const char *const levels[] = {"debug", "info", "warning", "error"};
    const char *level = "info";
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (!strcmp(levels[i], event->log.level))
            level = levels[i];
    mf_job_log(s->job, level, event->log.message);
}

static void take_terminal(struct supervision *s, const struct mf_event *event) {
    struct mf_trainer_story *story = &s->story;
    story->terminal = event->type;
    s->terminal_ms = mf_clock_monotonic_ms();
    if (event->type == MF_EVENT_DONE) {
        story->steps = event->done.steps;
        story->trained_tokens = event->done.trained_tokens;
        story->train_loss = event->done.train_loss;
        story->eval_loss = event->done.eval_loss;
        story->perplexity = event->done.perplexity;
    } else if (event->type == MF_EVENT_ERROR) {
        (void)stpncpy(story->said_code, event->error.code, sizeof story->said_code - 1);
        mf_error_set(&story->said, mf_status_from_code(event->error.code), "%s", event->error.message);
        if (!story->said.status) /* "ok" is no error */
            story->said.status = MF_ERROR_INTERNAL;
    }
}

static void take_event(struct supervision *s, const struct mf_event *event) {
    if (mf_event_order_take(&s->order, event, fault(s)) != MF_OK)
        return;
    if (event->type != MF_EVENT_PONG && event->type != MF_EVENT_ACK && event->type != MF_EVENT_LOG)
        s->last_heard_ms = mf_clock_monotonic_ms(); /* those may come from a side thread of a stuck trainer */
    switch (event->type) {
    case MF_EVENT_HELLO:
        take_hello(s, event);
        break;
    case MF_EVENT_PLAN:
        take_plan(s, event);
        break;
    case MF_EVENT_PROGRESS:
        take_progress(s, event->progress.phase, event->progress.fraction);
        break;
    case MF_EVENT_STEP:
        take_step(s, event);
        break;
    case MF_EVENT_EVAL:
        take_eval(s, event);
        break;
    case MF_EVENT_ARTIFACT:
        take_artifact(s, event);
        break;
    case MF_EVENT_LOG:
        take_log(s, event);
        break;
    case MF_EVENT_CHECKPOINT:
        take_checkpoint(s, event);
        break;
    default:
        if (mf_event_is_terminal(event->type))
            take_terminal(s, event);
        break;
    }
}

/* Reads what is there now. False once the trainer has closed its end or broken the protocol. */
static bool read_events(struct supervision *s) {
    struct mf_error error;
    for (int taken = 0; taken < EVENTS_A_TURN;) {
        enum mf_read_result result = mf_protocol_reader_fill(&s->reader, &error);
        if (result == MF_READ_AGAIN)
            return true;
        if (result == MF_READ_FAILED)
            mf_error_set(fault(s), MF_ERROR_PROVIDER_PROTOCOL, "%s", error.message);
        if (result != MF_READ_DATA)
            return false;
        size_t length;
        for (const char *line; (line = mf_protocol_reader_next(&s->reader, &length)); taken++) {
            struct mf_event event;
            if (mf_event_decode(line, length, &event, &error)) {
                mf_error_set(fault(s), MF_ERROR_PROVIDER_PROTOCOL, "%s", error.message);
            } else {
                take_event(s, &event);
                mf_event_destroy(&event);
            }
            if (s->story.broke.status)
                return false;
        }
    }
    return true;
}

/* Keeps the end of what the trainer writes to standard output and error, as one line. */
static void read_text(struct supervision *s) {
    if (!mf_last_words_read(&s->story.last_words, s->text_fd, -1))
        close_fd(&s->text_fd);
}

/* ---- stopping --------------------------------------------------------------------------------------- */

/* Stopped to go on later: the trainer writes a checkpoint first. */
static bool keeps_work(const struct supervision *s) {
    return s->story.stop != MF_STOP_NONE && s->story.stop < MF_STOP_CANCEL;
}

static void enter(struct supervision *s, enum stage stage, int64_t now) {
    s->stage = stage;
    s->stage_ms = now;
    if (stage == STAGE_ASKED) {
        struct mf_error error;
        const enum mf_trainer_command_type type = keeps_work(s) ? MF_TRAINER_PAUSE : MF_TRAINER_CANCEL;
        const struct mf_trainer_command command = {type, mf_event_order_command(&s->order, type)};
        if (s->command_fd >= 0)
            (void)mf_protocol_send_command(&s->writer, &command, &error); /* gone: the exit will tell */
    } else if (stage == STAGE_TERMINATED) {
        mf_process_kill_group(&s->process, SIGTERM);
    } else if (stage == STAGE_KILLED) {
        mf_process_kill_group(&s->process, SIGKILL);
    }
}

static int64_t silence_limit(const struct supervision *s) {
    return s->order.hello ? s->settings->silence_limit_ms[s->story.phase] : s->settings->hello_limit_ms;
}

/* How long a trainer may take to obey. A drain leaves it what drain.seconds can spare to write its
 * checkpoint, and so does a pause. */
static int64_t obedience_limit(const struct supervision *s) {
    const int64_t cancel_ms = s->settings->cancel_ms, spare_ms = s->settings->drain_ms - TERMINATE_MS;
    return keeps_work(s) && spare_ms > cancel_ms ? spare_ms : cancel_ms;
}

/* Moves the stopping on: asks, then SIGTERM, then SIGKILL. */
static void enforce(struct supervision *s) {
    int64_t now = mf_clock_monotonic_ms();
    s->story.stop = (enum mf_stop_reason)atomic_load(&s->job->stop);
    bool kill_now = atomic_load(&s->job->kill_now) || s->story.stop == MF_STOP_LEASE_LOST;
    if (s->stage < STAGE_KILLED && kill_now) {
        enter(s, STAGE_KILLED, now);
    } else if (s->stage < STAGE_TERMINATED && s->story.broke.status) {
        enter(s, STAGE_TERMINATED, now);
    } else if (s->stage == STAGE_RUNNING && s->story.stop != MF_STOP_NONE) {
        enter(s, STAGE_ASKED, now);
    } else if (s->stage < STAGE_TERMINATED && s->terminal_ms && now - s->terminal_ms > LAST_WORD_MS) {
        enter(s, STAGE_TERMINATED, now);
    } else if (s->stage == STAGE_RUNNING && !s->terminal_ms && now - s->last_heard_ms > silence_limit(s)) {
        s->story.silent_ms = now - s->last_heard_ms;
        enter(s, STAGE_TERMINATED, now);
    } else if (s->stage == STAGE_ASKED && now - s->stage_ms > obedience_limit(s)) {
        enter(s, STAGE_TERMINATED, now);
    } else if (s->stage == STAGE_TERMINATED && now - s->stage_ms > TERMINATE_MS) {
        enter(s, STAGE_KILLED, now);
    }
}

/* Until the trainer has ended and everything it wrote has been read. */
static void watch(struct supervision *s) {
    struct mf_error error;
    bool reading = true;
    int exit_fd = mf_process_exit_descriptor(&s->process);
    s->last_heard_ms = mf_clock_monotonic_ms();
    while (!s->story.exit.finished) {
        struct pollfd fds[4] = {{.fd = s->job->wake_fd, .events = POLLIN},
                                {.fd = reading ? s->event_fd : -1, .events = POLLIN},
                                {.fd = s->text_fd, .events = POLLIN},
                                {.fd = exit_fd, .events = POLLIN}};
        (void)poll(fds, 4, TICK_MS);
        uint64_t woken;
        if (fds[0].revents && read(s->job->wake_fd, &woken, sizeof woken) < 0) { /* the flag says it all */
        }
        if (s->text_fd >= 0 && fds[2].revents)
            read_text(s);
        if (reading && fds[1].revents)
            reading = read_events(s);
        enforce(s);
        (void)mf_process_wait(&s->process, 0, &s->story.exit, &error);
    }
    close_fd(&exit_fd);
    while (reading && !s->story.broke.status) { /* what it wrote before it ended */
        struct pollfd rest = {.fd = s->event_fd, .events = POLLIN};
        if (poll(&rest, 1, 0) <= 0)
            break;
        reading = read_events(s);
    }
    if (s->text_fd >= 0)
        read_text(s);
    (void)mf_last_words_line(&s->story.last_words);
}

/* ---- storing and ending ----------------------------------------------------------------------------- */

static enum mf_status store_artifact(struct supervision *s, size_t at, struct mf_error *error) {
    struct mf_job *job = s->job;
    struct mf_job_artifact *artifact = &job->artifact[at];
    char *key = NULL;
    const char *name = !strcmp(artifact->kind, "training_json") ? "training.json"
                       : !strcmp(artifact->kind, "gguf")        ? "model.gguf"
                                                                : artifact->kind;
    if (asprintf(&key, "%s/%s/%s/%s", job->claim.tenant, job->claim.lease.job_id, job->claim.attempt_id,
                 name) < 0)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for an artifact");
    enum mf_status status;
    int64_t pause_ms = 200, give_up_ms = mf_clock_monotonic_ms() + STORAGE_RETRY_MS;
    for (;;) {
        status = mf_storage_publish(job->worker->storage, job->folder, s->artifact_path[at], key,
                                    &job->kill_now, &artifact->stored, error);
        if (status != MF_ERROR_IO && status != MF_ERROR_DISK_FULL)
            break;
        if (mf_clock_monotonic_ms() > give_up_ms || atomic_load(&job->stop) != MF_STOP_NONE)
            break;
        mf_log_warning("the storage does not take an artifact",
                       MF_LOG_TEXT("job_id", job->claim.lease.job_id), MF_LOG_FAILURE(error));
        struct pollfd wake = {.fd = job->wake_fd, .events = POLLIN};
        (void)poll(&wake, 1, (int)pause_ms);
        pause_ms = pause_ms < 10000 ? pause_ms * 2 : 10000;
    }
    if (!status && artifact->stored.size_bytes != s->artifact_bytes[at])
        mf_log_warning("the trainer gave another size for an artifact", MF_LOG_TEXT("kind", artifact->kind),
                       MF_LOG_INTEGER("said", s->artifact_bytes[at]),
                       MF_LOG_INTEGER("stored", artifact->stored.size_bytes));
    free(key);
    return status;
}

/* Success is said only when every artifact is durable. */
static void store_artifacts(struct supervision *s) {
    struct mf_job *job = s->job;
    for (size_t i = 0; i < s->story.artifact_count; i++) {
        struct mf_error error;
        if (store_artifact(s, i, &error)) {
            mf_job_end_free(&job->end);
            job->end.kind = MF_END_FINISH;
            job->end.outcome = MF_OUTCOME_FAILED;
            job->end.error = error;
            int stop = atomic_load(&job->stop);
            if (error.status == MF_ERROR_PROVIDER_PROTOCOL)
                return;
            if (stop == MF_STOP_DRAIN || stop == MF_STOP_PREEMPT) {
                job->end.kind = MF_END_RELEASE;
                job->end.release = stop == MF_STOP_DRAIN ? MF_RELEASE_DRAIN : MF_RELEASE_PREEMPTED;
            } else if (stop == MF_STOP_PAUSE) {
                job->end.outcome = MF_OUTCOME_PAUSED;
            }
            return;
        }
        job->artifact_count = i + 1;
    }
}

/* The checkpoint that this attempt goes on from, as a path; NULL: from step 0. */
static enum mf_status find_checkpoint(struct mf_job *job, char **path, struct mf_error *error) {
    enum mf_status status = MF_OK;
    *path = NULL;
    if (job->claim.checkpoint_uri) {
        char *into = mf_path_join(job->folder, "resume");
        status = into ? mf_storage_fetch(job->worker->storage, job->claim.checkpoint_uri,
                                         job->claim.checkpoint_sha256, into, &job->kill_now, path, error)
                      : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a path");
        free(into);
    }
    pthread_mutex_lock(&job->lock);
    job->details.resumed_from_step = *path ? job->claim.checkpoint_step : 0;
    job->details_changed = true;
    pthread_mutex_unlock(&job->lock);
    return status;
}

/* Says that a checkpoint is gone and the work since step 0 is done again. */
static void note_lost_checkpoint(struct mf_job *job) {
    char text[1024];
    snprintf(
        text, sizeof text,
        "checkpoint_lost: the checkpoint of step %lld is not at %.700s any more; training starts again at "
        "step 0",
        (long long)job->claim.checkpoint_step, job->claim.checkpoint_uri);
    mf_job_log(job, "warning", text);
    mf_log_warning("a checkpoint is lost", MF_LOG_TEXT("job_id", job->claim.lease.job_id),
                   MF_LOG_TEXT("uri", job->claim.checkpoint_uri));
}

/* What must be there before a trainer starts. *storage_away: the storage does not answer, which is no fault
 * of the job: it goes back. */
static enum mf_status prepare(struct supervision *s, bool *storage_away, struct mf_error *error) {
    struct mf_job *job = s->job;
    char *checkpoint = NULL;
    enum mf_status status = find_checkpoint(job, &checkpoint, error);
    *storage_away = status == MF_ERROR_IO || status == MF_ERROR_DISK_FULL || status == MF_ERROR_CONFIGURATION;
    if (!status && job->claim.checkpoint_uri && !checkpoint)
        note_lost_checkpoint(job);
    if (!status)
        status = mf_attempt_write_request(s->settings, &job->claim, job->folder, checkpoint, error);
    free(checkpoint);
    return status ? status : mf_protocol_reader_init(&s->reader, -1, error);
}

static void *supervise(void *argument) {
    struct mf_job *job = argument;
    struct supervision s = {.job = job,
                            .settings = job->worker->settings,
                            .event_fd = -1,
                            .command_fd = -1,
                            .text_fd = -1,
                            .order = {.who = "trainer", .hands_over = true}};
    struct mf_error error;
    bool storage_away = false;
    enum mf_status status = prepare(&s, &storage_away, &error);
    if (!status)
        status = start_trainer(&s, &error);
    let_go_of_gpus(job); /* where no trainer was started */
    if (status) {
        s.story.broke = error;
    } else {
        watch(&s); /* reaps the trainer after killing what is left of its group */
        mf_protocol_writer_destroy(&s.writer);
    }
    mf_protocol_reader_destroy(&s.reader);
    close_fd(&s.event_fd);
    close_fd(&s.command_fd);
    close_fd(&s.text_fd);
    s.story.stop = (enum mf_stop_reason)atomic_load(&job->stop);
    mf_job_judge(&s.story, &job->end);
    if (storage_away && job->end.kind == MF_END_FINISH) {
        job->end = (struct mf_job_end){.kind = MF_END_RELEASE, .release = MF_RELEASE_WATCHDOG};
        snprintf(job->end.note, sizeof job->end.note, "given back: the checkpoint to go on from: %.1500s",
                 error.message);
    }
    if (job->end.kind == MF_END_FINISH && job->end.outcome == MF_OUTCOME_SUCCEEDED)
        store_artifacts(&s);
    for (size_t i = 0; i < s.story.artifact_count; i++)
        free(s.artifact_path[i]);
    if (*job->end.note)
        mf_job_log(job, "error", job->end.note);
    atomic_store(&job->ended, true);
    mf_wakeup_raise(&job->worker->recorder_wakeup);
    return NULL;
}

static bool in_s3(const json_t *request, const char *field) {
    const char *from = json_string_value(json_object_get(request, field));
    return from && !strncasecmp(from, "s3://", 5);
}

/* The facts of the request that belong to the attempt's record. */
static void details_from_request(struct mf_job *job) {
    json_t *request = json_loads(job->claim.config, 0, NULL);
    const json_t *seed = json_object_get(request, "seed");
    job->details = mf_attempt_details_none();
    if (json_is_integer(seed))
        job->details.seed = json_integer_value(seed);
    json_t *uuids = json_array();
    for (size_t i = 0; i < job->gpu_count; i++)
        json_array_append_new(uuids, json_string(job->gpus[i].uuid));
    job->gpu_uuids = json_dumps(uuids, JSON_COMPACT);
    job->details.gpu_uuids = job->gpu_uuids;
    json_decref(uuids);
    job->details_changed = true;
    job->dataset_in_s3 = in_s3(request, "dataset") || in_s3(request, "validation_dataset");
    job->limits_checkpoints = json_is_integer(json_object_get(request, "save_total_limit"));
    json_decref(request);
}

enum mf_status mf_supervisor_start(struct mf_worker *worker, struct mf_claim *claim, struct mf_gpu_lock *gpus,
                                   size_t gpu_count, struct mf_error *error) {
    const struct mf_settings *settings = worker->settings;
    struct mf_job *job = calloc(1, sizeof *job);
    char *spool_path = NULL;
    enum mf_status status;
    if (!job) {
        for (size_t i = 0; i < gpu_count; i++)
            mf_gpu_unlock(&gpus[i]);
        free(gpus);
        mf_claim_free(claim);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a job");
    }
    job->worker = worker;
    job->claim = *claim;
    job->gpus = gpus;
    job->gpu_count = gpu_count;
    memset(claim, 0, sizeof *claim);
    job->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&job->lock, NULL);
    details_from_request(job);
    if (job->wake_fd < 0) {
        status = mf_error_errno(error, errno, "eventfd");
        goto failed;
    }
    if ((status = mf_attempt_make_folder(settings, &job->claim, &job->folder, error)))
        goto failed;
    spool_path = mf_path_join(job->folder, "metrics.spool");
    struct mf_spool_limits limits = {(size_t)settings->spool_memory_bytes, settings->spool_file_bytes};
    status = spool_path ? mf_spool_open(spool_path, &limits, &job->spool, error)
                        : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a job");
    if (status)
        goto failed;
    int failure = pthread_create(&job->thread, NULL, supervise, job);
    if (failure) {
        status = mf_error_errno(error, failure, "supervisor thread");
        goto failed;
    }
    mf_job_table_add(worker->jobs, job); /* from here on it is the recorder that frees it */
    free(spool_path);
    return MF_OK;
failed:
    free(spool_path);
    mf_supervisor_free(job);
    return status;
}

void mf_supervisor_free(struct mf_job *job) {
    struct mf_error error;
    if (atomic_load(&job->ended))
        pthread_join(job->thread, NULL);
    mf_spool_close(job->spool);
    if (job->folder && mf_tree_remove(job->folder, &error))
        mf_log_warning("an attempt's folder could not be removed", MF_LOG_TEXT("folder", job->folder),
                       MF_LOG_FAILURE(&error));
    for (size_t i = 0; i < job->artifact_count; i++)
        mf_stored_artifact_free(&job->artifact[i].stored);
    mf_stored_artifact_free(&job->checkpoint.stored);
    mf_job_end_free(&job->end);
    mf_claim_free(&job->claim);
    let_go_of_gpus(job);
    free(job->gpus);
    if (job->wake_fd >= 0)
        close(job->wake_fd);
    pthread_mutex_destroy(&job->lock);
    free(job->folder);
    free(job->device);
    free(job->gpu_uuids);
    free(job->versions);
    free(job->numeric_plan_sha256);
    free(job->dataset_sha256);
    free(job->base_revision);
    free(job);
}
