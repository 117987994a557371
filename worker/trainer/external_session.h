/* A provider's program that runs: starts it, reads what it reports, sends it commands, says how it ended. It
 * lives in this process's group and dies with this process. One thread.
 *
 *     mf_session_start
 *     mf_session_turn, mf_session_command ...   until it says that the program has ended
 *     mf_session_close */
#ifndef MF_WORKER_TRAINER_EXTERNAL_SESSION_H
#define MF_WORKER_TRAINER_EXTERNAL_SESSION_H

#include "common/last_words.h"
#include "common/process.h"
#include "providers/external.h"
#include "worker/trainer/event_order.h"

struct mf_session_options {
    struct mf_external *program;                   /* borrowed */
    const char *request_path;                      /* the program's argument */
    const char *directory;                         /* where it runs */
    const char *output_folder, *checkpoint_folder; /* where artifacts and checkpoints must be */
    const json_t *environment;                     /* see mf_external_environment() */
    int64_t hello_ms;                              /* it must say hello within this time */
    bool show_text; /* what it writes on its outputs goes to our standard error */
    /* Every event that keeps to the order, its path absolute and below its folder. */
    void (*on_event)(void *context, const struct mf_event *event);
    void *context;
};

struct mf_session {
    struct mf_session_options options;
    struct mf_process process;
    struct mf_protocol_writer writer;
    struct mf_protocol_reader reader;
    int event_fd, command_fd, text_fd; /* -1 once closed */
    struct mf_event_order order;
    int64_t started_ms, closed_ms, terminal_ms; /* closed: its events; 0: not yet */
    enum mf_phase phase;
    bool killed;
    struct mf_error broke;       /* of the protocol: status MF_OK, or MF_ERROR_PROVIDER_PROTOCOL and why */
    struct mf_process_exit exit; /* finished: it has ended, and all that it wrote was read */
    struct mf_last_words last_words;
};

/* MF_ERROR_PROVIDER_UNAVAILABLE when it cannot be started. *session must stay where it is. */
enum mf_status mf_session_start(const struct mf_session_options *options, struct mf_session *session,
                                struct mf_error *error);

/* Waits up to timeout_ms for something to read, and reads it. A program that breaks the protocol, or does not
 * say hello in time, or does not end after its terminal line, is killed. */
void mf_session_turn(struct mf_session *session, int timeout_ms);

/* Returns the command's number, which the program acknowledges. */
int64_t mf_session_command(struct mf_session *session, enum mf_trainer_command_type type);

void mf_session_kill(struct mf_session *session);
void mf_session_close(struct mf_session *session); /* kills it where it still runs; a zeroed one too */

/* How it ended: MF_OK with a terminal line and the exit status that belongs to it; else
 * MF_ERROR_PROVIDER_PROTOCOL or MF_ERROR_TRAINER_CRASHED. */
enum mf_status mf_session_judge(struct mf_session *session, struct mf_error *error);

#endif
