/* What a run tells and what it is told: the trainer protocol under a worker, text for a person otherwise.
 *
 * Under a worker (descriptors 3 and 4 are its pipes) every call sends one protocol line, and a thread answers
 * commands at any time: ping with pong, cancel with ack and the cancelled flag, checkpoint and pause with ack
 * and a flag that the loop looks at between two steps. Standalone, standard output gets plain lines, or a
 * progress bar when it is a terminal. SIGTERM, SIGINT and a worker that is gone set the cancelled flag too.
 *
 * One report a process. Calls that tell something: the thread that opened it; with a report of NULL (tests)
 * they tell nobody and nothing is cancelled. */
#ifndef MF_WORKER_TRAINER_REPORT_H
#define MF_WORKER_TRAINER_REPORT_H

#include "common/error.h"
#include "worker/trainer/protocol.h"

#include <stdbool.h>
#include <stdint.h>

struct mf_report;

/* Opens the descriptors, starts the thread, catches signals, ignores SIGPIPE; sends `hello` under a worker.
 * `on_cuda`: the run is to compute on the first GPU, which `hello` then names first; the CPU is always named.
 */
enum mf_status mf_report_open(bool on_cuda, struct mf_report **report, struct mf_error *error);
/* Ends the thread and the progress bar; NULL is fine. */
void mf_report_close(struct mf_report *report);

bool mf_report_attached(const struct mf_report *report); /* under a worker */

/* True once the run is to end; any thread. The argument is a struct mf_report, so that it fits
 * mf_provider_context's `cancelled`. */
bool mf_report_cancelled(void *report);
/* True once the worker wants the run to stop with a checkpoint; any thread. */
bool mf_report_pause_wanted(struct mf_report *report);
/* True once for each time that the worker asked for a checkpoint since the last call. */
bool mf_report_take_checkpoint(struct mf_report *report);
/* MF_OK or MF_ERROR_CANCELLED. */
enum mf_status mf_report_check(struct mf_report *report, struct mf_error *error);

/* Sends or shows one event of any type but pong, ack and the terminal ones. A worker that is gone sets
 * the cancelled flag; there is nobody left to tell, so this returns nothing. */
void mf_report_event(struct mf_report *report, const struct mf_event *event);
/* Shorthands. `format` as printf. */
void mf_report_progress(struct mf_report *report, enum mf_phase phase, double fraction);
void mf_report_log(struct mf_report *report, const char *level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The one terminal line; returns the exit status that belongs to it. `done` (of type done or paused) is read
 * when status is MF_OK; MF_ERROR_CANCELLED ends as cancelled, everything else as error. */
int mf_report_end(struct mf_report *report, enum mf_status status, const struct mf_event *done,
                  const struct mf_error *error);
/* The same of a terminal event of any type that somebody else said. */
int mf_report_end_as(struct mf_report *report, const struct mf_event *terminal);

#endif
