/* What a child process says before it ends: with a bound on how much, and on how long both take. */
#ifndef MF_COMMON_ANSWER_H
#define MF_COMMON_ANSWER_H

#include <stddef.h>
#include <stdint.h>

#include "common/last_words.h"
#include "common/process.h"
#include "common/text.h"

enum mf_answer {
    MF_ANSWER_WHOLE,    /* it closed its end, and ended in time: *exit says how */
    MF_ANSWER_TOO_LONG, /* most_bytes and no end */
    MF_ANSWER_TOO_LATE  /* the time was over: before it closed its end, or before it ended */
};

/* Reads `descriptor`, which stays the caller's, until all who hold its other end closed it, and reaps the
 * process. One that says too much, or takes too long, is killed with its group. *answer is appended to;
 * whether memory was enough says mf_text_status(). The status is that of the system's calls. */
enum mf_status mf_answer_read(struct mf_process *process, int descriptor, size_t most_bytes,
                              int64_t timeout_ms, struct mf_text *answer, struct mf_process_exit *exit,
                              enum mf_answer *how, struct mf_error *error);

/* The same, and the end of what it writes to `words_descriptor`, the caller's too, which does not block. */
enum mf_status mf_answer_read_both(struct mf_process *process, int descriptor, int words_descriptor,
                                   size_t most_bytes, int64_t timeout_ms, struct mf_text *answer,
                                   struct mf_last_words *words, struct mf_process_exit *exit,
                                   enum mf_answer *how, struct mf_error *error);

#endif
