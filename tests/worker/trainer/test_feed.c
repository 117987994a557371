/* What rows look like in the inputs of a graph. */
#include "worker/trainer/feed.h"

#include "worker/trainer/runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

static struct mf_runtime runtime;

static int open_runtime(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_model_program program[2];
    const struct mf_runtime_options options = {.provider = "huggingface",
                                               .model = "tests/golden/models/tied-gqa",
                                               .compute = MF_COMPUTE_F32,
                                               .reference = true};
    if (mf_runtime_open(&options, &runtime, &error) != MF_OK ||
        mf_model_build(runtime.model, runtime.graph, MF_EVALUATE, -1, &program[0], &error) != MF_OK ||
        mf_model_build(runtime.model, runtime.graph, MF_PREFILL, -1, &program[1], &error) != MF_OK)
        return -1;
    for (int i = 0; i < 2; i++) {
        mf_program_set_bound(runtime.graph, program[i].program, MF_TOKENS, 16);
        mf_program_set_bound(runtime.graph, program[i].program, MF_SEQUENCES, 4);
        mf_program_set_bound(runtime.graph, program[i].program, MF_LABELLED, 16);
        mf_program_set_bound(runtime.graph, program[i].program, MF_CACHE, 32);
    }
    return mf_runtime_realize(&runtime, &error) != MF_OK;
}

static int close_runtime(void **state) {
    (void)state;
    mf_runtime_close(&runtime);
    return 0;
}

static void expect(enum mf_graph_input input, const int32_t *values, size_t count) {
    const int32_t *made = mf_executor_data(runtime.executor, runtime.graph->input[input]);
    for (size_t i = 0; i < count; i++)
        if (made[i] != values[i])
            fail_msg("input %d: element %zu is %d, not %d", (int)input, i, made[i], values[i]);
}

static void test_samples(void **state) {
    (void)state;
    const int32_t token[2][4] = {{5, 6, 7, 8}, {9, 10, 11}},
                  label[2][4] = {{5, -100, 7, 8}, {-100, 10, -100}};
    struct mf_sample sample[2] = {{token[0], label[0], 4, 2, 40}, {token[1], label[1], 3, 1, 90}};
    const struct mf_samples samples = {.sample = sample, .count = 2};
    const size_t order[2] = {1, 0};
    struct mf_step step = {0};
    mf_feed_samples(runtime.graph, runtime.executor, &samples, order, 2, 0.5f, &step);
    expect(MF_INPUT_TOKENS, (const int32_t[]){9, 10, 11, 5, 6, 7, 8}, 7);
    expect(MF_INPUT_POSITIONS, (const int32_t[]){0, 1, 2, 0, 1, 2, 3}, 7);
    expect(MF_INPUT_ROWS, (const int32_t[]){90, 90, 90, 40, 40, 40, 40}, 7);
    expect(MF_INPUT_OFFSETS, (const int32_t[]){0, 3, 7}, 3);
    expect(MF_INPUT_LABEL_ROWS, (const int32_t[]){0, 4, 5}, 3); /* the token before each label */
    expect(MF_INPUT_LABELS, (const int32_t[]){10, 7, 8}, 3);
    const float *coefficient =
        mf_executor_data(runtime.executor, runtime.graph->input[MF_INPUT_COEFFICIENTS]);
    assert_true(coefficient[0] == 0.5f && coefficient[2] == 0.5f);
    assert_int_equal(step.value[MF_TOKENS], 7);
    assert_int_equal(step.value[MF_SEQUENCES], 2);
    assert_int_equal(step.value[MF_LABELLED], 3);
}

static void test_continuation(void **state) {
    (void)state;
    struct mf_step step = {0};
    mf_feed_continuation(runtime.graph, runtime.executor, (const int32_t[]){3, 4}, 2, 7, &step);
    expect(MF_INPUT_TOKENS, (const int32_t[]){3, 4}, 2);
    expect(MF_INPUT_POSITIONS, (const int32_t[]){7, 8}, 2);
    expect(MF_INPUT_CACHE_SLOTS, (const int32_t[]){7, 8}, 2);
    expect(MF_INPUT_OFFSETS, (const int32_t[]){0, 2}, 2);
    expect(MF_INPUT_CACHE_OFFSETS, (const int32_t[]){0, 9}, 2);
    expect(MF_INPUT_CACHE_LENGTHS, (const int32_t[]){9}, 1);
    expect(MF_INPUT_LAST_ROWS, (const int32_t[]){1}, 1);
    assert_int_equal(step.value[MF_TOKENS], 2);
    assert_int_equal(step.value[MF_SEQUENCES], 1);
    assert_int_equal(step.value[MF_CACHE], 9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_continuation),
    };
    return cmocka_run_group_tests(tests, open_runtime, close_runtime);
}
