#include "tests/common/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/answer.h"
#include "common/clock.h"

enum { BOUND_MS = 20000, MOST_BYTES = 1 << 16 };

/* Runs a shell script whose output goes to descriptor 5 and reads it; what it said is in *answer. */
static enum mf_answer ask(const char *script, int64_t timeout_ms, struct mf_text *answer,
                          struct mf_process_exit *exit) {
    struct mf_error error;
    struct mf_process process;
    enum mf_answer how;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    const char *const environment[] = {"PATH=/usr/bin:/bin", NULL};
    const struct mf_process_descriptor descriptors[] = {{ends[1], 5}};
    const struct mf_process_options options = {
        .argv = argv, .environment = environment, .descriptors = descriptors, .descriptor_count = 1};
    assert_status(mf_process_spawn(&options, &process, &error), MF_OK);
    const pid_t pid = process.pid;
    close(ends[1]);
    assert_status(mf_answer_read(&process, ends[0], MOST_BYTES, timeout_ms, answer, exit, &how, &error),
                  MF_OK);
    close(ends[0]);
    assert_true(exit->finished);
    assert_int_equal(process.pid, 0);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
    return how;
}

static void a_whole_answer_comes_with_how_it_ended(void **state) {
    struct mf_text answer = {0};
    struct mf_process_exit exit;
    (void)state;
    mf_text_puts(&answer, "first: ");
    assert_int_equal(ask("echo one >&5; echo two >&5; exit 3", BOUND_MS, &answer, &exit), MF_ANSWER_WHOLE);
    assert_string_equal(answer.data, "first: one\ntwo\n");
    assert_int_equal(exit.code, 3);
    mf_text_clear(&answer);
    assert_int_equal(ask("kill -SEGV $$", BOUND_MS, &answer, &exit), MF_ANSWER_WHOLE);
    assert_int_equal(answer.length, 0);
    assert_int_equal(exit.signal, SIGSEGV);
    mf_text_free(&answer);
}

static void one_that_never_stops_is_killed(void **state) {
    struct mf_text answer = {0};
    struct mf_process_exit exit;
    (void)state;
    assert_int_equal(ask("while :; do echo more; done >&5", BOUND_MS, &answer, &exit), MF_ANSWER_TOO_LONG);
    assert_int_equal(exit.signal, SIGKILL);
    assert_in_range(answer.length, MOST_BYTES, MOST_BYTES + 4096);
    mf_text_free(&answer);
}

static void one_that_takes_too_long_is_killed(void **state) {
    struct mf_text answer = {0};
    struct mf_process_exit exit;
    const int64_t started_ms = mf_clock_monotonic_ms();
    (void)state;
    assert_int_equal(ask("echo so >&5; exec sleep 1000", 200, &answer, &exit), MF_ANSWER_TOO_LATE);
    assert_int_equal(exit.signal, SIGKILL);
    assert_string_equal(answer.data, "so\n");
    /* It closes its end and goes on. */
    assert_int_equal(ask("exec 5>&-; exec sleep 1000", 200, &answer, &exit), MF_ANSWER_TOO_LATE);
    assert_int_equal(exit.signal, SIGKILL);
    /* It ends, and what it started holds the end: that is of its group, and killed. */
    assert_int_equal(ask("sleep 1000 & exit 0", 200, &answer, &exit), MF_ANSWER_TOO_LATE);
    assert_true(mf_clock_monotonic_ms() - started_ms < BOUND_MS);
    mf_text_free(&answer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_answer_comes_with_how_it_ended),
        cmocka_unit_test(one_that_never_stops_is_killed),
        cmocka_unit_test(one_that_takes_too_long_is_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
