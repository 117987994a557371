/* Learning-rate schedules against values printed by Transformers 5.24's get_scheduler(). */
#include "worker/trainer/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    int64_t warmup;
    double rate[12];
} golden[] = {
    {"cosine",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.0001900968867902419,
      0.00016234898018587337, 0.00012225209339563145, 7.774790660436858e-05, 3.7651019814126654e-05,
      9.903113209758096e-06, 0.0, 9.903113209758086e-06}},
    {"linear",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.00017142857142857143,
      0.00014285714285714287, 0.00011428571428571428, 8.571428571428571e-05, 5.714285714285714e-05,
      2.857142857142857e-05, 0.0, 0.0}},
    {"constant",
     3,
     {0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002}},
    {"polynomial",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.00017144285714285716,
      0.0001428857142857143, 0.00011432857142857143, 8.577142857142858e-05, 5.721428571428572e-05,
      2.8657142857142867e-05, 1e-07, 1e-07}},
    {"cosine",
     0,
     {0.0002, 0.00019510565162951537, 0.00018090169943749476, 0.00015877852522924732, 0.00013090169943749476,
      0.0001, 6.909830056250527e-05, 4.12214747707527e-05, 1.9098300562505266e-05, 4.8943483704846475e-06,
      0.0, 4.8943483704846475e-06}},
    {"polynomial",
     0,
     {0.0002, 0.00018001, 0.00016002000000000003, 0.00014003, 0.00012004, 0.00010005, 8.006000000000002e-05,
      6.007000000000001e-05, 4.0079999999999996e-05, 2.0089999999999996e-05, 1e-07, 1e-07}},
    {"constant_with_warmup",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002,
      0.0002, 0.0002, 0.0002}},
    {"cosine_with_restarts",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.0001900968867902419,
      0.00016234898018587337, 0.00012225209339563145, 7.774790660436858e-05, 3.7651019814126654e-05,
      9.903113209758096e-06, 0.0, 0.0}},
    {"cosine_with_restarts",
     0,
     {0.0002, 0.00019510565162951537, 0.00018090169943749476, 0.00015877852522924732, 0.00013090169943749476,
      0.0001, 6.909830056250527e-05, 4.12214747707527e-05, 1.9098300562505266e-05, 4.8943483704846475e-06,
      0.0, 0.0}},
    {"inverse_sqrt",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.00017320508075688776,
      0.0001549193338482967, 0.0001414213562373095, 0.0001309307341415954, 0.0001224744871391589,
      0.00011547005383792517, 0.00010954451150103321, 0.00010444659357341871}},
    {"inverse_sqrt",
     0,
     {0.0002, 0.00019999000074993753, 0.00019998000299950014, 0.00019997000674831295, 0.00019996001199600142,
      0.0001999500187421909, 0.0001999400269865071, 0.00019993003672857563, 0.0001999200479680224,
      0.00019991006070447338, 0.00019990007493755465, 0.00019989009066689252}},
};

static void test_rates_equal_transformers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        struct mf_schedule schedule;
        struct mf_error error;
        assert_int_equal(mf_schedule_init(&schedule, golden[i].name, 2e-4, golden[i].warmup, 10, &error),
                         MF_OK);
        for (int64_t step = 0; step < 12; step++) {
            double rate = mf_schedule_rate(&schedule, step);
            if (fabs(rate - golden[i].rate[step]) > 1e-18)
                fail_msg("%s, warm-up %d, step %d: %.17g, not %.17g", golden[i].name, (int)golden[i].warmup,
                         (int)step, rate, golden[i].rate[step]);
        }
    }
}

static void test_unknown_name_is_refused(void **state) {
    (void)state;
    struct mf_schedule schedule;
    struct mf_error error;
    assert_int_equal(mf_schedule_init(&schedule, "cosine_with_min_lr", 1e-4, 0, 10, &error),
                     MF_ERROR_UNSUPPORTED_FIELD);
    assert_string_equal(error.message,
                        "lr_scheduler_type: 'cosine_with_min_lr' is not one of cosine, cosine_with_restarts, "
                        "linear, constant, constant_with_warmup, polynomial, inverse_sqrt");
    assert_int_equal(mf_schedule_init(&schedule, "polynomial", 1e-8, 0, 10, &error),
                     MF_ERROR_CONFLICTING_FIELDS);
}

static void test_step_counts(void **state) {
    (void)state;
    assert_int_equal(mf_schedule_warmup_steps(0.03, 100), 3);
    assert_int_equal(mf_schedule_warmup_steps(0.03, 101), 4);
    assert_int_equal(mf_schedule_warmup_steps(0, 100), 0);
    assert_int_equal(mf_schedule_total_steps(1, 80, 4), 20);
    assert_int_equal(mf_schedule_total_steps(1, 81, 4), 21);
    assert_int_equal(mf_schedule_total_steps(2.5, 81, 4), 53);
    assert_int_equal(mf_schedule_total_steps(0.001, 81, 4), 1);
    assert_int_equal(mf_schedule_total_steps(1, 0, 4), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates_equal_transformers),
        cmocka_unit_test(test_unknown_name_is_refused),
        cmocka_unit_test(test_step_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
