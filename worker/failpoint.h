/* Places at which a test kills the worker, to see that nothing is lost. Compiled in only with
 * -DMODELFORGE_FAILPOINTS (the program modelforge-worker-failpoints); in the released program they are
 * nothing.
 *
 * MF_TEST_FAILPOINT=name[:n] ends the process with SIGKILL at the n-th time (default 1) that it
 * passes the place of that name. */
#ifndef MF_WORKER_FAILPOINT_H
#define MF_WORKER_FAILPOINT_H

#ifdef MODELFORGE_FAILPOINTS
void mf_failpoint(const char *name);
#else
static inline void mf_failpoint(const char *name) {
    (void)name;
}
#endif

#endif
