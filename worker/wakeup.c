#include "worker/wakeup.h"

#include "common/clock.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

void mf_wakeup_init(struct mf_wakeup *wakeup) {
    wakeup->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

void mf_wakeup_destroy(struct mf_wakeup *wakeup) {
    if (wakeup->fd >= 0)
        close(wakeup->fd);
    wakeup->fd = -1;
}

void mf_wakeup_raise(struct mf_wakeup *wakeup) {
    const uint64_t one = 1;
    if (wakeup->fd >= 0 && write(wakeup->fd, &one, sizeof one) < 0) { /* full: it is raised */
    }
}

bool mf_wakeup_wait(struct mf_wakeup *wakeup, int64_t timeout_ms) {
    const int64_t until_ms = mf_clock_monotonic_ms() + timeout_ms;
    for (;;) {
        uint64_t raised;
        int64_t left_ms = until_ms - mf_clock_monotonic_ms();
        struct pollfd event = {.fd = wakeup->fd, .events = POLLIN};
        if (left_ms > INT_MAX)
            left_ms = INT_MAX;
        const int ready = poll(&event, 1, left_ms > 0 ? (int)left_ms : 0);
        if (ready > 0)
            return read(wakeup->fd, &raised, sizeof raised) == (ssize_t)sizeof raised;
        if (left_ms <= 0 || (ready < 0 && errno != EINTR))
            return false;
    }
}
