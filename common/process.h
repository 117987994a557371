/* Child processes: given descriptors at fixed numbers and nothing else inherited, in a group of their own,
 * ended with their parent. */
#ifndef MF_COMMON_PROCESS_H
#define MF_COMMON_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

/* `parent`, a descriptor of this process, appears in the child as number `child`. */
struct mf_process_descriptor {
    int parent, child;
};

/* Who the child is to be: its groups are `gid` alone, and no program that it starts regains more. */
struct mf_process_user {
    uid_t uid;
    gid_t gid;
};

/* A limit of setrlimit(2), soft and hard. */
struct mf_process_limit {
    int resource;
    uint64_t value;
};

struct mf_process_options {
    const char *const *argv;        /* ends with NULL; argv[0] is a path (no PATH search) */
    const char *const *environment; /* ends with NULL, "NAME=value"; exactly this; NULL: empty */
    const char *directory;          /* working directory; NULL: this process's */
    const struct mf_process_descriptor *descriptors;
    size_t descriptor_count; /* <= MF_PROCESS_DESCRIPTORS */
    int death_signal; /* sent to the child when the *thread* that spawned it ends (PR_SET_PDEATHSIG), so spawn
                         from a thread that lives as long as the process; 0: none */
    bool guarded;     /* a guard stands between (process_guard.h): when the child ends, or the thread that
                         spawned it, all that the child started ends, too, be it in whichever group or session */
    bool keep_group;  /* stays in this process's group: who kills that kills the child, and what it started */
    const struct mf_process_user *user; /* NULL: this process's; another one takes root */
    const struct mf_process_limit *limits;
    size_t limit_count;
};

enum { MF_PROCESS_DESCRIPTORS = 72 };

struct mf_process {
    pid_t pid;    /* also the process group, unless it kept this process's; the guard of one that has a guard;
                     0 after it was reaped */
    bool guarded; /* as it was asked for */
};

/* Starts it with default signal dispositions and an empty signal mask. 0 is /dev/null unless mapped; 1 and 2
 * are this process's unless mapped; every other descriptor is closed. MF_ERROR_IO when it cannot be started,
 * with the reason (a missing program too). Any thread. */
enum mf_status mf_process_spawn(const struct mf_process_options *options, struct mf_process *process,
                                struct mf_error *error);

struct mf_process_exit {
    bool finished;
    int code;   /* exit code, when signal is 0 */
    int signal; /* that ended it, or 0 */
};

/* Waits up to timeout_ms (0: only looks, < 0: no bound) and reaps. exit->finished is false when it still
 * runs. One thread at a time for a process. */
enum mf_status mf_process_wait(struct mf_process *process, int64_t timeout_ms, struct mf_process_exit *exit,
                               struct mf_error *error);

/* A descriptor that becomes readable when the process has ended, for poll(2); the caller closes it. -1 where
 * the kernel has none (before Linux 5.3). */
int mf_process_exit_descriptor(const struct mf_process *process);

/* Sends `signal` to the whole group of its own; nothing when it was reaped already or has none. One with a
 * guard is killed with all that it started, whatever the signal. */
void mf_process_kill_group(const struct mf_process *process, int signal);

/* "exit code 3", "killed by signal 9 (Killed)", "still running"; returns `text`. */
char *mf_process_exit_text(const struct mf_process_exit *exit, char *text, size_t bytes);

#endif
