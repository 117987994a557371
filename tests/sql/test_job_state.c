/* The state machine, held against the picture in the documentation: every cell that is not drawn is nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/files.h"
#include "sql/job_state.h"

/* state, event: next state by desired run, pause, cancel; "-" for nothing. */
static const char *const drawn[][5] = {
    {"queued", "claim", "running", "-", "-"},
    {"queued", "fail", "failed", "-", "-"},
    {"queued", "cancel", "cancelled", "-", "-"},
    {"queued", "pause", "paused", "-", "-"},
    {"running", "succeed", "succeeded", "succeeded", "succeeded"},
    {"running", "fail", "failed", "failed", "failed"},
    {"running", "fail_retriable", "queued", "paused", "cancelled"},
    {"running", "interrupt", "queued", "paused", "cancelled"},
    {"running", "trainer_paused", "queued", "paused", "cancelled"},
    {"running", "trainer_cancelled", "-", "-", "cancelled"},
    {"running", "cancel", "running", "running", "-"},
    {"running", "pause", "running", "-", "-"},
    {"running", "resume", "-", "running", "-"},
    {"paused", "fail", "-", "failed", "-"},
    {"paused", "cancel", "-", "cancelled", "-"},
    {"paused", "resume", "-", "queued", "-"},
    {"failed", "retry", "failed", "failed", "failed"},
    {"cancelled", "retry", "-", "-", "cancelled"},
};

static const char *expected(const char *state, const char *event, int desired) {
    for (size_t i = 0; i < sizeof drawn / sizeof *drawn; i++)
        if (!strcmp(drawn[i][0], state) && !strcmp(drawn[i][1], event))
            return drawn[i][2 + desired];
    return "-";
}

static void test_every_cell(void **unused) {
    int drawn_cells = 0;
    (void)unused;
    for (int state = 0; state < MF_JOB_STATE_COUNT; state++)
        for (int event = 0; event < MF_JOB_EVENT_COUNT; event++)
            for (int desired = 0; desired < MF_DESIRED_COUNT; desired++) {
                const char *want = expected(mf_job_state_name((enum mf_job_state)state),
                                            mf_job_event_name((enum mf_job_trigger)event), desired);
                enum mf_job_state next = mf_job_next((enum mf_job_state)state, (enum mf_job_trigger)event,
                                                     (enum mf_job_desired)desired);
                assert_string_equal(next == MF_JOB_STATE_COUNT ? "-" : mf_job_state_name(next), want);
                drawn_cells += next != MF_JOB_STATE_COUNT;
            }
    assert_int_equal(drawn_cells, 31);
}

static void test_terminal_states_never_change(void **unused) {
    (void)unused;
    for (int state = 0; state < MF_JOB_STATE_COUNT; state++) {
        int ways_out = 0;
        for (int event = 0; event < MF_JOB_EVENT_COUNT; event++)
            for (int desired = 0; desired < MF_DESIRED_COUNT; desired++)
                ways_out += mf_job_next((enum mf_job_state)state, (enum mf_job_trigger)event,
                                        (enum mf_job_desired)desired) != MF_JOB_STATE_COUNT &&
                            mf_job_next((enum mf_job_state)state, (enum mf_job_trigger)event,
                                        (enum mf_job_desired)desired) != (enum mf_job_state)state;
        assert_int_equal(ways_out == 0, mf_job_terminal((enum mf_job_state)state));
    }
}

static void test_names_read_back(void **unused) {
    (void)unused;
    for (int state = 0; state < MF_JOB_STATE_COUNT; state++)
        assert_int_equal(mf_job_state_parse(mf_job_state_name((enum mf_job_state)state)), state);
    for (int desired = 0; desired < MF_DESIRED_COUNT; desired++)
        assert_int_equal(mf_job_desired_parse(mf_job_desired_name((enum mf_job_desired)desired)), desired);
    assert_int_equal(mf_job_state_parse("done"), MF_JOB_STATE_COUNT);
    assert_int_equal(mf_job_desired_parse(""), MF_DESIRED_COUNT);
}

static void test_the_picture_is_current(void **unused) {
    struct mf_error error;
    char *text, *file;
    (void)unused;
    assert_int_equal(mf_job_states_markdown(&text, &error), MF_OK);
    assert_int_equal(mf_file_read("sql/JOB_STATES.md", 1 << 20, &file, NULL, &error), MF_OK);
    if (strcmp(text, file) != 0)
        fail_msg("stale: build modelforge-job-states and run `modelforge-job-states > sql/JOB_STATES.md`");
    free(text);
    free(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cell), cmocka_unit_test(test_terminal_states_never_change),
        cmocka_unit_test(test_names_read_back), cmocka_unit_test(test_the_picture_is_current)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
