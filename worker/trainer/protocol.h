/* The trainer protocol: JSON lines of at most 64 kB between modelforge-worker and a training process.
 *
 *     events    trainer -> worker on descriptor 3      commands  worker -> trainer on descriptor 4
 *
 * Every line is one JSON object with a "type". A trainer sends `hello` before it starts a device, then
 * `plan`, `progress`, `step`, `eval`, `checkpoint`, `artifact`, `log` as they happen, answers every numbered
 * command with `ack` (a ping with `pong`), and ends with exactly one terminal line and its exit status:
 *
 *     done 0        paused 3        cancelled 4        error 1        anything else is a crash
 *
 * Unknown event types and unknown members are ignored by the reader, so that a newer trainer may talk to an
 * older worker; a missing or mistyped member is MF_ERROR_PROVIDER_PROTOCOL. Numbers that are not finite
 * travel as null and are read as NAN. This unit needs only common/; it is linked into both programs. */
#ifndef MF_WORKER_TRAINER_PROTOCOL_H
#define MF_WORKER_TRAINER_PROTOCOL_H

#include "common/error.h"

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MF_PROTOCOL_VERSION = 1,
    MF_PROTOCOL_EVENT_FD = 3,
    MF_PROTOCOL_COMMAND_FD = 4,
    MF_PROTOCOL_LINE_BYTES = 65536, /* with the newline */
    MF_PROTOCOL_MAX_DEVICES = 64,
    MF_PROTOCOL_MAX_TEXT = 4096 /* bytes of one string member, without the NUL */
};

/* Exit status of a trainer, by its terminal line. */
enum {
    MF_TRAINER_EXIT_DONE = 0,
    MF_TRAINER_EXIT_ERROR = 1,
    MF_TRAINER_EXIT_PAUSED = 3,
    MF_TRAINER_EXIT_CANCELLED = 4
};

enum mf_event_type {
    MF_EVENT_UNKNOWN, /* a type that this version does not know: ignore it */
    MF_EVENT_HELLO,
    MF_EVENT_PLAN,
    MF_EVENT_PROGRESS,
    MF_EVENT_STEP,
    MF_EVENT_EVAL,
    MF_EVENT_CHECKPOINT,
    MF_EVENT_ARTIFACT,
    MF_EVENT_LOG,
    MF_EVENT_PONG,
    MF_EVENT_ACK,
    MF_EVENT_DONE,
    MF_EVENT_PAUSED,
    MF_EVENT_CANCELLED,
    MF_EVENT_ERROR,
    MF_EVENT_TYPE_COUNT
};

enum mf_phase {
    MF_PHASE_LOAD,
    MF_PHASE_PLAN,
    MF_PHASE_TRAIN,
    MF_PHASE_EVALUATE,
    MF_PHASE_SAVE,
    MF_PHASE_COUNT
};

/* Name "cpu" or "cuda:0"; description "AMD EPYC ...", uuid "" for a CPU. */
struct mf_event_device {
    const char *name, *description, *uuid;
    int64_t memory_bytes;
};

/* One event. The strings are borrowed: when writing from the caller for the time of the call; when read they
 * live in the event until mf_event_destroy(). Members after `type` are of the union's member of that type;
 * pong and ack use `number`, paused and cancelled have none. */
struct mf_event {
    enum mf_event_type type;
    union {
        struct {
            int64_t protocol;    /* MF_PROTOCOL_VERSION; filled in by the writer */
            const char *version; /* of the trainer program */
            struct mf_event_device device[MF_PROTOCOL_MAX_DEVICES];
            size_t device_count;
        } hello;
        struct {
            int64_t managed_bytes, total_steps, train_rows, eval_rows, train_tokens, truncated_rows,
                dropped_rows;
            const char *numeric_plan_sha256; /* 64 hexadecimal digits */
            const char *dataset_sha256;      /* the same, of the file as it was read; may be left out: "" */
            const char *base_revision;       /* a hub's commit, 40 digits; left out or "" for a folder */
            /* of the checkpoint that the run goes on from, where that is another than the run's own: the run
             * is no exact one. Left out or "": it is, or it begins at step 0 */
            const char *resumed_plan_sha256;
        } plan;
        struct {
            enum mf_phase phase;
            double fraction; /* of this phase, 0 to 1, never falls within a phase */
        } progress;
        struct {
            int64_t step; /* optimiser steps done, from 1 */
            double epoch, loss, learning_rate, gradient_norm;
            int64_t tokens; /* trained in this step */
            double tokens_per_second, elapsed_seconds;
        } step;
        struct {
            int64_t step;
            double loss, perplexity;
        } eval;
        struct {
            int64_t step;
            const char
                *path; /* absolute, or relative to the attempt's folder; of a program, see external_input.h */
        } checkpoint;
        struct {
            const char *kind; /* adapter, model, merged_16bit, gguf, training_json */
            const char *path; /* a file or a folder, as above */
            int64_t size_bytes;
        } artifact;
        struct {
            const char *level; /* debug, info, warning, error */
            const char *message;
        } log;
        int64_t number; /* pong, ack: the command's number */
        struct {
            int64_t steps;
            double train_loss, eval_loss, perplexity; /* NAN where there was no evaluation */
            int64_t trained_tokens;
        } done;
        struct {
            const char *code; /* of common/errors.def */
            const char *message;
        } error;
    };
    json_t *storage; /* of a read event: holds its strings; NULL when writing */
};

