/* Places at which a test kills the worker, to see that nothing is lost. Compiled in only with
 * -DMODELFORGE_FAILPOINTS (the program modelforge-worker-failpoints); in the released program they are
 * nothing.
 *
 * MF_TEST_FAILPOINT=name[:n] ends the process with SIGKILL at the n-th time (default 1) that it
 * passes the place of that name. MF_TEST_FAULT=name[:n] makes mf_fault() true that once, for a fault that the
 * caller then brings about. */
#ifndef MF_WORKER_FAILPOINT_H
#define MF_WORKER_FAILPOINT_H

#include <stdbool.h>

#ifdef MODELFORGE_FAILPOINTS
void mf_failpoint(const char *name);
bool mf_fault(const char *name);
#else
static inline bool mf_fault(const char *name) {
    (void)name;
    return false;
}
static inline void mf_failpoint(const char *name) {
    (void)name;
}
#endif

#endif
