#include "producer/cli/chart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

static char *draw(const struct mf_step_metric *steps, size_t step_count, const struct mf_eval_metric *evals,
                  size_t eval_count) {
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    mf_chart_loss(file, steps, step_count, evals, eval_count, 20, 6);
    fclose(file);
    return text;
}

static void test_falling_curve_falls(void **state) {
    (void)state;
    struct mf_step_metric steps[40] = {0};
    for (int i = 0; i < 40; i++)
        steps[i] = (struct mf_step_metric){.step = i + 1, .loss = 4.0 - 0.05 * i};
    struct mf_eval_metric eval = {.step = 40, .loss = 3.0};
    char *text = draw(steps, 40, &eval, 1);
    const char *first = strstr(text, "•"), *top = strchr(text, '\n');
    assert_non_null(first);
    assert_true(first < top);               /* the first step's loss is the greatest: top row */
    assert_non_null(strstr(text, "4.000")); /* the axis says so */
    assert_non_null(strstr(text, "◆"));
    assert_non_null(strstr(text, "evaluation loss"));
    assert_non_null(strstr(text, "40\n"));
    free(text);
}

static void test_values_that_are_not_finite_are_left_out(void **state) {
    (void)state;
    struct mf_step_metric steps[] = {
        {.step = 1, .loss = NAN}, {.step = 2, .loss = 1.5}, {.step = 3, .loss = INFINITY}};
    char *text = draw(steps, 3, NULL, 0);
    int marks = 0;
    for (const char *c = text; (c = strstr(c, "•")); c += strlen("•"))
        marks++;
    assert_int_equal(marks, 2); /* one point and the legend */
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "◆"));
    free(text);
}

static void test_nothing_to_draw(void **state) {
    (void)state;
    char *text = draw(NULL, 0, NULL, 0);
    assert_string_equal(text, "");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_falling_curve_falls),
        cmocka_unit_test(test_values_that_are_not_finite_are_left_out),
        cmocka_unit_test(test_nothing_to_draw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
