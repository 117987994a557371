#include "worker/trainer/external_session.h"

#include "common/clock.h"
#include "common/files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    LAST_EVENT_MS = 5000, /* from the end of its events without a terminal line to the exit */
    LAST_WORD_MS =
        60000,          /* from the terminal line to the exit: what has loaded much takes a while to leave */
    EVENTS_A_TURN = 256 /* so that commands get their turn */
};

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- starting ---- */

static enum mf_status spawn(struct mf_session *session, const int *events, const int *commands,
                            const int *text, struct mf_error *error) {
    struct mf_process_options how =
        mf_external_options(session->options.program, "run", session->options.request_path);
    char **environment = mf_external_environment(session->options.program, session->options.environment);
    const struct mf_process_descriptor descriptors[] = {{events[1], MF_PROTOCOL_EVENT_FD},
                                                        {commands[0], MF_PROTOCOL_COMMAND_FD},
                                                        {text[1], STDOUT_FILENO},
                                                        {text[1], STDERR_FILENO}};
    if (!environment)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to start a program");
    how.environment = (const char *const *)environment;
    how.directory = session->options.directory;
    how.descriptors = descriptors;
    how.descriptor_count = sizeof descriptors / sizeof *descriptors;
    how.keep_group = true; /* whoever kills us kills all that it started */
    enum mf_status status = mf_process_spawn(&how, &session->process, error);
    mf_external_environment_free(environment);
    return status == MF_OK ? status
                           : mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "provider '%s': %s",
                                          session->options.program->name, error->message);
}

enum mf_status mf_session_start(const struct mf_session_options *options, struct mf_session *session,
                                struct mf_error *error) {
    int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}; /* events, commands, text */
    *session = (struct mf_session){
        .options = *options, .event_fd = -1, .command_fd = -1, .text_fd = -1, .order = {.who = "program"}};
    enum mf_status status = MF_OK;
    for (int i = 0; i < 3; i++)
        if (status == MF_OK && pipe2(pipes[i], O_CLOEXEC))
            status = mf_error_errno(error, errno, "a pipe to a program");
    if (status == MF_OK)
        status = mf_protocol_reader_init(&session->reader, pipes[0][0], error);
    if (status == MF_OK && (status = spawn(session, pipes[0], pipes[1], pipes[2], error)) != MF_OK)
        mf_protocol_reader_destroy(&session->reader);
    if (status == MF_OK) {
        session->event_fd = pipes[0][0];
        session->command_fd = pipes[1][1];
        session->text_fd = pipes[2][0];
        (void)fcntl(session->event_fd, F_SETFL, O_NONBLOCK);
        (void)fcntl(session->command_fd, F_SETFL, O_NONBLOCK); /* one that never reads them blocks nobody */
        (void)fcntl(session->text_fd, F_SETFL, O_NONBLOCK);
        mf_protocol_writer_init(&session->writer, session->command_fd);
        session->started_ms = mf_clock_monotonic_ms();
        pipes[0][0] = pipes[1][1] = pipes[2][0] = -1;
    }
    for (int i = 0; i < 3; i++) {
        close_fd(&pipes[i][0]);
        close_fd(&pipes[i][1]);
    }
    return status;
}

/* ---- reading ---- */

/* A path of the program's, relative to `folder` or absolute, as an absolute one without links. */
static enum mf_status find_path(const char *what, const char *folder, const char *path, char **resolved,
                                struct mf_error *error) {
    struct mf_error why;
    if (mf_path_resolve_beneath(folder, path, resolved, &why) == MF_OK)
        return MF_OK;
    return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL,
                        "the program named the %s '%.300s', which is not in its folder for that, %.300s",
                        what, path, folder);
}

static void take_event(struct mf_session *session, struct mf_event *event) {
    struct mf_error error;
    char *path = NULL;
    enum mf_status status = mf_event_order_take(&session->order, event, &error);
    if (status == MF_OK && event->type == MF_EVENT_ARTIFACT)
        status = find_path("artifact", session->options.output_folder, event->artifact.path, &path, &error);
    if (status == MF_OK && event->type == MF_EVENT_CHECKPOINT)
        status = find_path("checkpoint", session->options.checkpoint_folder, event->checkpoint.path, &path,
                           &error);
    if (status != MF_OK) {
        session->broke = error;
        return;
    }
    if (event->type == MF_EVENT_ARTIFACT)
        event->artifact.path = path;
    if (event->type == MF_EVENT_CHECKPOINT)
        event->checkpoint.path = path;
    if (event->type == MF_EVENT_PROGRESS)
        session->phase = event->progress.phase;
    if (event->type == MF_EVENT_STEP)
        session->phase = MF_PHASE_TRAIN;
    if (mf_event_is_terminal(event->type))
        session->terminal_ms = mf_clock_monotonic_ms();
    session->options.on_event(session->options.context, event);
    free(path);
}

