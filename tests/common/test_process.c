#include "tests/common/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/process.h"

enum { BOUND_MS = 20000 };

/* Runs a shell script with its output in a pipe; returns what it wrote and how it ended. */
static char *run_script(const char *script, const char *const *environment, const char *directory,
                        struct mf_process_exit *exit) {
    static char output[8192];
    struct mf_error error;
    struct mf_process process;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    const struct mf_process_descriptor descriptors[] = {{ends[1], 5}};
    const struct mf_process_options options = {.argv = argv,
                                               .environment = environment,
                                               .directory = directory,
                                               .descriptors = descriptors,
                                               .descriptor_count = 1};
    assert_status(mf_process_spawn(&options, &process, &error), MF_OK);
    close(ends[1]);
    size_t length = 0;
    for (ssize_t n; (n = read(ends[0], output + length, sizeof output - 1 - length)) > 0;)
        length += (size_t)n;
    output[length] = 0;
    close(ends[0]);
    assert_status(mf_process_wait(&process, BOUND_MS, exit, &error), MF_OK);
    assert_true(exit->finished);
    assert_int_equal(process.pid, 0);
    return output;
}

static void descriptors_stand_where_they_are_wanted_and_no_others(void **state) {
    (void)state;
    struct mf_process_exit exit;
    int stray = open("/dev/null", O_RDONLY), high = fcntl(stray, F_DUPFD, 200); /* both inheritable */
    char *output = run_script("echo $(ls /proc/self/fd) $(readlink /proc/self/fd/0) >&5", NULL, NULL, &exit);
    close(stray);
    close(high);
    assert_int_equal(exit.code, 0);
    /* 3 or so is the folder that ls reads */
    assert_string_equal(output, "0 1 2 3 5 /dev/null\n");
}

