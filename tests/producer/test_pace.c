/* Progress in a file: every change of phase, else a line in two seconds. */
#include "producer/cli/pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void a_line_in_two_seconds(void **state) {
    (void)state;
    struct mf_pace pace = {0};
    int lines = 0;
    for (int64_t now_ms = 5000; now_ms < 25000; now_ms += 250) /* 80 looks in 20 seconds */
        lines += mf_pace_allows(&pace, "train", now_ms);
    assert_int_equal(lines, 10);
}

static void every_change_of_phase(void **state) {
    (void)state;
    struct mf_pace pace = {0};
    assert_true(mf_pace_allows(&pace, "queued", 0));
    assert_true(mf_pace_allows(&pace, "train", 1));
    assert_false(mf_pace_allows(&pace, "train", 2000));
    assert_true(mf_pace_allows(&pace, "train", 2001));
    assert_true(mf_pace_allows(&pace, "save", 2002));
    assert_true(mf_pace_allows(&pace, "train", 2003));
    char longer[600];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    assert_true(mf_pace_allows(&pace, longer, 2004));
    assert_false(mf_pace_allows(&pace, longer, 2005));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_in_two_seconds),
        cmocka_unit_test(every_change_of_phase),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
