#include "worker/failpoint.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Whether this is the n-th time that the place which `variable` names was passed. */
static bool reached(const char *variable, const char *name, atomic_int *passed) {
    const char *wanted = getenv(variable);
    size_t length = strlen(name);
    if (!wanted || strncmp(wanted, name, length) != 0 || (wanted[length] && wanted[length] != ':'))
        return false;
    long nth = wanted[length] ? strtol(wanted + length + 1, NULL, 10) : 1;
    return atomic_fetch_add(passed, 1) + 1 == nth;
}

void mf_failpoint(const char *name) {
    static atomic_int passed;
    if (reached("MF_TEST_FAILPOINT", name, &passed))
        raise(SIGKILL);
}

bool mf_fault(const char *name) {
    static atomic_int passed;
    return reached("MF_TEST_FAULT", name, &passed);
}