static void descriptors_may_change_places(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_process process;
    struct mf_process_exit exit;
    int a[2], b[2];
    char text[16] = "";
    assert_int_equal(pipe(a) | pipe(b), 0);
    const char *const argv[] = {"/bin/sh", "-c", "eval \"echo to-b >&$1; echo to-a >&$2\"", "sh", NULL,
                                NULL,      NULL};
    char first[12], second[12];
    const char *full[7];
    memcpy(full, argv, sizeof full);
    snprintf(first, sizeof first, "%d", a[1]);
    snprintf(second, sizeof second, "%d", b[1]);
    full[4] = first;
    full[5] = second;
    /* each takes the number that the other has here */
    const struct mf_process_descriptor descriptors[] = {{a[1], b[1]}, {b[1], a[1]}};
    const struct mf_process_options options = {
        .argv = full, .descriptors = descriptors, .descriptor_count = 2};
    assert_status(mf_process_spawn(&options, &process, &error), MF_OK);
    assert_status(mf_process_wait(&process, BOUND_MS, &exit, &error), MF_OK);
    assert_int_equal(exit.code, 0);
    assert_int_equal(read(b[0], text, sizeof text), 5);
    assert_memory_equal(text, "to-b\n", 5);
    assert_int_equal(read(a[0], text, sizeof text), 5);
    assert_memory_equal(text, "to-a\n", 5);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

static void the_environment_is_exactly_what_was_given(void **state) {
    (void)state;
    struct mf_process_exit exit;
    const char *const environment[] = {"A=1", "PATH=/usr/bin:/bin", NULL};
    setenv("MF_TEST_SECRET", "x", 1);
    char *output = run_script("tr '\\0' ' ' < /proc/$$/environ >&5", environment, NULL, &exit);
    assert_string_equal(output, "A=1 PATH=/usr/bin:/bin ");
    assert_string_equal(run_script("pwd >&5", NULL, "/usr", &exit), "/usr\n");
}

static void signals_begin_at_their_defaults(void **state) {
    (void)state;
    struct mf_process_exit exit;
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    signal(SIGINT, SIG_IGN);
    char *output =
        run_script("grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\n\\t' >&5", NULL, NULL, &exit);
    sigprocmask(SIG_SETMASK, &before, NULL);
    signal(SIGINT, SIG_DFL);
    assert_string_equal(output, "SigBlk:0000000000000000SigIgn:0000000000000000");
}

static void ends_are_told_apart(void **state) {
    (void)state;
    struct mf_process_exit exit;
    char text[64];
    run_script("exit 3", NULL, NULL, &exit);
    assert_int_equal(exit.code, 3);
    assert_int_equal(exit.signal, 0);
    assert_string_equal(mf_process_exit_text(&exit, text, sizeof text), "exit code 3");
    run_script("kill -9 $$", NULL, NULL, &exit);
    assert_int_equal(exit.signal, SIGKILL);
    assert_string_equal(mf_process_exit_text(&exit, text, sizeof text), "killed by signal 9 (Killed)");
}

static void what_cannot_start_says_why(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_process process;
    const char *const argv[] = {"/nonexistent/program", NULL};
    const char *const shell[] = {"/bin/sh", "-c", "true", NULL};
    struct mf_process_options options = {.argv = argv};
    assert_status(mf_process_spawn(&options, &process, &error), MF_ERROR_IO);
    assert_string_equal(error.message, "cannot start /nonexistent/program: No such file or directory");
    assert_int_equal(process.pid, 0);
    options.argv = shell;
    options.directory = "/nonexistent";
    assert_status(mf_process_spawn(&options, &process, &error), MF_ERROR_IO);
    assert_contains(error.message, "cannot enter the folder of /bin/sh");
    const struct mf_process_descriptor bad = {999, 3};
    options = (struct mf_process_options){.argv = shell, .descriptors = &bad, .descriptor_count = 1};
    assert_status(mf_process_spawn(&options, &process, &error), MF_ERROR_IO);
    assert_contains(error.message, "cannot give descriptors to /bin/sh");
}

/* Whether `pid` is gone (or a zombie that nobody of us reaps) within the bound. */
static bool gone_in_time(pid_t pid) {
    char path[64], text[256];
    for (int64_t end_ms = mf_clock_monotonic_ms() + BOUND_MS; mf_clock_monotonic_ms() < end_ms;
         poll(NULL, 0, 5)) {
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        int descriptor = open(path, O_RDONLY);
        if (descriptor < 0)
            return true;
        ssize_t n = read(descriptor, text, sizeof text - 1);
        close(descriptor);
        text[n < 0 ? 0 : n] = 0;
        const char *after = strrchr(text, ')');
        if (n <= 0 || (after && after[2] == 'Z'))
            return true;
    }
    return false;
}

/* Starts a script that starts a child, and gives both process ids. */
static void start_family(const char *script, int death_signal, bool guarded, struct mf_process *process,
                         pid_t *child) {
    struct mf_error error;
    int ends[2];
    char text[32];
    size_t length = 0;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    const char *const environment[] = {"PATH=/usr/bin:/bin", NULL};
    const struct mf_process_descriptor descriptor = {ends[1], 3};
    const struct mf_process_options options = {.argv = argv,
                                               .environment = environment,
                                               .descriptors = &descriptor,
                                               .descriptor_count = 1,
                                               .death_signal = death_signal,
                                               .guarded = guarded,
                                               .keep_group = guarded};
    assert_status(mf_process_spawn(&options, process, &error), MF_OK);
    close(ends[1]);
    while (length < sizeof text - 1 && (!length || text[length - 1] != '\n')) {
        ssize_t n = read(ends[0], text + length, 1);
        assert_true(n > 0);
        length += (size_t)n;
    }
    text[length] = 0;
    close(ends[0]);
    *child = (pid_t)strtol(text, NULL, 10);
    assert_true(*child > 0);
}

static void the_whole_group_can_be_killed(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_process process;
    struct mf_process_exit exit;
    pid_t child;
    start_family("sleep 1000 & echo $! >&3; wait", 0, false, &process, &child);
    assert_status(mf_process_wait(&process, 0, &exit, &error), MF_OK);
    assert_false(exit.finished);
    assert_status(mf_process_wait(&process, 20, &exit, &error), MF_OK);
    assert_false(exit.finished);
    mf_process_kill_group(&process, SIGKILL);
    assert_status(mf_process_wait(&process, BOUND_MS, &exit, &error), MF_OK);
    assert_int_equal(exit.signal, SIGKILL);
    assert_true(gone_in_time(child));
    mf_process_kill_group(&process, SIGKILL); /* harmless now */
    assert_status(mf_process_wait(&process, 0, &exit, &error), MF_ERROR_IO);
}

static void what_the_leader_leaves_behind_is_killed(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_process process;
    struct mf_process_exit exit;
    pid_t child;
    start_family("sleep 1000 & echo $! >&3; exit 0", 0, false, &process, &child);
    assert_status(mf_process_wait(&process, BOUND_MS, &exit, &error), MF_OK);
    assert_true(exit.finished && exit.code == 0 && exit.signal == 0);
    assert_true(gone_in_time(child));
}

/* Runs start_family() in a process that is then killed; returns the family's child. */
static pid_t kill_the_parent_of(const char *script, bool guarded) {
    int ends[2];
    pid_t grandchild = 0;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t parent = fork();
    if (parent == 0) {
        struct mf_process process;
        pid_t child;
        start_family(script, SIGKILL, guarded, &process, &child);
        if (write(ends[1], &child, sizeof child) != (ssize_t)sizeof child)
            _exit(1);
        pause();
        _exit(0);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &grandchild, sizeof grandchild), sizeof grandchild);
    close(ends[0]);
    assert_int_equal(kill(grandchild, 0), 0);
    kill(parent, SIGKILL);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    return grandchild;
}

