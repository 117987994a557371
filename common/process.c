#include "common/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/process_guard.h"

/* What the child tells its parent through a pipe when it cannot start the program. */
struct start_failure {
    int errno_value;
    int step;
};

enum start_step {
    STEP_GUARD,
    STEP_GROUP,
    STEP_PARENT,
    STEP_DIRECTORY,
    STEP_DESCRIPTORS,
    STEP_LIMITS,
    STEP_USER,
    STEP_PROGRAM
};

static const char *const step_names[] = {
    "make a guard for",    "make a process group for", "tie to its parent",   "enter the folder of",
    "give descriptors to", "set the limits of",        "change the user for", "start"};

/* Between fork and exec only async-signal-safe calls are allowed: other threads may have held any lock. */

static _Noreturn void give_up(int status_pipe, enum start_step step) {
    struct start_failure failure = {errno, (int)step};
    if (write(status_pipe, &failure, sizeof failure) < 0)
        _exit(126);
    _exit(127);
}

static void reset_signals(void) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int signal = 1; signal < NSIG; signal++)
        sigaction(signal, &action, NULL); /* fails for SIGKILL and SIGSTOP, which need none */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void close_between(unsigned first, unsigned last, unsigned table_size) {
    if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
        return;
    for (unsigned descriptor = first; descriptor <= last && descriptor < table_size; descriptor++)
        close((int)descriptor);
}

/* Puts the descriptors where the child wants them and closes all others but 0, 1, 2 and the pipe, which moves
 * to a number above them all and is returned; -1 with errno. */
static int arrange_descriptors(const struct mf_process_options *options, int status_pipe,
                               unsigned table_size) {
    int moved[MF_PROCESS_DESCRIPTORS], lowest = 3;
    bool standard_input = false;
    for (size_t i = 0; i < options->descriptor_count; i++) {
        if (options->descriptors[i].child >= lowest)
            lowest = options->descriptors[i].child + 1;
        standard_input |= options->descriptors[i].child == 0;
    }
    for (size_t i = 0; i < options->descriptor_count; i++)
        if ((moved[i] = fcntl(options->descriptors[i].parent, F_DUPFD_CLOEXEC, lowest)) < 0)
            return -1;
    if ((status_pipe = fcntl(status_pipe, F_DUPFD_CLOEXEC, lowest)) < 0)
        return -1;
    if (!standard_input) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0 || (null == 0 ? fcntl(0, F_SETFD, 0) : dup2(null, 0)) < 0)
            return -1;
    }
    for (size_t i = 0; i < options->descriptor_count; i++)
        if (dup2(moved[i], options->descriptors[i].child) < 0)
            return -1;
    for (int descriptor = 3; descriptor < lowest; descriptor++) {
        bool kept = false;
        for (size_t i = 0; i < options->descriptor_count; i++)
            kept |= options->descriptors[i].child == descriptor;
        if (!kept)
            close(descriptor);
    }
    close_between((unsigned)lowest, (unsigned)status_pipe - 1, table_size);
    close_between((unsigned)status_pipe + 1, ~0U, table_size);
    return status_pipe;
}

static bool set_limits(const struct mf_process_options *options) {
    for (size_t i = 0; i < options->limit_count; i++) {
        const struct rlimit limit = {options->limits[i].value, options->limits[i].value};
        if (setrlimit((__rlimit_resource_t)options->limits[i].resource, &limit))
            return false;
    }
    return true;
}

