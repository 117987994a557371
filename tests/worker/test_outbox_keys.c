/* Keys of the outbox: rows of one do not overtake, a failing one backs off alone, and none is forgotten or
 * leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/outbox_keys.h"

#include <stdio.h>

static struct mf_outbox_keys keys;

static void test_one_at_a_time(void **unused) {
    (void)unused;
    mf_outbox_keys_clear(&keys);
    assert_true(mf_outbox_keys_take(&keys, "a", 1, true, 0));
    assert_false(mf_outbox_keys_take(&keys, "a", 1, true, 0));
    assert_true(mf_outbox_keys_take(&keys, "b", 2, true, 0));
    assert_true(mf_outbox_keys_take(&keys, "b", 2, true, 0));
    assert_false(mf_outbox_keys_take(&keys, "b", 2, true, 0));
    mf_outbox_keys_give(&keys, "a", true, 0, 8000);
    assert_true(mf_outbox_keys_take(&keys, "a", 1, true, 0));
}

static void test_a_failing_key_backs_off_alone(void **unused) {
    static const int64_t waits_ms[] = {500, 1000, 2000, 4000, 8000, 8000};
    int64_t now_ms = 1000;
    (void)unused;
    mf_outbox_keys_clear(&keys);
    assert_true(mf_outbox_keys_take(&keys, "a", 9, true, now_ms));
    assert_true(mf_outbox_keys_take(&keys, "a", 9, true, now_ms));
    mf_outbox_keys_give(&keys, "a", false, now_ms, 8000);
    mf_outbox_keys_give(&keys, "a", false, now_ms, 8000); /* of rows that failed together one counts */
    for (size_t i = 0; i < sizeof waits_ms / sizeof *waits_ms; i++) {
        assert_true(mf_outbox_keys_failing(&keys, "a"));
        assert_int_equal(keys.failing, 1);
        assert_false(mf_outbox_keys_take(&keys, "a", 9, true, now_ms + waits_ms[i] - 1));
        now_ms += waits_ms[i];
        assert_false(mf_outbox_keys_take(&keys, "a", 9, false, now_ms)); /* no room for probes */
        assert_true(mf_outbox_keys_take(&keys, "a", 9, true, now_ms));
        assert_false(mf_outbox_keys_take(&keys, "a", 9, true, now_ms)); /* a single one */
        assert_true(mf_outbox_keys_take(&keys, "other", 1, false, now_ms));
        mf_outbox_keys_give(&keys, "other", true, now_ms, 8000);
        mf_outbox_keys_give(&keys, "a", false, now_ms, 8000);
    }
    assert_true(mf_outbox_keys_take(&keys, "a", 9, true, now_ms + 8000));
    mf_outbox_keys_give(&keys, "a", true, now_ms + 8000, 8000);
    assert_false(mf_outbox_keys_failing(&keys, "a"));
    assert_int_equal(keys.failing, 0);
    assert_true(mf_outbox_keys_take(&keys, "a", 9, false, now_ms + 8000));
}

static void test_full_and_emptied(void **unused) {
    char name[MF_OUTBOX_KEY_BYTES];
    (void)unused;
    mf_outbox_keys_clear(&keys);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MF_OUTBOX_KEYS; i++) {
            snprintf(name, sizeof name, "job-%d-%d", round, i);
            assert_true(mf_outbox_keys_take(&keys, name, 1, true, 0));
        }
        assert_false(mf_outbox_keys_take(&keys, "one more", 1, true, 0));
        for (int i = 0; i < MF_OUTBOX_KEYS; i++) { /* not in the order of their coming */
            snprintf(name, sizeof name, "job-%d-%d", round, (i * 7 + 3) % MF_OUTBOX_KEYS);
            mf_outbox_keys_give(&keys, name, true, 0, 8000);
        }
    }
    assert_true(mf_outbox_keys_take(&keys, "one more", 1, true, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_at_a_time),
        cmocka_unit_test(test_a_failing_key_backs_off_alone),
        cmocka_unit_test(test_full_and_emptied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
