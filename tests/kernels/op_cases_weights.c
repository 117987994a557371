/* The kernels that train weights of the model as a whole, against the oracle (op_cases.c). */
#include "tests/kernels/op_compare.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const int64_t widths[] = {1, 20, 576, 700};

static void test_linear_bias_gradient(void **state) {
    (void)state;
    const int64_t tokens[] = {1, 33, MF_ROW_BLOCK + 44};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (size_t t = 0; t < 3; t++)
            for (size_t w = 0; w < 4; w++) {
                struct bench bench;
                bench_begin(&bench, MF_OP_LINEAR_BIAS_GRADIENT);
                bench.node.a.linear = (struct mf_linear_attributes){0.5f, (int32_t)(3 * w)};
                bench_input(&bench, 0, dtype, 2, DIM(tokens[t], widths[w] + 11), 5);
                bench_input(&bench, 1, MF_F32, 1, DIM(widths[w]), 0);
                bench_in_place(&bench, 0, 1);
                op_compare(&bench, MF_F32, 1);
                bench_end(&bench);
            }
}

static void test_rms_norm_weight_gradient(void **state) {
    (void)state;
    const int64_t tokens[] = {1, 33, MF_ROW_BLOCK + 44};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (size_t t = 0; t < 3; t++)
            for (size_t w = 0; w < 4; w++) {
                struct bench bench;
                bench_begin(&bench, MF_OP_RMS_NORM_WEIGHT_GRADIENT);
                bench.node.a.norm =
                    (struct mf_norm_attributes){1e-5f, w % 2 ? MF_NORM_UNIT_OFFSET : MF_NORM_CAST_THEN_SCALE};
                bench_input(&bench, 0, dtype, 2, DIM(tokens[t], widths[w]), 5);
                struct mf_array *rstd = bench_input(&bench, 1, MF_F32, 1, DIM(tokens[t]), 0);
                for (int64_t r = 0; r < tokens[t]; r++)
                    ((float *)rstd->data)[r] = 1.5f + 0.1f * (float)(r % 5);
                bench_input(&bench, 2, dtype, 2, DIM(tokens[t], widths[w]), 2);
                bench_input(&bench, 3, MF_F32, 1, DIM(widths[w]), 0);
                bench_in_place(&bench, 0, 3);
                op_compare(&bench, MF_F32, 1);
                bench_end(&bench);
            }
}

static void test_layer_norm_weight_gradient(void **state) {
    (void)state;
    const int64_t tokens[] = {1, 33, MF_ROW_BLOCK + 44};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (size_t t = 0; t < 3; t++)
            for (size_t w = 0; w < 4; w++) {
                struct bench bench;
                bench_begin(&bench, MF_OP_LAYER_NORM_WEIGHT_GRADIENT);
                bench_input(&bench, 0, dtype, 2, DIM(tokens[t], widths[w]), 5);
                struct mf_array *mean = bench_input(&bench, 1, MF_F32, 1, DIM(tokens[t]), 0);
                struct mf_array *rstd = bench_input(&bench, 2, MF_F32, 1, DIM(tokens[t]), 0);
                for (int64_t r = 0; r < tokens[t]; r++) {
                    ((float *)mean->data)[r] = 0.1f * (float)(r % 3);
                    ((float *)rstd->data)[r] = 1.5f + 0.1f * (float)(r % 5);
                }
                bench_input(&bench, 3, dtype, 2, DIM(tokens[t], widths[w]), 2);
                bench_input(&bench, 4, MF_F32, 1, DIM(widths[w]), 0);
                bench_in_place(&bench, 0, 4);
                op_compare(&bench, MF_F32, 1);
                bench_end(&bench);
            }
}

/* The weight as it lies: it is trained; with a bias, or the gradient of the bias itself. */
static void second_pass_case(enum mf_op op, enum mf_dtype dtype, int64_t L, int64_t V, int64_t D,
                             struct mf_head_attributes a) {
    enum { T = 40 };
    int32_t label_rows[T], labels[T];
    struct bench bench;
    bench_begin(&bench, op);
    bench.node.a.head = a;
    bench.trainable = true;
    for (int64_t i = 0; i < L; i++) {
        label_rows[i] = (int32_t)(i * (T - 1) / (L > 1 ? L - 1 : 1));
        labels[i] = (int32_t)((i * 37 + V - 1) % V);
    }
    bench_input(&bench, 0, dtype, 2, DIM(T, D), 4);
    bench_input(&bench, 1, dtype, 2, DIM(V, D), 0);
    bench_integers(&bench, 2, label_rows, L);
    bench_integers(&bench, 3, labels, L);
    struct mf_array *lse = bench_input(&bench, 4, MF_F32, 1, DIM(L), 0);
    for (int64_t i = 0; i < L; i++)
        ((float *)lse->data)[i] += (float)log((double)V);
    bench_input(&bench, 5, MF_F32, 1, DIM(L), 0);
    if (op == MF_OP_HEAD_BIAS_GRADIENT) {
        bench_input(&bench, 6, MF_F32, 1, DIM(V), 0);
        bench_input(&bench, 7, dtype, 1, DIM(V), 0);
    } else {
        bench_input(&bench, 6, MF_F32, 2, DIM(V, D), 0);
    }
    bench_in_place(&bench, 0, 6);
    bench_workspace(&bench, 2, DIM(a.chunk_rows, V));
    op_compare(&bench, dtype, 1);
    bench_end(&bench);
}

