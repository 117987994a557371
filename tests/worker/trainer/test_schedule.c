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
    const char *settings; /* lr_scheduler_kwargs; NULL: none */
} golden[] = {
    {"cosine",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.0001900968867902419,
      0.00016234898018587337, 0.00012225209339563145, 7.774790660436858e-05, 3.7651019814126654e-05,
      9.903113209758096e-06, 0.0, 9.903113209758086e-06},
     NULL},
    {"linear",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.00017142857142857143,
      0.00014285714285714287, 0.00011428571428571428, 8.571428571428571e-05, 5.714285714285714e-05,
      2.857142857142857e-05, 0.0, 0.0},
     NULL},
    {"constant",
     3,
     {0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002},
     NULL},
    {"polynomial",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.00017144285714285716,
      0.0001428857142857143, 0.00011432857142857143, 8.577142857142858e-05, 5.721428571428572e-05,
      2.8657142857142867e-05, 1e-07, 1e-07},
     NULL},
    {"cosine",
     0,
     {0.0002, 0.00019510565162951537, 0.00018090169943749476, 0.00015877852522924732, 0.00013090169943749476,
      0.0001, 6.909830056250527e-05, 4.12214747707527e-05, 1.9098300562505266e-05, 4.8943483704846475e-06,
      0.0, 4.8943483704846475e-06},
     NULL},
    {"polynomial",
     0,
     {0.0002, 0.00018001, 0.00016002000000000003, 0.00014003, 0.00012004, 0.00010005, 8.006000000000002e-05,
      6.007000000000001e-05, 4.0079999999999996e-05, 2.0089999999999996e-05, 1e-07, 1e-07},
     NULL},
    {"constant_with_warmup",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002,
      0.0002, 0.0002, 0.0002},
     NULL},
    {"cosine_with_restarts",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.0001900968867902419,
      0.00016234898018587337, 0.00012225209339563145, 7.774790660436858e-05, 3.7651019814126654e-05,
      9.903113209758096e-06, 0.0, 0.0},
     NULL},
    {"cosine_with_restarts",
     0,
     {0.0002, 0.00019510565162951537, 0.00018090169943749476, 0.00015877852522924732, 0.00013090169943749476,
      0.0001, 6.909830056250527e-05, 4.12214747707527e-05, 1.9098300562505266e-05, 4.8943483704846475e-06,
      0.0, 0.0},
     NULL},
    {"inverse_sqrt",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.00017320508075688776,
      0.0001549193338482967, 0.0001414213562373095, 0.0001309307341415954, 0.0001224744871391589,
      0.00011547005383792517, 0.00010954451150103321, 0.00010444659357341871},
     NULL},
    {"inverse_sqrt",
     0,
     {0.0002, 0.00019999000074993753, 0.00019998000299950014, 0.00019997000674831295, 0.00019996001199600142,
      0.0001999500187421909, 0.0001999400269865071, 0.00019993003672857563, 0.0001999200479680224,
      0.00019991006070447338, 0.00019990007493755465, 0.00019989009066689252},
     NULL},
    {"cosine",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.00014338837391175582,
      3.7651019814126654e-05, 2.5072087818176382e-06, 7.774790660436855e-05, 0.000178183148246803,
      0.00019009688679024194, 0.00010000000000000003, 9.903113209758108e-06},
     "{\"num_cycles\": \"1.25\"}"},
    {"cosine_with_restarts",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.00016234898018587337,
      7.774790660436858e-05, 9.903113209758096e-06, 0.00019009688679024194, 0.00012225209339563145,
      3.765101981412669e-05, 0.0, 0.0},
     "{\"num_cycles\": \"2\"}"},
    {"polynomial",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.0001495918367346939,
      0.00010693877551020411, 7.20408163265306e-05, 4.4897959183673474e-05, 2.5510204081632654e-05,
      1.3877551020408166e-05, 1e-05, 1e-05},
     "{\"power\": \"2.0\", \"lr_end\": \"1e-05\"}"},
    {"inverse_sqrt",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.00018708286933869707,
      0.00017638342073763937, 0.00016733200530681512, 0.00015954480704349314, 0.00015275252316519468,
      0.00014675987714106857, 0.0001414213562373095, 0.00013662601021279463},
     "{\"timescale\": \"7\"}"},
    {"cosine_with_min_lr",
     3,
     {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.00019257266509268143,
      0.00017176173513940504, 0.0001416890700467236, 0.00010831092995327642, 7.8238264860595e-05,
      5.742733490731858e-05, 5e-05, 5.7427334907318564e-05},
     "{\"min_lr\": \"5e-05\"}"},
    {"cosine_with_min_lr",
     0,
     {0.0002, 0.0001901905871769531, 0.0001629006727063226, 0.00012407910185362078, 8.218847050625476e-05,
      4.6360389693210735e-05, 2.4404913533436186e-05, 2.1108049346437603e-05, 3.718847050625472e-05,
      6.914085502344078e-05, 0.00010999999999999999, 0.00015085914497655923},
     "{\"min_lr_rate\": \"0.1\", \"num_cycles\": \"0.75\"}"},
    {"warmup_stable_decay",
     2,
     {0.0, 0.0001, 0.0002, 0.0002, 0.0002, 0.0002, 0.0002, 0.00017071067811865476, 0.0001,
      2.9289321881345254e-05, 0.0, 0.0},
     "{\"num_decay_steps\": \"4\"}"},
    {"warmup_stable_decay",
     3,
     {4e-05, 9.333333333333334e-05, 0.0001466666666666667, 0.0002, 0.0002, 0.0002, 0.00018472135954999584,
      0.0001447213595499958, 9.527864045000422e-05, 4e-05, 4e-05, 4e-05},
     "{\"num_decay_steps\": \"4\", \"num_stable_steps\": \"2\", \"min_lr_ratio\": \"0.2\", \"num_cycles\": "
     "\"0.4\"}"},
};

