/* When a lease may be taken: only what one unbroken, quick session saw standing still for the whole lease
 * time. */
#include "worker/lease_watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { LEASE_MS = 30000, STALL_MS = 7500, PERIOD_MS = 2500 };

static struct mf_lease_watch *watch;
static struct mf_lease_row row;
static int64_t now_ms;

static int set_up(void **state) {
    struct mf_error error;
    (void)state;
    memset(&row, 0, sizeof row);
    strcpy(row.lease.job_id, "11111111-1111-1111-1111-111111111111");
    row.lease.epoch = 3;
    row.beat = 40;
    now_ms = 1000000;
    return mf_lease_watch_new(LEASE_MS, STALL_MS, &watch, &error) != MF_OK;
}

static int tear_down(void **state) {
    (void)state;
    mf_lease_watch_free(watch);
    return 0;
}

/* One poll after `pause_ms`, taking `took_ms`. */
static bool poll_after(int64_t pause_ms, int64_t took_ms, uint64_t session) {
    struct mf_error error;
    bool due;
    now_ms += pause_ms;
    assert_int_equal(mf_lease_watch_poll(watch, session, now_ms, now_ms + took_ms, &row, 1, &due, &error),
                     MF_OK);
    now_ms += took_ms;
    return due;
}

static int polls_until_due(int64_t pause_ms) {
    for (int polls = 1; polls < 1000; polls++)
        if (poll_after(pause_ms, 5, 1))
            return polls;
    return -1;
}

static void due_after_the_lease_time(void **state) {
    (void)state;
    int64_t start = now_ms;
    int polls = polls_until_due(PERIOD_MS);
    assert_true(polls >= MF_LEASE_WATCH_POLLS);
    assert_true(now_ms - start >= LEASE_MS + PERIOD_MS); /* counted from the first answer */
    assert_true(now_ms - start <= LEASE_MS + 3 * PERIOD_MS);
}

static void ten_polls_are_needed_however_long_they_take(void **state) {
    (void)state;
    assert_true(polls_until_due(STALL_MS - 10) >= MF_LEASE_WATCH_POLLS);
}

static void a_beat_starts_the_count_again(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++)
        assert_false(poll_after(PERIOD_MS, 5, 1));
    row.beat++;
    for (int i = 0; i < 12; i++)
        assert_false(poll_after(PERIOD_MS, 5, 1));
    assert_true(poll_after(PERIOD_MS, 5, 1));
}

static void another_epoch_starts_the_count_again(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++)
        assert_false(poll_after(PERIOD_MS, 5, 1));
    row.lease.epoch++;
    assert_false(poll_after(PERIOD_MS, 5, 1));
    assert_false(poll_after(PERIOD_MS, 5, 1));
}

static void a_new_session_starts_the_count_again(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++)
        assert_false(poll_after(PERIOD_MS, 5, 1));
    for (int i = 0; i < 12; i++)
        assert_false(poll_after(PERIOD_MS, 5, 2));
}

static void a_pause_of_this_host_starts_the_count_again(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++)
        assert_false(poll_after(PERIOD_MS, 5, 1));
    assert_false(poll_after(10 * LEASE_MS, 5, 1)); /* we slept: what others did meanwhile is not known */
    for (int i = 0; i < 11; i++)
        assert_false(poll_after(PERIOD_MS, 5, 1));
}

static void a_slow_answer_starts_the_count_again(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++)
        assert_false(poll_after(PERIOD_MS, 5, 1));
    assert_false(poll_after(PERIOD_MS, STALL_MS + 1, 1));
    for (int i = 0; i < 11; i++)
        assert_false(poll_after(PERIOD_MS, 5, 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(due_after_the_lease_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ten_polls_are_needed_however_long_they_take, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_beat_starts_the_count_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_epoch_starts_the_count_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_new_session_starts_the_count_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_pause_of_this_host_starts_the_count_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_slow_answer_starts_the_count_again, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