enum mf_trainer_command_type {
    MF_TRAINER_CHECKPOINT,
    MF_TRAINER_PAUSE,
    MF_TRAINER_CANCEL,
    MF_TRAINER_PING,
    MF_TRAINER_COUNT
};

struct mf_trainer_command {
    enum mf_trainer_command_type type;
    int64_t number; /* from 1, grows */
};

const char *mf_event_type_name(enum mf_event_type type); /* "step"; "unknown" for MF_EVENT_UNKNOWN */
const char *mf_phase_name(enum mf_phase phase);          /* "load" */
const char *mf_trainer_command_name(enum mf_trainer_command_type type); /* "cancel" */
bool mf_event_is_terminal(enum mf_event_type type);                     /* done, paused, cancelled, error */

/* Whether this process was started by a worker: descriptors 3 and 4 are pipes or sockets of the right
 * direction. Otherwise the trainer runs standalone. */
bool mf_protocol_attached(void);

/* ---- writing ---------------------------------------------------------------------------------------- */

/* Writes whole lines to a descriptor that it does not own. mf_protocol_send_*() may be called by several
 * threads. The process must ignore SIGPIPE. */
struct mf_protocol_writer {
    int fd;
    pthread_mutex_t lock;
};

void mf_protocol_writer_init(struct mf_protocol_writer *writer, int fd);
void mf_protocol_writer_destroy(struct mf_protocol_writer *writer); /* leaves the descriptor open */

/* Sends one event:
 *     mf_protocol_send_event(&writer, &(struct mf_event){.type = MF_EVENT_EVAL, .eval = {10, 1.5, 4.48}},
 * &error); Strings longer than MF_PROTOCOL_MAX_TEXT are cut at a character boundary; bytes that are not UTF-8
 * become
 * '?'. Blocks while the pipe is full (on a blocking descriptor). Fails with MF_ERROR_IO when the other side
 * is gone: a trainer then has lost its worker and must stop. */
enum mf_status mf_protocol_send_event(struct mf_protocol_writer *writer, const struct mf_event *event,
                                      struct mf_error *error);

enum mf_status mf_protocol_send_command(struct mf_protocol_writer *writer,
                                        const struct mf_trainer_command *command, struct mf_error *error);

/* ---- reading ---------------------------------------------------------------------------------------- */

enum mf_read_result {
    MF_READ_DATA,  /* bytes came: take lines with mf_protocol_reader_next() */
    MF_READ_AGAIN, /* non-blocking descriptor, nothing there now */
    MF_READ_END,   /* the other side closed; an unfinished last line is dropped */
    MF_READ_FAILED
};

/* Cuts a stream into lines; memory is one line. One thread at a time. */
struct mf_protocol_reader {
    int fd;
    char *buffer; /* MF_PROTOCOL_LINE_BYTES */
    size_t used;  /* bytes in the buffer */
    size_t taken; /* of which already returned as lines */
};

enum mf_status mf_protocol_reader_init(struct mf_protocol_reader *reader, int fd, struct mf_error *error);
void mf_protocol_reader_destroy(struct mf_protocol_reader *reader); /* leaves the descriptor open */

/* One read(2). Take all lines with mf_protocol_reader_next() before the next call. MF_READ_FAILED fills
 * *error: MF_ERROR_PROVIDER_PROTOCOL for a line that is too long, MF_ERROR_IO otherwise. */
enum mf_read_result mf_protocol_reader_fill(struct mf_protocol_reader *reader, struct mf_error *error);

/* The next whole line, without its newline and with a NUL after it, or NULL. It lives until the next call of
 * mf_protocol_reader_fill(). */
const char *mf_protocol_reader_next(struct mf_protocol_reader *reader, size_t *length);

/* Decodes one line; in its texts mf_json_clean_text() has been. On success the caller owns *event until
 * mf_event_destroy(); on failure it needs none. */
enum mf_status mf_event_decode(const char *line, size_t length, struct mf_event *event,
                               struct mf_error *error);
void mf_event_destroy(struct mf_event *event);

enum mf_status mf_trainer_command_decode(const char *line, size_t length, struct mf_trainer_command *command,
                                         struct mf_error *error);

#endif
