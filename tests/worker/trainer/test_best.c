/* Best model and early stopping against the decisions of Transformers' own Trainer (tests/golden/best.json).
 */
#include "worker/trainer/best.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <string.h>

enum { ROOM = 16 };

static void test_decisions_are_those_of_transformers(void **state) {
    (void)state;
    json_error_t fault;
    json_t *cases = json_load_file("tests/golden/best.json", 0, &fault), *one;
    size_t i;
    int stops = 0;
    assert_non_null(cases);
    json_array_foreach(cases, i, one) {
        struct mf_evaluation_record evaluation[ROOM] = {0};
        struct mf_history history = {.evaluation = evaluation};
        struct mf_request request = {.load_best_model_at_end = true};
        const json_t *losses = json_object_get(one, "losses"), *stop = json_object_get(one, "stop");
        const int64_t best = json_integer_value(json_object_get(one, "best"));
        request.early_stopping_patience.set = true;
        request.early_stopping_patience.value = json_integer_value(json_object_get(one, "patience"));
        request.metric_for_best_model = i % 2 ? "eval_perplexity" : NULL; /* orders as the loss does */
        for (size_t k = 0; k < json_array_size(losses); k++) {
            const double loss = json_number_value(json_array_get(losses, k));
            evaluation[history.evaluations++] =
                (struct mf_evaluation_record){(int64_t)k + 1, loss, exp(loss)};
            const bool stopped = json_is_integer(stop) && (int64_t)k == json_integer_value(stop);
            assert_int_equal(mf_best_stops(&request, &history), stopped);
            if (stopped) {
                stops++;
                break;
            }
        }
        assert_ptr_equal(mf_best_evaluation(&request, &history), &evaluation[best]);
        request.early_stopping_patience.set = false;
        assert_false(mf_best_stops(&request, &history));
    }
    assert_true(stops > 10);
    json_decref(cases);
}

static void test_nothing_evaluated(void **state) {
    (void)state;
    struct mf_history history = {0};
    struct mf_request request = {.load_best_model_at_end = true};
    request.early_stopping_patience.set = true;
    request.early_stopping_patience.value = 1;
    assert_null(mf_best_evaluation(&request, &history));
    assert_false(mf_best_stops(&request, &history));
    assert_null(mf_history_kept(&history));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions_are_those_of_transformers),
        cmocka_unit_test(test_nothing_evaluated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
