#include "common/answer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

static int64_t left_ms(int64_t until_ms) {
    const int64_t left = until_ms - mf_clock_monotonic_ms();
    return left < 0 ? 0 : left;
}

static enum mf_status read_all(int descriptor, int words_descriptor, size_t most_bytes, int64_t until_ms,
                               struct mf_text *answer, struct mf_last_words *words, enum mf_answer *how,
                               struct mf_error *error) {
    char block[4096];
    const size_t first = answer->length;
    int64_t left;
    *how = MF_ANSWER_TOO_LONG;
    while (answer->length - first < most_bytes && !answer->failed) {
        struct pollfd ready[2] = {{.fd = descriptor, .events = POLLIN},
                                  {.fd = words_descriptor, .events = POLLIN}}; /* -1: not looked at */
        if ((left = left_ms(until_ms)) == 0) {
            *how = MF_ANSWER_TOO_LATE;
            return MF_OK;
        }
        if (poll(ready, 2, left > 1000 ? 1000 : (int)left) <= 0)
            continue;
        if (ready[1].revents && !mf_last_words_read(words, words_descriptor, -1))
            words_descriptor = -1;
        if (!ready[0].revents)
            continue;
        const ssize_t n = read(descriptor, block, sizeof block);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return mf_error_errno(error, errno, "what a process says");
        if (n > 0)
            mf_text_append(answer, block, (size_t)n);
        if (n == 0) {
            *how = MF_ANSWER_WHOLE;
            return MF_OK;
        }
    }
    return MF_OK;
}

enum mf_status mf_answer_read_both(struct mf_process *process, int descriptor, int words_descriptor,
                                   size_t most_bytes, int64_t timeout_ms, struct mf_text *answer,
                                   struct mf_last_words *words, struct mf_process_exit *exit,
                                   enum mf_answer *how, struct mf_error *error) {
    const int64_t until_ms = mf_clock_monotonic_ms() + timeout_ms;
    memset(exit, 0, sizeof *exit);
    enum mf_status status =
        read_all(descriptor, words_descriptor, most_bytes, until_ms, answer, words, how, error);
    if (status == MF_OK && *how == MF_ANSWER_WHOLE) {
        status = mf_process_wait(process, left_ms(until_ms), exit, error);
        if (status == MF_OK && !exit->finished) /* it closed its end and went on */
            *how = MF_ANSWER_TOO_LATE;
    }
    if (!exit->finished) {
        struct mf_error ignored;
        mf_process_kill_group(process, SIGKILL);
        const enum mf_status reaped = mf_process_wait(process, -1, exit, status == MF_OK ? error : &ignored);
        status = status == MF_OK ? reaped : status;
    }
    if (words_descriptor >= 0)
        (void)mf_last_words_read(words, words_descriptor, -1);
    return status;
}

enum mf_status mf_answer_read(struct mf_process *process, int descriptor, size_t most_bytes,
                              int64_t timeout_ms, struct mf_text *answer, struct mf_process_exit *exit,
                              enum mf_answer *how, struct mf_error *error) {
    return mf_answer_read_both(process, descriptor, -1, most_bytes, timeout_ms, answer, NULL, exit, how,
                               error);
}
