/* What every unit test includes: cmocka with what it needs before it, and a scratch folder. */
#ifndef MF_TESTS_COMMON_UNIT_H
#define MF_TESTS_COMMON_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"

enum { SCRATCH_BYTES = 256 };

/* A new empty folder; remove it with scratch_remove. */
static inline char *scratch_make(char path[SCRATCH_BYTES]) {
    const char *base = getenv("TMPDIR");
    snprintf(path, SCRATCH_BYTES, "%s/modelforge-test-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

static inline void scratch_remove(const char *path) {
    struct mf_error error;
    assert_int_equal(mf_tree_remove(path, &error), MF_OK);
}

/* Fails the test with the message when status is not what it should be. */
#define assert_status(call, expected)                                                                 \
    do {                                                                                              \
        enum mf_status status_ = (call);                                                              \
        if (status_ != (expected))                                                                    \
            fail_msg("status %s, expected %s: %s", mf_status_code(status_), mf_status_code(expected), \
                     error.message);                                                                  \
    } while (0)

#define assert_contains(text, part)                                     \
    do {                                                                \
        if (!strstr((text), (part)))                                    \
            fail_msg("\"%s\" does not contain \"%s\"", (text), (part)); \
    } while (0)

#endif
