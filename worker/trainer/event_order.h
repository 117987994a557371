/* What a trainer may say when: the one place for the worker that supervises a trainer, for the trainer that
 * runs a provider's program, and for the check of such a program. One thread.
 *
 *     hello       first, once, of this protocol's version; a trainer that hands over to a provider's program
 *                 says what that is in a second one, before plan, and progress begins anew
 *     plan        once; before step, eval, checkpoint, artifact and done; its digests are sha256
 *     step        from 1, growing
 *     checkpoint  of a step above that of the one before
 *     artifact    of a known kind, each once
 *     progress    fraction in [0, 1], not below the one before it of the same phase; evaluate and save may
 *                 begin anew
 *     ack, pong   each once, of a command that was sent: pong of a ping, ack of any other; also after the
 * end, because the command may have come then done, paused, cancelled, error last
 */
#ifndef MF_WORKER_TRAINER_EVENT_ORDER_H
#define MF_WORKER_TRAINER_EVENT_ORDER_H

#include "worker/trainer/protocol.h"

enum { MF_ORDER_ARTIFACTS = 5 }; /* kinds that there are */

struct mf_event_order {
    const char *who; /* "trainer", "program": in messages */
    bool hands_over; /* it may say a second hello */
    bool hello, plan;
    int64_t step, checkpoint_step;
    double fraction[MF_PHASE_COUNT];
    bool artifact[MF_ORDER_ARTIFACTS];
    enum mf_event_type terminal; /* MF_EVENT_UNKNOWN: none yet */
    int64_t commands;            /* sent */
    uint64_t open, pings;        /* of the last 64, by number modulo 64: not answered yet, a ping */
};

/* Takes a decoded event. MF_ERROR_PROVIDER_PROTOCOL where it breaks the order, with what was said; the order
 * stands then as before. */
enum mf_status mf_event_order_take(struct mf_event_order *order, const struct mf_event *event,
                                   struct mf_error *error);

/* The number of a command that is sent now. */
int64_t mf_event_order_command(struct mf_event_order *order, enum mf_trainer_command_type type);

/* The exit status that belongs to a terminal line. */
int mf_event_exit_status(enum mf_event_type terminal);

#endif
