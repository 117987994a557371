#include "common/process_guard.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PROCESSES = 1 << 16, ROUND_MS = 10, QUICK_ROUNDS = 500 };

/* Processes of the machine by number, as /proc lists them; those beyond the room are seen once others are
 * gone. Static: a child of fork() allocates nothing. */
static struct {
    pid_t pid, parent;
    bool below; /* one of those to end */
} process[MAX_PROCESSES];

/* What getdents64(2) gives. */
struct entry {
    uint64_t inode;
    int64_t offset;
    uint16_t bytes;
    uint8_t type;
    char name[];
};

/* Up to a blank or the end; 0: no number. */
static pid_t number_of(const char *text) {
    pid_t number = 0;
    for (; *text >= '0' && *text <= '9' && number < 100000000; text++)
        number = number * 10 + (*text - '0');
    return *text && *text != ' ' ? 0 : number;
}

/* From "PID (any bytes) STATE PARENT ..."; 0: it is gone, or only waits to be reaped. */
static pid_t parent_of(int proc, const char *name) {
    char path[32] = "", text[256];
    (void)strncat(strncat(path, name, 16), "/stat", 6);
    const int file = openat(proc, path, O_RDONLY | O_CLOEXEC);
    const ssize_t n = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    if (n <= 0)
        return 0;
    text[n] = 0;
    const char *end = strrchr(text, ')');
    return !end || strlen(end) < 5 || end[2] == 'Z' || end[2] == 'X' ? 0 : number_of(end + 4);
}

/* How many there are in `process`; 0 where there is no /proc. */
static size_t list_processes(void) {
    _Alignas(struct entry) char block[8192];
    const int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t count = 0;
    for (long bytes; proc >= 0 && (bytes = syscall(SYS_getdents64, proc, block, sizeof block)) > 0;)
        for (long at = 0; at < bytes;) {
            const struct entry *entry = (const struct entry *)(const void *)(block + at);
            const pid_t pid = number_of(entry->name),
                        parent = pid && strlen(entry->name) < 16 ? parent_of(proc, entry->name) : 0;
            if (parent && count < MAX_PROCESSES) {
                process[count].pid = pid;
                process[count].parent = parent;
                process[count++].below = false;
            }
            at += entry->bytes;
        }
    if (proc >= 0)
        close(proc);
    return count;
}

/* /proc lists them by number. */
static bool is_below(pid_t pid, size_t count) {
    size_t first = 0;
    while (count) {
        const size_t half = count / 2;
        if (process[first + half].pid == pid)
            return process[first + half].below;
        if (process[first + half].pid < pid) {
            first += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return false;
}

/* All that there are now, from the bottom of the tree to the top at once: one that is left because it was
 * made meanwhile is a child of ours in the next round. */
static void kill_descendants(pid_t program) {
    const pid_t self = getpid();
    const size_t count = list_processes();
    if (!count && program)
        kill(program, SIGKILL);
    for (bool found = true; found;) {
        found = false;
        for (size_t i = 0; i < count; i++) {
            if (process[i].below || (process[i].parent != self && !is_below(process[i].parent, count)))
                continue;
            found = process[i].below = true;
            kill(process[i].pid, SIGKILL);
        }
    }
}

/* Reaps what has ended; *program is 0 once it was it, and *status how it ended. False: no child is left. */
static bool reap(pid_t *program, int *status) {
    int how;
    for (;;) {
        const pid_t ended = waitpid(-1, &how, WNOHANG);
        if (ended <= 0)
            return ended == 0;
        if (ended == *program) {
            *program = 0;
            *status = how;
        }
    }
}

static _Noreturn void end_as(int status) {
    const struct rlimit none = {0, 0};
    sigset_t all;
    if (WIFEXITED(status))
        _exit(WEXITSTATUS(status));
    setrlimit(RLIMIT_CORE, &none);
    sigemptyset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL); /* SIGTERM, where that is what it died of */
    kill(getpid(), WTERMSIG(status));
    _exit(127);
}

void mf_process_guard_prepare(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

void mf_process_guard_run(pid_t program, pid_t parent) {
    const struct timespec quick = {.tv_nsec = ROUND_MS * 1000000L}, slow = {.tv_sec = 1};
    sigset_t wanted;
    int status = 0;
    setsid(); /* who kills the group or the session of whoever started it does not kill this */
    prctl(PR_SET_NAME, "program-guard");
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGTERM);
    sigaddset(&wanted, SIGCHLD);
    while (getppid() == parent && reap(&program, &status) && program)
        if (sigwaitinfo(&wanted, NULL) == SIGTERM)
            break;
    for (int rounds = 0; reap(&program, &status); rounds += rounds < QUICK_ROUNDS) {
        kill_descendants(program);
        sigtimedwait(&wanted, NULL, rounds < QUICK_ROUNDS ? &quick : &slow);
    }
    end_as(status);
}