static void test_head_weight_gradient(void **state) {
    (void)state;
    const enum mf_op ops[] = {MF_OP_HEAD_WEIGHT_GRADIENT, MF_OP_HEAD_BIAS_GRADIENT};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int i = 0; i < 2; i++) {
            second_pass_case(ops[i], dtype, 33, 1000, 64, (struct mf_head_attributes){1, 0, 8, true});
            second_pass_case(ops[i], dtype, 1, 33, 20, (struct mf_head_attributes){0.5f, 0, 128, true});
            second_pass_case(ops[i], dtype, 7, 777, 48, (struct mf_head_attributes){1, 3, 4, true});
            second_pass_case(ops[i], dtype, 0, 100, 16, (struct mf_head_attributes){1, 0, 4, true});
        }
}

/* A trained weight is not packed: HEAD and LOGITS read it as it lies. */
static void test_trained_output_layer(void **state) {
    (void)state;
    const int32_t rows_of[] = {0, 12, 32}, labels[] = {1000, 3, 500};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int logits = 0; logits < 2; logits++) {
            struct bench bench;
            bench_begin(&bench, logits ? MF_OP_LOGITS : MF_OP_HEAD);
            bench.node.a.head = (struct mf_head_attributes){1.5f, 4, logits ? 0 : 2, !logits};
            bench.trainable = true;
            bench_input(&bench, 0, dtype, 2, DIM(33, 64), 8);
            bench_input(&bench, 1, dtype, 2, DIM(1001, 64), 0);
            bench_integers(&bench, 2, rows_of, 3);
            if (!logits)
                bench_integers(&bench, 3, labels, 3);
            if (logits)
                bench_output(&bench, 0, MF_F32, 2, DIM(3, 1001), 0);
            for (int o = 0; o < 2 && !logits; o++)
                bench_output(&bench, o, MF_F32, 1, DIM(3), 0);
            if (!logits)
                bench_output(&bench, 2, dtype, 2, DIM(3, 64), 0);
            if (!logits)
                bench_workspace(&bench, 2, DIM(2, 1001));
            op_compare(&bench, MF_F32,
                       1.5); /* three roundings: of the logits' gradient, the product, the row */
            bench_end(&bench);
        }
}

static void test_embedding_gradient(void **state) {
    (void)state;
    const int32_t tokens[] = {0, 99, 7, 7, 50};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++) {
        struct bench bench;
        bench_begin(&bench, MF_OP_EMBEDDING_GRADIENT);
        bench.node.a.embedding.scale = 1.5f;
        bench_input(&bench, 0, dtype, 2, DIM(5, 167), 3);
        bench_integers(&bench, 1, tokens, 5);
        bench_input(&bench, 2, MF_F32, 2, DIM(100, 167), 0);
        bench_in_place(&bench, 0, 2);
        op_compare(&bench, MF_F32, 0.01); /* but for fused multiply-adds the same sums in the same order */
        bench_end(&bench);
    }
}

static void test_round_copy(void **state) {
    (void)state;
    struct bench bench;
    bench_begin(&bench, MF_OP_ROUND_COPY);
    bench_input(&bench, 0, MF_F32, 1, DIM(10001), 0);
    bench_input(&bench, 1, MF_BF16, 1, DIM(10001), 0);
    bench_in_place(&bench, 0, 1);
    op_compare(&bench, MF_F32, 0);
    bench_end(&bench);
}

int op_cases_weights_run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_bias_gradient),
        cmocka_unit_test(test_rms_norm_weight_gradient),
        cmocka_unit_test(test_layer_norm_weight_gradient),
        cmocka_unit_test(test_head_weight_gradient),
        cmocka_unit_test(test_trained_output_layer),
        cmocka_unit_test(test_embedding_gradient),
        cmocka_unit_test(test_round_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