static void test_rates_equal_transformers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        struct mf_schedule schedule;
        struct mf_error error;
        json_t *settings = golden[i].settings ? json_loads(golden[i].settings, 0, NULL) : NULL;
        const struct mf_schedule_options options = {golden[i].name, settings, 2e-4, golden[i].warmup, 10};
        if (mf_schedule_init(&schedule, &options, &error) != MF_OK)
            fail_msg("%s: %s", golden[i].name, error.message);
        json_decref(settings);
        for (int64_t step = 0; step < 12; step++) {
            double rate = mf_schedule_rate(&schedule, step);
            if (fabs(rate - golden[i].rate[step]) > 1e-18)
                fail_msg("%s, warm-up %d, step %d: %.17g, not %.17g", golden[i].name, (int)golden[i].warmup,
                         (int)step, rate, golden[i].rate[step]);
        }
    }
}

static void refused(const char *name, const char *text, double rate, enum mf_status status,
                    const char *message) {
    struct mf_schedule schedule;
    struct mf_error error;
    json_t *settings = text ? json_loads(text, 0, NULL) : NULL;
    const struct mf_schedule_options options = {name, settings, rate, 3, 10};
    assert_int_equal(mf_schedule_init(&schedule, &options, &error), status);
    assert_string_equal(error.message, message);
    json_decref(settings);
}

static void test_refusals(void **state) {
    (void)state;
    refused("greedy", NULL, 1e-4, MF_ERROR_UNSUPPORTED_FIELD,
            "lr_scheduler_type: 'greedy' is not one of cosine, cosine_with_restarts, linear, constant, "
            "constant_with_warmup, polynomial, inverse_sqrt, cosine_with_min_lr, warmup_stable_decay");
    refused("polynomial", NULL, 1e-8, MF_ERROR_CONFLICTING_FIELDS,
            "learning_rate: 1e-08 is not above the end of a polynomial schedule, 1e-07");
    refused("polynomial", "{\"num_cycles\": \"1\"}", 1e-4, MF_ERROR_INVALID_FIELD,
            "lr_scheduler_kwargs: polynomial has no setting 'num_cycles'; it has power, lr_end");
    refused("linear", "{\"end\": \"1\"}", 1e-4, MF_ERROR_INVALID_FIELD,
            "lr_scheduler_kwargs: linear has no setting 'end'; it has none");
    refused("cosine_with_restarts", "{\"num_cycles\": \"1.5\"}", 1e-4, MF_ERROR_INVALID_FIELD,
            "lr_scheduler_kwargs: num_cycles: '1.5' is not a whole number in [1e-06, 1e+06]");
    refused("cosine", "{\"num_cycles\": \"nan\"}", 1e-4, MF_ERROR_INVALID_FIELD,
            "lr_scheduler_kwargs: num_cycles: 'nan' is not a number in [1e-06, 1e+06]");
    refused("cosine_with_min_lr", NULL, 1e-4, MF_ERROR_MISSING_FIELD,
            "lr_scheduler_kwargs: cosine_with_min_lr needs one of min_lr and min_lr_rate");
    refused("cosine_with_min_lr", "{\"min_lr\": \"0.1\"}", 1e-4, MF_ERROR_CONFLICTING_FIELDS,
            "learning_rate: 0.0001 is below the min_lr of lr_scheduler_kwargs, 0.1");
    refused("warmup_stable_decay", "{\"min_lr_ratio\": \"0.1\"}", 1e-4, MF_ERROR_MISSING_FIELD,
            "lr_scheduler_kwargs: warmup_stable_decay needs num_decay_steps");
    refused(
        "warmup_stable_decay", "{\"num_decay_steps\": \"8\"}", 1e-4, MF_ERROR_CONFLICTING_FIELDS,
        "lr_scheduler_kwargs: 3 warm-up steps and 8 num_decay_steps are more than the 10 steps of the run");
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
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_step_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
