#include "worker/wakeup.h"

#include <time.h>

void mf_wakeup_init(struct mf_wakeup *wakeup) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&wakeup->lock, NULL);
    pthread_cond_init(&wakeup->raised_condition, &attributes);
    pthread_condattr_destroy(&attributes);
    wakeup->raised = false;
}

void mf_wakeup_destroy(struct mf_wakeup *wakeup) {
    pthread_cond_destroy(&wakeup->raised_condition);
    pthread_mutex_destroy(&wakeup->lock);
}

void mf_wakeup_raise(struct mf_wakeup *wakeup) {
    pthread_mutex_lock(&wakeup->lock);
    wakeup->raised = true;
    pthread_cond_signal(&wakeup->raised_condition);
    pthread_mutex_unlock(&wakeup->lock);
}

bool mf_wakeup_wait(struct mf_wakeup *wakeup, int64_t timeout_ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&wakeup->lock);
    while (!wakeup->raised && !pthread_cond_timedwait(&wakeup->raised_condition, &wakeup->lock, &until)) {
    }
    bool raised = wakeup->raised;
    wakeup->raised = false;
    pthread_mutex_unlock(&wakeup->lock);
    return raised;
}