/* The calls themselves: the C library's would look for other threads, which a child after fork() has not. */
static bool change_user(const struct mf_process_user *user) {
    return !syscall(SYS_setgroups, 0, NULL) && !syscall(SYS_setresgid, user->gid, user->gid, user->gid) &&
           !syscall(SYS_setresuid, user->uid, user->uid, user->uid) &&
           !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* All up to execve(). *step says how far it came. False with errno. The pipe's number changes. */
static bool prepare_program(const struct mf_process_options *options, pid_t parent, unsigned table_size,
                            int *status_pipe, enum start_step *step) {
    reset_signals();
    *step = STEP_DIRECTORY;
    if (options->directory && chdir(options->directory))
        return false;
    *step = STEP_DESCRIPTORS;
    int moved = arrange_descriptors(options, *status_pipe, table_size);
    if (moved < 0)
        return false;
    *status_pipe = moved;
    *step = STEP_LIMITS;
    if (!set_limits(options))
        return false;
    *step = STEP_USER;
    if (options->user && !change_user(options->user))
        return false;
    *step = STEP_PARENT; /* after the change of user, which takes the signal away */
    if (options->death_signal) {
        if (prctl(PR_SET_PDEATHSIG, options->death_signal))
            return false;
        if (getppid() != parent) { /* it died before the call */
            errno = ESRCH;
            return false;
        }
    }
    *step = STEP_PROGRAM;
    return true;
}

/* In the child: becomes the guard of a child of its own, in which it returns. */
static void fork_program(pid_t *parent, int status_pipe, unsigned table_size) {
    reset_signals(); /* of this one, too: it ends by the signal that ended the program */
    mf_process_guard_prepare();
    const pid_t guard = getpid(), program = _Fork();
    if (program < 0)
        give_up(status_pipe, STEP_GUARD);
    if (program == 0) {
        *parent = guard;
        return;
    }
    close_between(0, ~0U, table_size);
    mf_process_guard_run(program, *parent);
}

static _Noreturn void become_child(const struct mf_process_options *options, pid_t parent, int status_pipe,
                                   unsigned table_size) {
    static char *const no_environment[] = {NULL};
    enum start_step step = STEP_GROUP;
    if (options->guarded)
        fork_program(&parent, status_pipe, table_size);
    if ((options->keep_group || !setpgid(0, 0)) &&
        prepare_program(options, parent, table_size, &status_pipe, &step))
        execve(options->argv[0], (char *const *)options->argv,
               options->environment ? (char *const *)options->environment : no_environment);
    give_up(status_pipe, step);
}

static unsigned descriptor_table_size(void) {
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur > 1U << 20 ? 1U << 20
                                                                         : (unsigned)limit.rlim_cur;
}

enum mf_status mf_process_spawn(const struct mf_process_options *options, struct mf_process *process,
                                struct mf_error *error) {
    int status_pipe[2];
    struct start_failure failure;
    *process = (struct mf_process){.guarded = options->guarded};
    if (options->descriptor_count > MF_PROCESS_DESCRIPTORS)
        return mf_error_set(error, MF_ERROR_IO, "%zu descriptors for %s, at most %d",
                            options->descriptor_count, options->argv[0], MF_PROCESS_DESCRIPTORS);
    unsigned table_size = descriptor_table_size();
    if (pipe2(status_pipe, O_CLOEXEC))
        return mf_error_errno(error, errno, "cannot make a pipe to start %s", options->argv[0]);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become_child(options, parent, status_pipe[1], table_size);
    int fork_errno = errno;
    close(status_pipe[1]);
    if (pid < 0) {
        close(status_pipe[0]);
        return mf_error_errno(error, fork_errno, "cannot fork for %s", options->argv[0]);
    }
    if (!options->keep_group && !options->guarded)
        setpgid(pid, pid); /* so that the group exists when this returns, whoever runs first */
    ssize_t n;
    do
        n = read(status_pipe[0], &failure, sizeof failure);
    while (n < 0 && errno == EINTR);
    close(status_pipe[0]);
    if (n == 0) {
        process->pid = pid;
        return MF_OK;
    }
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (n != (ssize_t)sizeof failure)
        return mf_error_set(error, MF_ERROR_IO, "%s ended before it began", options->argv[0]);
    return mf_error_errno(error, failure.errno_value, "cannot %s %s", step_names[failure.step],
                          options->argv[0]);
}

int mf_process_exit_descriptor(const struct mf_process *process) {
    return process->pid ? (int)syscall(SYS_pidfd_open, process->pid, 0) : -1;
}

/* Waits until the process has ended, without reaping it. False: still running at the end of the time. */
static bool wait_for_end(pid_t pid, int64_t timeout_ms) {
    int64_t end_ms = mf_clock_monotonic_ms() + timeout_ms;
    int descriptor = (int)syscall(SYS_pidfd_open, pid, 0);
    for (;;) {
        siginfo_t information = {0};
        if (waitid(P_PID, (id_t)pid, &information, WEXITED | WNOHANG | WNOWAIT) < 0 && errno != EINTR)
            break; /* not our child any more: nothing to wait for */
        if (information.si_pid == pid)
            break;
        int64_t left_ms = timeout_ms < 0 ? 1000 : end_ms - mf_clock_monotonic_ms();
        if (left_ms <= 0) {
            if (descriptor >= 0)
                close(descriptor);
            return false;
        }
        /* without pidfd_open (before Linux 5.3) it looks every 5 ms */
        struct pollfd wanted = {.fd = descriptor, .events = POLLIN};
        poll(&wanted, descriptor >= 0 ? 1 : 0, descriptor < 0 ? 5 : left_ms > 1000 ? 1000 : (int)left_ms);
    }
    if (descriptor >= 0)
        close(descriptor);
    return true;
}

enum mf_status mf_process_wait(struct mf_process *process, int64_t timeout_ms, struct mf_process_exit *exit,
                               struct mf_error *error) {
    int status;
    *exit = (struct mf_process_exit){0};
    if (!process->pid)
        return mf_error_set(error, MF_ERROR_IO, "the process was waited for before");
    if (!wait_for_end(process->pid, timeout_ms))
        return MF_OK;
    /* the number of the group is ours until the leader is reaped */
    kill(-process->pid, SIGKILL);
    pid_t reaped;
    do
        reaped = waitpid(process->pid, &status, 0);
    while (reaped < 0 && errno == EINTR);
    if (reaped < 0)
        return mf_error_errno(error, errno, "cannot wait for process %d", (int)process->pid);
    process->pid = 0;
    exit->finished = true;
    if (WIFSIGNALED(status))
        exit->signal = WTERMSIG(status);
    else
        exit->code = WEXITSTATUS(status);
    return MF_OK;
}

void mf_process_kill_group(const struct mf_process *process, int signal) {
    if (process->pid)
        kill(process->guarded ? process->pid : -process->pid, process->guarded ? SIGTERM : signal);
}

char *mf_process_exit_text(const struct mf_process_exit *exit, char *text, size_t bytes) {
    if (!exit->finished)
        snprintf(text, bytes, "still running");
    else if (exit->signal)
        snprintf(text, bytes, "killed by signal %d (%s)", exit->signal, strsignal(exit->signal));
    else
        snprintf(text, bytes, "exit code %d", exit->code);
    return text;
}
