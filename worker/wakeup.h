/* A flag that one thread waits for and others raise. */
#ifndef MF_WORKER_WAKEUP_H
#define MF_WORKER_WAKEUP_H

#include <stdbool.h>
#include <stdint.h>

struct mf_wakeup {
    int fd; /* an eventfd: readable while the flag is raised, so that a thread may wait for other things, too;
               -1 when it could not be made: then every wait lasts its whole time */
};

void mf_wakeup_init(struct mf_wakeup *wakeup);
void mf_wakeup_destroy(struct mf_wakeup *wakeup);
void mf_wakeup_raise(struct mf_wakeup *wakeup); /* any thread */
/* Waits until it is raised, at most timeout_ms, and lowers it. True when it was raised. */
bool mf_wakeup_wait(struct mf_wakeup *wakeup, int64_t timeout_ms);

#endif
