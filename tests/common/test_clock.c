#include "tests/common/unit.h"

#include "common/clock.h"

static void times_are_written_and_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"1970-01-01T00:00:00.000Z", 0},
        {"2026-11-25T02:50:00.123Z", 1795575000123},
        {"2000-02-29T23:59:59.999Z", 951868799999},
        {"1969-12-31T23:59:59.999Z", -1},
        {"9999-12-31T23:59:59.999Z", 253402300799999},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[MF_TIME_TEXT_BYTES];
        int64_t ms;
        assert_string_equal(mf_time_format(cases[i].ms, text), cases[i].text);
        assert_true(mf_time_parse(cases[i].text, &ms));
        assert_int_equal(ms, cases[i].ms);
    }
}

static void zones_and_fractions(void **state) {
    (void)state;
    int64_t ms, expected;
    assert_true(mf_time_parse("2026-11-25T02:50:00Z", &expected));
    assert_true(mf_time_parse("2026-11-25T03:50:00+01:00", &ms));
    assert_int_equal(ms, expected);
    assert_true(mf_time_parse("2026-11-24 21:20:00-05:30", &ms));
    assert_int_equal(ms, expected);
    assert_true(mf_time_parse("2026-11-25t02:50:00.5z", &ms));
    assert_int_equal(ms, expected + 500);
    assert_true(mf_time_parse("2026-11-25T02:50:00.123456789Z", &ms));
    assert_int_equal(ms, expected + 123);
}

static void what_is_no_time_is_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "",
        "2026-11-25",
        "2026-11-25T02:50:00",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00Z ",
        "2026-01-01T00:00:00+1:00",
        "2026-01-01T00:00:00+24:00",
        "26-01-01T00:00:00Z",
        "x",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int64_t ms;
        if (mf_time_parse(wrong[i], &ms))
            fail_msg("\"%s\" was read as a time", wrong[i]);
    }
}

static void every_day_of_centuries_comes_back(void **state) {
    (void)state;
    for (int64_t day = -20000; day < 200000; day += 7) {
        char text[MF_TIME_TEXT_BYTES];
        int64_t ms;
        assert_true(mf_time_parse(mf_time_format(day * 86400000 + 1, text), &ms));
        assert_int_equal(ms, day * 86400000 + 1);
    }
}

static void clocks_go_forward(void **state) {
    (void)state;
    int64_t before_ns = mf_clock_monotonic_ns(), boot = mf_clock_boottime_ms();
    assert_true(mf_clock_monotonic_ns() >= before_ns);
    assert_true(mf_clock_boottime_ms() >= boot);
    assert_true(mf_clock_monotonic_ms() >= before_ns / 1000000);
    assert_true(mf_clock_realtime_ms() > 1700000000000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_written_and_read), cmocka_unit_test(zones_and_fractions),
        cmocka_unit_test(what_is_no_time_is_refused), cmocka_unit_test(every_day_of_centuries_comes_back),
        cmocka_unit_test(clocks_go_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