static void read_events(struct mf_session *session) {
    int taken = 0;
    while (!session->broke.status && taken < EVENTS_A_TURN) {
        struct mf_error error;
        enum mf_read_result result = mf_protocol_reader_fill(&session->reader, &error);
        if (result == MF_READ_AGAIN)
            return;
        if (result == MF_READ_FAILED)
            session->broke = error;
        if (result != MF_READ_DATA) {
            close_fd(&session->event_fd);
            session->closed_ms = mf_clock_monotonic_ms();
            return;
        }
        size_t length;
        for (const char *line;
             !session->broke.status && (line = mf_protocol_reader_next(&session->reader, &length)); taken++) {
            struct mf_event event;
            if (mf_event_decode(line, length, &event, &error) != MF_OK) {
                session->broke = error;
                return;
            }
            if (event.type != MF_EVENT_UNKNOWN)
                take_event(session, &event);
            mf_event_destroy(&event);
        }
    }
}

static void read_text(struct mf_session *session) {
    const int copy_to = session->options.show_text ? STDERR_FILENO : -1;
    if (!mf_last_words_read(&session->last_words, session->text_fd, copy_to))
        close_fd(&session->text_fd);
}

static void enforce(struct mf_session *session) {
    const int64_t now = mf_clock_monotonic_ms();
    if (!session->order.hello && !session->broke.status &&
        now - session->started_ms > session->options.hello_ms)
        mf_error_set(&session->broke, MF_ERROR_PROVIDER_PROTOCOL,
                     "the program did not say hello within %lld s",
                     (long long)(session->options.hello_ms / 1000));
    if (session->closed_ms && !session->terminal_ms && !session->broke.status &&
        now - session->closed_ms > LAST_EVENT_MS)
        mf_error_set(&session->broke, MF_ERROR_PROVIDER_PROTOCOL,
                     "the program closed its events (descriptor %d) in phase %s after step %lld, and went on",
                     MF_PROTOCOL_EVENT_FD, mf_phase_name(session->phase), (long long)session->order.step);
    if (session->broke.status || (session->terminal_ms && now - session->terminal_ms > LAST_WORD_MS))
        mf_session_kill(session);
}

void mf_session_turn(struct mf_session *session, int timeout_ms) {
    struct mf_error error;
    struct pollfd fds[2] = {{.fd = session->event_fd, .events = POLLIN},
                            {.fd = session->text_fd, .events = POLLIN}};
    if (session->exit.finished)
        return;
    (void)poll(fds, 2, timeout_ms);
    if (session->text_fd >= 0 && fds[1].revents)
        read_text(session);
    if (session->event_fd >= 0 && fds[0].revents)
        read_events(session);
    enforce(session);
    struct mf_process_exit exit = {0};
    if (mf_process_wait(&session->process, session->event_fd < 0 ? 10 : 0, &exit, &error) != MF_OK)
        exit.finished = true;
    if (!exit.finished)
        return;
    while (session->event_fd >= 0 && !session->broke.status) { /* what it wrote before it ended */
        struct pollfd rest = {.fd = session->event_fd, .events = POLLIN};
        if (poll(&rest, 1, 0) <= 0)
            break;
        read_events(session);
    }
    if (session->text_fd >= 0)
        read_text(session);
    session->exit = exit;
}

/* ---- commands and the end ---- */

int64_t mf_session_command(struct mf_session *session, enum mf_trainer_command_type type) {
    struct mf_error error;
    const struct mf_trainer_command command = {type, mf_event_order_command(&session->order, type)};
    (void)mf_protocol_send_command(&session->writer, &command, &error); /* gone: the exit will tell */
    return command.number;
}

void mf_session_kill(struct mf_session *session) {
    if (!session->killed && session->process.pid > 0)
        mf_process_kill_group(&session->process, SIGKILL);
    session->killed = true;
}

void mf_session_close(struct mf_session *session) {
    if (!session->options.program)
        return;
    mf_session_kill(session);
    while (!session->exit.finished)
        mf_session_turn(session, 100);
    mf_protocol_reader_destroy(&session->reader);
    mf_protocol_writer_destroy(&session->writer);
    close_fd(&session->event_fd);
    close_fd(&session->command_fd);
    close_fd(&session->text_fd);
    session->options.program = NULL;
}

enum mf_status mf_session_judge(struct mf_session *session, struct mf_error *error) {
    const char *words = mf_last_words_line(&session->last_words);
    const enum mf_event_type terminal = session->order.terminal;
    char how[128];
    if (session->broke.status)
        return mf_error_set(error, session->broke.status, "%s", session->broke.message);
    mf_process_exit_text(&session->exit, how, sizeof how);
    if (terminal == MF_EVENT_UNKNOWN)
        return mf_error_set(
            error, MF_ERROR_TRAINER_CRASHED,
            "the program of provider '%s' ended without saying why: %s in phase %s after step "
            "%lld%s%s",
            session->options.program->name, how, mf_phase_name(session->phase),
            (long long)session->order.step, *words ? "; it wrote: " : "", words);
    if (session->exit.signal || session->exit.code != mf_event_exit_status(terminal))
        return mf_error_set(error, MF_ERROR_TRAINER_CRASHED,
                            "the program of provider '%s' said %s but then ended with %s%s",
                            session->options.program->name, mf_event_type_name(terminal), how,
                            session->killed ? ": it did not end by itself" : "");
    return MF_OK;
}