static void it_dies_with_its_parent(void **state) {
    (void)state;
    assert_true(gone_in_time(kill_the_parent_of("echo $$ >&3; exec sleep 1000", false)));
}

/* A child in a session of its own whose parent is gone: nothing but its place below the guard tells whose it
 * is. */
#define DAEMON "echo $( (setsid sh -c 'echo $$; exec sleep 1000 >/dev/null' &) ) >&3; "

static void a_guard_ends_daemons_with_the_parent(void **state) {
    (void)state;
    assert_true(gone_in_time(kill_the_parent_of(DAEMON "exec sleep 1000", true)));
}

static void a_guard_ends_daemons_with_the_program(void **state) {
    (void)state;
    static const struct {
        const char *script;
        int code, signal;
    } cases[] = {
        {DAEMON "exit 3", 3, 0}, {DAEMON "kill -SEGV $$", 0, SIGSEGV}, {DAEMON "kill -TERM $$", 0, SIGTERM}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mf_error error;
        struct mf_process process;
        struct mf_process_exit exit;
        pid_t child;
        start_family(cases[i].script, SIGKILL, true, &process, &child);
        assert_status(mf_process_wait(&process, BOUND_MS, &exit, &error), MF_OK);
        assert_true(exit.finished);
        assert_int_equal(exit.code, cases[i].code);
        assert_int_equal(exit.signal, cases[i].signal);
        assert_int_equal(kill(child, 0), -1); /* not later: whoever waited may remove their files */
    }
}

static void a_guard_kills_all_when_told(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_process process;
    struct mf_process_exit exit;
    pid_t child;
    start_family("trap '' TERM; " DAEMON "while :; do sleep 1000; done", SIGKILL, true, &process, &child);
    assert_status(mf_process_wait(&process, 20, &exit, &error), MF_OK);
    assert_false(exit.finished);
    mf_process_kill_group(&process, SIGKILL);
    assert_status(mf_process_wait(&process, BOUND_MS, &exit, &error), MF_OK);
    assert_int_equal(exit.signal, SIGKILL);
    assert_int_equal(kill(child, 0), -1);
}

/* A tree that grows while it is killed: each process starts two more, six levels deep. */
static void a_guard_is_quicker_than_a_tree_that_grows(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_process process;
    struct mf_process_exit exit;
    pid_t child;
    start_family("grow() { [ $1 = 0 ] || { grow $(($1 - 1)) & grow $(($1 - 1)) & }; sleep 100; }; grow 6 & "
                 "echo $! >&3; sleep 0.05",
                 SIGKILL, true, &process, &child);
    assert_status(mf_process_wait(&process, BOUND_MS, &exit, &error), MF_OK);
    assert_true(exit.finished && exit.code == 0);
    assert_int_equal(kill(child, 0), -1);
}

static void what_cannot_start_says_why_from_below_a_guard(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_process process;
    const char *const argv[] = {"/nonexistent/program", NULL};
    const struct mf_process_options options = {.argv = argv, .guarded = true};
    assert_status(mf_process_spawn(&options, &process, &error), MF_ERROR_IO);
    assert_string_equal(error.message, "cannot start /nonexistent/program: No such file or directory");
    assert_int_equal(process.pid, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_stand_where_they_are_wanted_and_no_others),
        cmocka_unit_test(descriptors_may_change_places),
        cmocka_unit_test(the_environment_is_exactly_what_was_given),
        cmocka_unit_test(signals_begin_at_their_defaults),
        cmocka_unit_test(ends_are_told_apart),
        cmocka_unit_test(what_cannot_start_says_why),
        cmocka_unit_test(the_whole_group_can_be_killed),
        cmocka_unit_test(what_the_leader_leaves_behind_is_killed),
        cmocka_unit_test(it_dies_with_its_parent),
        cmocka_unit_test(a_guard_ends_daemons_with_the_parent),
        cmocka_unit_test(a_guard_ends_daemons_with_the_program),
        cmocka_unit_test(a_guard_kills_all_when_told),
        cmocka_unit_test(a_guard_is_quicker_than_a_tree_that_grows),
        cmocka_unit_test(what_cannot_start_says_why_from_below_a_guard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
