/* The kernels of update programs against the oracle (op_cases.c). */
#include "tests/kernels/op_compare.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_gradient_norm(void **state) {
    (void)state;
    for (int64_t n = 1; n <= 20001; n += 20000)
        for (int clip = 0; clip < 2; clip++) {
            struct bench bench;
            bench_begin(&bench, MF_OP_GRADIENT_NORM);
            bench.step.clip = clip ? 0.5f : 0;
            bench_input(&bench, 0, MF_F32, 1, DIM(n), 0);
            bench_output(&bench, 0, MF_F32, 1, DIM(1), 0);
            bench_output(&bench, 1, MF_F32, 1, DIM(1), 0);
            op_compare(&bench, MF_F32, 1);
            bench_end(&bench);
        }
}

/* What is added to a parameter is small beside it, so that a wrong step hardly shows in the sum: where the
 * parameters are 0 it stands alone. */
static void lay_bare(struct mf_array *parameter) {
    memset(parameter->data, 0, (size_t)parameter->dim[0] * sizeof(float));
}

static const uint32_t steps[] = {1, 5, 4000}; /* the first corrects most, the last next to nothing */
enum { STEPS = sizeof steps / sizeof *steps };

static void adamw_case(uint32_t step, bool bare) {
    struct bench bench;
    bench_begin(&bench, MF_OP_ADAMW);
    bench.node.a.adamw = (struct mf_adamw_attributes){0.9f, 0.999f, 1e-8f, 0.01f};
    bench.step.learning_rate = 2e-3f;
    bench.step.optimizer_step = step;
    for (int i = 0; i < 4; i++)
        bench_input(&bench, i, MF_F32, 1, DIM(10001), 0);
    float *second = bench.call.in[2].data;
    for (int i = 0; i < 10001; i++)
        second[i] *= second[i];
    if (bare)
        lay_bare(&bench.call.in[0]);
    bench_input(&bench, 4, MF_F32, 1, DIM(1), 0);
    for (int i = 0; i < 3; i++)
        bench_in_place(&bench, i, i);
    op_compare(&bench, MF_F32, 0.1);
    bench_end(&bench);
}

static void test_adamw(void **state) {
    (void)state;
    for (int i = 0; i < STEPS; i++)
        for (int bare = 0; bare < 2; bare++)
            adamw_case(steps[i], bare);
}

/* Moments as they are after a step, and some blocks as they are at first. */
static void bench_codes(struct bench *bench, int index, int64_t n) {
    uint8_t *value = calloc((size_t)n + 1, 1);
    assert_non_null(value);
    for (int64_t i = 256; i < n; i++)
        value[i] = (uint8_t)(127 + 127 * bench_random(bench));
    bench_bytes(bench, index, value, n);
    free(value);
}

static void adamw_8bit_case(int64_t n, uint32_t step, bool bare) {
    struct bench bench;
    bench_begin(&bench, MF_OP_ADAMW_8BIT);
    bench.node.a.adamw = (struct mf_adamw_attributes){0.9f, 0.999f, 1e-8f, 0.01f};
    bench.step.learning_rate = 2e-3f;
    bench.step.optimizer_step = step;
    bench_input(&bench, 0, MF_F32, 1, DIM(n), 0);
    bench_codes(&bench, 1, n);
    bench_codes(&bench, 2, n);
    float *scale = bench_input(&bench, 3, MF_F32, 2, DIM(n / 256, 2), 0)->data;
    for (int64_t i = 0; i < n / 256 * 2; i++)
        scale[i] = i < 2 ? 0 : fabsf(scale[i]);
    float *gradient = bench_input(&bench, 4, MF_F32, 1, DIM(n), 0)->data;
    for (int64_t i = n / 512 * 256; i < n / 512 * 256 + 256 && n; i++) { /* almost 0, but on one side of it */
        gradient[i] = i % 2 ? -1e-7f : 0;
        ((uint8_t *)bench.call.in[1].data)[i] = i % 4 ? 127 : 200;
    }
    if (bare)
        lay_bare(&bench.call.in[0]);
    *(float *)bench_input(&bench, 5, MF_F32, 1, DIM(1), 0)->data = 0.75f;
    for (int i = 0; i < 4; i++)
        bench_in_place(&bench, i, i);
    op_compare(&bench, MF_F32, 0.1);
    bench_end(&bench);
}

static void test_adamw_8bit(void **state) {
    (void)state;
    adamw_8bit_case(0, 1, false);
    for (int i = 0; i < STEPS; i++)
        for (int bare = 0; bare < 2; bare++)
            adamw_8bit_case((int64_t)256 * 37, steps[i], bare);
}

static void test_sgd(void **state) {
    (void)state;
    for (int bare = 0; bare < 2; bare++) {
        struct bench bench;
        bench_begin(&bench, MF_OP_SGD);
        bench.node.a.sgd.weight_decay = 0.01f;
        bench.step.learning_rate = 2e-3f;
        for (int i = 0; i < 2; i++)
            bench_input(&bench, i, MF_F32, 1, DIM(10001), 0);
        if (bare)
            lay_bare(&bench.call.in[0]);
        bench_input(&bench, 2, MF_F32, 1, DIM(1), 0);
        bench_in_place(&bench, 0, 0);
        op_compare(&bench, MF_F32, 0.1);
        bench_end(&bench);
    }
}

static void test_zero(void **state) {
    (void)state;
    struct bench bench;
    bench_begin(&bench, MF_OP_ZERO);
    bench_input(&bench, 0, MF_F32, 1, DIM(1001), 0);
    bench_in_place(&bench, 0, 0);
    op_compare(&bench, MF_F32, 0);
    bench_end(&bench);
}

/* Two adapters of ranks 3 and 5 on rows 1..4 and 6..12 of a weight (14, 11); the rest of it must stay. */
static void test_fold_adapters(void **state) {
    (void)state;
    for (int dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int with_a = 0; with_a < 2; with_a++) {
            struct bench bench;
            bench_begin(&bench, MF_OP_FOLD_ADAPTERS);
            bench.node.a.fold = (struct mf_fold_attributes){.first = {1, 6}, .scale = {2, 0.75f}};
            bench_input(&bench, 0, (enum mf_dtype)dtype, 2, DIM(14 + 8, 11 + 8), 0);
            bench_input(&bench, 1, MF_F32, 2, DIM(4, 3), 2);
            if (with_a)
                bench_input(&bench, 2, MF_F32, 2, DIM(8, 11), 1);
            bench_input(&bench, 3, MF_F32, 2, DIM(7, 5), 0);
            bench_in_place(&bench, 0, 0);
            op_compare(&bench, (enum mf_dtype)dtype, 0);
            bench_end(&bench);
        }
}

int op_cases_update_run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradient_norm), cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_adamw_8bit),    cmocka_unit_test(test_sgd),
        cmocka_unit_test(test_zero),          cmocka_unit_test(test_fold_adapters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
