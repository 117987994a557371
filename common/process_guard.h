/* The guard of a program: a process between it and whoever started it, which ends all that the program
 * started, whichever group, session and parent that has by then. For process.c alone; both are safe after a
 * fork() of one thread of many. */
#ifndef MF_COMMON_PROCESS_GUARD_H
#define MF_COMMON_PROCESS_GUARD_H

#include <sys/types.h>

/* In the child that becomes the guard, before it forks the program: orphans below it become its children, and
 * its signals wait. */
void mf_process_guard_prepare(void);

/* Watches over `program`, its child, until that ends, until `parent`, which forked the guard, has ended, or
 * until SIGTERM; kills every descendant, and ends as the program did. Whoever kills the guard itself
 * (SIGKILL) leaves those that no PR_SET_PDEATHSIG reaches. */
_Noreturn void mf_process_guard_run(pid_t program, pid_t parent);

#endif
