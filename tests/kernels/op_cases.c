/* Every kernel of a backend against the oracle on the same rounded inputs: odd sizes, padded rows, poisoned
 * outputs, f32 and bf16, twice with the same bits. */
#include "tests/kernels/op_cases.h"
#include "tests/kernels/op_compare.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Relative to the norm of the oracle's result. bf16 keeps 8 bits, so rounding alone is worth up to 2^-9 an
 * element, 2^-9 / √3 in the mean; two roundings in a row (of an intermediate, of the sum) stay below twice
 * that. */
static double bound(enum mf_dtype dtype) {
    return dtype == MF_F32 ? 1e-5 : 3e-3;
}

static op_cases_backend *open_backend;

void op_cases_use(op_cases_backend *open) {
    open_backend = open;
}

static void compare_with(struct bench *made, const struct bench *expected, struct mf_backend *backend,
                         enum mf_dtype dtype, double factor) {
    struct bench first, second;
    bench_copy(made, &first);
    bench_copy(made, &second);
    bench_run(&first, backend, dtype);
    bench_run(&second, backend, dtype);
    for (int o = 0; o < MF_NODE_OUTPUTS; o++) {
        if (!made->call.out[o].data)
            continue;
        double distance = bench_distance(&first.call.out[o], &expected->call.out[o]);
        enum mf_dtype stored = first.call.out[o].dtype;
        if (!(distance <= factor * bound(stored == MF_BF16 ? MF_BF16 : dtype)))
            fail_msg("%s out[%d] %s %s: distance %g", mf_op_name((enum mf_op)made->node.op), o,
                     backend->instruction_set, mf_dtype_name(dtype), distance);
        if (!bench_identical(&first.call.out[o], &second.call.out[o]))
            fail_msg("%s out[%d] %s %s: two runs differ", mf_op_name((enum mf_op)made->node.op), o,
                     backend->instruction_set, mf_dtype_name(dtype));
    }
    bench_end(&first);
    bench_end(&second);
}

void op_compare(struct bench *made, enum mf_dtype dtype, double factor) {
    struct mf_backend *oracle, *backend;
    assert_int_equal(mf_cpu_reference_create(&oracle, NULL), MF_OK);
    struct bench expected;
    bench_copy(made, &expected);
    bench_run(&expected, oracle, dtype);
    for (int i = 0; (backend = open_backend(i)) != NULL; i++) {
        compare_with(made, &expected, backend, dtype, factor);
        mf_backend_destroy(backend);
    }
    bench_end(&expected);
}

static const int64_t rows[] = {1, 7, 33};
static const int64_t widths[] = {1, 20, 576, 700};

static void test_rms_norm(void **state) {
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int variant = MF_NORM_CAST_THEN_SCALE; variant <= MF_NORM_UNIT_OFFSET; variant++)
            for (size_t r = 0; r < 3; r++)
                for (size_t w = 0; w < 4; w++) {
                    struct bench bench;
                    bench_begin(&bench, MF_OP_RMS_NORM);
                    bench.node.a.norm = (struct mf_norm_attributes){1e-5f, (uint8_t)variant};
                    bench_input(&bench, 0, dtype, 2, DIM(rows[r], widths[w]), 5);
                    bench_input(&bench, 1, w % 2 ? MF_F32 : MF_BF16, 1, DIM(widths[w]), 0);
                    bench_output(&bench, 0, dtype, 2, DIM(rows[r], widths[w]), 3);
                    bench_output(&bench, 1, MF_F32, 1, DIM(rows[r]), 0);
                    op_compare(&bench, dtype, 1);
                    bench_end(&bench);
                }
}

static void rms_norm_gradient_case(enum mf_dtype dtype, int64_t R, int64_t D, int variant, bool addend,
                                   bool in_place) {
    struct bench bench;
    bench_begin(&bench, MF_OP_RMS_NORM_GRADIENT);
    bench.node.a.norm = (struct mf_norm_attributes){1e-5f, (uint8_t)variant};
    bench_input(&bench, 0, dtype, 2, DIM(R, D), 5);
    bench_input(&bench, 1, MF_BF16, 1, DIM(D), 0);
    struct mf_array *rstd = bench_input(&bench, 2, MF_F32, 1, DIM(R), 0);
    for (int64_t r = 0; r < R; r++)
        ((float *)rstd->data)[r] = 1.5f + 0.1f * (float)(r % 5);
    bench_input(&bench, 3, dtype, 2, DIM(R, D), 2);
    if (addend)
        bench_input(&bench, 4, dtype, 2, DIM(R, D), 0);
    if (in_place)
        bench_in_place(&bench, 0, 4);
    else
        bench_output(&bench, 0, dtype, 2, DIM(R, D), 1);
    op_compare(&bench, dtype, 1);
    bench_end(&bench);
}

static void test_rms_norm_gradient(void **state) {
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (size_t r = 0; r < 3; r++)
            for (size_t w = 0; w < 4; w++) {
                rms_norm_gradient_case(dtype, rows[r], widths[w], MF_NORM_CAST_THEN_SCALE, false, false);
                rms_norm_gradient_case(dtype, rows[r], widths[w], MF_NORM_UNIT_OFFSET, true, false);
                rms_norm_gradient_case(dtype, rows[r], widths[w], MF_NORM_CAST_THEN_SCALE, true, true);
            }
}

/* Rows whose mean is far from 0 beside their spread: a variance that is a difference of squares would show.
 */
static void shift_rows(struct mf_array *x, float by) {
    for (int64_t r = 0; r < x->dim[0]; r++)
        for (int64_t d = 0; d < x->dim[1]; d++) {
            const int64_t at = r * x->stride[0] + d;
            const float shift = by * (float)(r % 4);
            if (x->dtype == MF_F32)
                ((float *)x->data)[at] += shift;
            else
                ((uint16_t *)x->data)[at] = mf_f32_to_bf16(mf_bf16_to_f32(((uint16_t *)x->data)[at]) + shift);
        }
}

static void layer_norm_case(enum mf_dtype dtype, int64_t R, int64_t D, enum mf_dtype weight, float shift) {
    struct bench bench;
    bench_begin(&bench, MF_OP_LAYER_NORM);
    bench.node.a.layer_norm.epsilon = 1e-5f;
    shift_rows(bench_input(&bench, 0, dtype, 2, DIM(R, D), 5), shift);
    bench_input(&bench, 1, weight, 1, DIM(D), 0);
    bench_input(&bench, 2, weight == MF_F32 ? MF_BF16 : MF_F32, 1, DIM(D), 0);
    bench_output(&bench, 0, dtype, 2, DIM(R, D), 3);
    bench_output(&bench, 1, MF_F32, 1, DIM(R), 0);
    bench_output(&bench, 2, MF_F32, 1, DIM(R), 0);
    op_compare(&bench, dtype, 1);
    bench_end(&bench);
}

static void test_layer_norm(void **state) {
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (size_t r = 0; r < 3; r++)
            for (size_t w = 1; w < 4; w++) /* one element has no spread */
                layer_norm_case(dtype, rows[r], widths[w], w % 2 ? MF_F32 : MF_BF16, 3);
    /* So far that a mean of one pass is off by what rounding leaves of a long sum. */
    for (size_t w = 1; w < 4; w++)
        layer_norm_case(MF_F32, 33, widths[w], MF_F32, 40);
}

static void layer_norm_gradient_case(enum mf_dtype dtype, int64_t R, int64_t D, bool addend, bool in_place) {
    struct bench bench;
    bench_begin(&bench, MF_OP_LAYER_NORM_GRADIENT);
    shift_rows(bench_input(&bench, 0, dtype, 2, DIM(R, D), 5), 3);
    bench_input(&bench, 1, MF_BF16, 1, DIM(D), 0);
    struct mf_array *mean = bench_input(&bench, 2, MF_F32, 1, DIM(R), 0);
    struct mf_array *rstd = bench_input(&bench, 3, MF_F32, 1, DIM(R), 0);
    for (int64_t r = 0; r < R; r++) {
        ((float *)mean->data)[r] = 3.0f * (float)(r % 4);
        ((float *)rstd->data)[r] = 1.5f + 0.1f * (float)(r % 5);
    }
    bench_input(&bench, 4, dtype, 2, DIM(R, D), 2);
    if (addend)
        bench_input(&bench, 5, dtype, 2, DIM(R, D), 0);
    if (in_place)
        bench_in_place(&bench, 0, 5);
    else
        bench_output(&bench, 0, dtype, 2, DIM(R, D), 1);
    op_compare(&bench, dtype, 1);
    bench_end(&bench);
}

static void test_layer_norm_gradient(void **state) {
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (size_t r = 0; r < 3; r++)
            for (size_t w = 0; w < 4; w++) {
                layer_norm_gradient_case(dtype, rows[r], widths[w], false, false);
                layer_norm_gradient_case(dtype, rows[r], widths[w], true, false);
                layer_norm_gradient_case(dtype, rows[r], widths[w], true, true);
            }
}

/* A weight in the dtype of the activations or in f32 (an adapter), frozen or not. */
struct linear_case {
    int64_t T, K, N, M, first;
    float alpha;
    bool bias, addend, in_place;
    enum mf_dtype weight;
    int64_t padding; /* of x and y: dense arrays take the packed weight */
    bool trainable;
};

static const struct linear_case linear_cases[] = {
    {1, 576, 960, 960, 0, 1, false, false, false, MF_BF16, 8, false},
    {33, 576, 192, 192, 0, 1, true, false, false, MF_BF16, 0, false},
    {64, 1536, 576, 576, 0, 1, false, true, true, MF_BF16, 0, false},
    {7, 20, 33, 33, 0, 1, true, false, false, MF_BF16, 5, false},
    {7, 20, 33, 33, 0, 0.5f, true, true, false, MF_F32, 0, false},
    {3, 40, 24, 24, 0, 1, true, false, false, MF_F16, 0, false},
    {3, 40, 24, 24, 0, 1, false, true, false, MF_F16, 7, false},
    {1, 1, 1, 1, 0, 1, false, false, false, MF_F32, 0, false},
    {130, 576, 16, 16, 0, 1, false, false, false, MF_F32, 0, true},
    {33, 16, 192, 960, 576, 2, false, true, false, MF_F32, 0, true},
    {33, 16, 192, 960, 576, 2, false, true, true, MF_F32, 0, true},
    {7, 8, 5, 9, 3, 0.5f, true, true, true, MF_F32, 3, true},
};
/* A weight of another dtype may be rounded to that of the activations before the product; one element alone
 * may then come out as its neighbour, up to 2^-7 away. */
static double linear_factor(const struct linear_case *c, enum mf_dtype dtype) {
    const bool rounded = dtype == MF_BF16 && c->weight != MF_BF16;
    return !rounded ? 1 : c->T * c->N * c->K == 1 ? 3 : 1.5;
}

enum { LINEAR_CASES = sizeof linear_cases / sizeof linear_cases[0] };

static void test_linear(void **state) {
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int i = 0; i < LINEAR_CASES; i++) {
            const struct linear_case *c = &linear_cases[i];
            struct bench bench;
            bench_begin(&bench, MF_OP_LINEAR);
            bench.node.a.linear = (struct mf_linear_attributes){c->alpha, (int32_t)c->first};
            bench.trainable = c->trainable;
            bench_input(&bench, 0, dtype, 2, DIM(c->T, c->K), c->padding);
            bench_input(&bench, 1, c->weight, 2, DIM(c->N, c->K), 0);
            if (c->bias)
                bench_input(&bench, 2, MF_BF16, 1, DIM(c->N), 0);
            if (c->addend)
                bench_input(&bench, 3, dtype, 2, DIM(c->T, c->M), 0);
            if (c->in_place)
                bench_in_place(&bench, 0, 3);
            else
                bench_output(&bench, 0, dtype, 2, DIM(c->T, c->M), c->padding);
            op_compare(&bench, dtype, linear_factor(c, dtype));
            bench_end(&bench);
        }
}

static void test_linear_input_gradient(void **state) {
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int i = 0; i < LINEAR_CASES; i++) {
            const struct linear_case *c = &linear_cases[i];
            struct bench bench;
            bench_begin(&bench, MF_OP_LINEAR_INPUT_GRADIENT);
            bench.node.a.linear = (struct mf_linear_attributes){c->alpha, (int32_t)c->first};
            bench.trainable = c->trainable;
            bench_input(&bench, 0, dtype, 2, DIM(c->T, c->M), c->padding);
            bench_input(&bench, 1, c->weight, 2, DIM(c->N, c->K), 0);
            if (c->addend)
                bench_input(&bench, 2, dtype, 2, DIM(c->T, c->K), 0);
            if (c->in_place)
                bench_in_place(&bench, 0, 2);
            else
                bench_output(&bench, 0, dtype, 2, DIM(c->T, c->K), c->padding);
            op_compare(&bench, dtype, linear_factor(c, dtype));
            bench_end(&bench);
        }
}

static void test_linear_weight_gradient(void **state) {
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int i = 0; i < LINEAR_CASES; i++) {
            const struct linear_case *c = &linear_cases[i];
            struct bench bench;
            bench_begin(&bench, MF_OP_LINEAR_WEIGHT_GRADIENT);
            bench.node.a.linear = (struct mf_linear_attributes){c->alpha, (int32_t)c->first};
            bench.trainable = c->trainable;
            bench_input(&bench, 0, dtype, 2, DIM(c->T, c->K), 3);
            bench_input(&bench, 1, dtype, 2, DIM(c->T, c->M), 0);
            bench_input(&bench, 2, MF_F32, 2, DIM(c->N, c->K), 0);
            bench_in_place(&bench, 0, 2);
            op_compare(&bench, MF_F32,
                       1); /* f32 whatever the activations are: no rounding but of the inputs */
            bench_end(&bench);
        }
}

static void test_dropout(void **state) {
    (void)state;
    int32_t row[33], position[33];
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (size_t r = 0; r < 3; r++)
            for (size_t w = 0; w < 4; w++) {
                struct bench bench;
                bench_begin(&bench, MF_OP_DROPOUT);
                bench.node.a.dropout = (struct mf_dropout_attributes){0.1f, 0xdecafbadu};
                bench.step.seed = 7;
                bench.step.step = 3;
                for (int i = 0; i < 33; i++) {
                    row[i] = 5 + i / 10;
                    position[i] = i % 10;
                }
                bench_input(&bench, 0, dtype, 2, DIM(rows[r], widths[w]), 1);
                bench_integers(&bench, 1, row, rows[r]);
                bench_integers(&bench, 2, position, rows[r]);
                if (w % 2)
                    bench_in_place(&bench, 0, 0);
                else
                    bench_output(&bench, 0, dtype, 2, DIM(rows[r], widths[w]), 0);
                op_compare(&bench, dtype, 0); /* the same bits in every element */
                bench_end(&bench);
            }
}

static void test_add(void **state) {
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int in_place = 0; in_place < 2; in_place++) {
            struct bench bench;
            bench_begin(&bench, MF_OP_ADD);
            bench_input(&bench, 0, dtype, 3, DIM(7, 3, 700), 9);
            bench_input(&bench, 1, dtype, 3, DIM(7, 3, 700), 0);
            if (in_place)
                bench_in_place(&bench, 0, 0);
            else
                bench_output(&bench, 0, dtype, 3, DIM(7, 3, 700), 2);
            op_compare(&bench, dtype, 0);
            bench_end(&bench);
        }
}

/* Without an addend, with one, and in place of it; the part at the start, inside and at the end. */
static void test_add_columns(void **state) {
    (void)state;
    const int32_t first[] = {0, 5, 600};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int variant = 0; variant < 9; variant++) {
            struct bench bench;
            bench_begin(&bench, MF_OP_ADD_COLUMNS);
            bench.node.a.columns = (struct mf_columns_attributes){first[variant % 3], 1300};
            bench_input(&bench, 0, dtype, 2, DIM(7, 700), 9);
            if (variant >= 3)
                bench_input(&bench, 1, dtype, 2, DIM(7, 1300), 3);
            if (variant >= 6)
                bench_in_place(&bench, 0, 1);
            else
                bench_output(&bench, 0, dtype, 2, DIM(7, 1300), 2);
            op_compare(&bench, dtype, 0);
            bench_end(&bench);
        }
}

static void test_rope(void **state) {
    (void)state;
    const int64_t turned[] = {64, 2, 24}, size[] = {64, 2, 40};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int i = 0; i < 3; i++)
            for (int variant = 0; variant < 4; variant++) {
                struct bench bench;
                bench_begin(&bench, MF_OP_ROPE);
                bench.node.a.rope.inverse = variant & 1;
                bench_input(&bench, 0, dtype, 3, DIM(33, 9, size[i]), 11);
                bench_input(&bench, 1, dtype, 2, DIM(33, turned[i]), 0);
                if (variant & 2)
                    bench_in_place(&bench, 0, 0);
                else
                    bench_output(&bench, 0, dtype, 3, DIM(33, 9, size[i]), 4);
                op_compare(&bench, dtype, 1);
                bench_end(&bench);
            }
}

/* A wide range of both signs. */
static void spread(struct bench *bench, struct mf_array *x) {
    for (int64_t t = 0; t < x->dim[0]; t++)
        for (int64_t f = 0; f < x->dim[1]; f++) {
            float value = bench_random(bench) * 40;
            if (x->dtype == MF_F32)
                ((float *)x->data)[t * x->stride[0] + f] = value;
            else
                ((uint16_t *)x->data)[t * x->stride[0] + f] = mf_f32_to_bf16(value);
        }
}

static void activation_case(enum mf_op op, int inputs, int outputs, enum mf_dtype dtype, int activation,
                            int64_t width, bool in_place) {
    struct bench bench;
    bench_begin(&bench, op);
    bench.node.a.gated.activation = (uint8_t)activation;
    spread(&bench, bench_input(&bench, 0, dtype, 2, DIM(33, width), 7));
    for (int i = 1; i < inputs; i++)
        bench_input(&bench, i, dtype, 2, DIM(33, width), i);
    if (in_place)
        bench_in_place(&bench, 0, 0);
    else
        bench_output(&bench, 0, dtype, 2, DIM(33, width), 0);
    if (outputs > 1)
        bench_output(&bench, 1, dtype, 2, DIM(33, width), 0);
    op_compare(&bench, dtype, 1);
    bench_end(&bench);
}

static void test_activations(void **state) {
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int activation = MF_ACTIVATION_SILU; activation <= MF_ACTIVATION_GELU_TANH; activation++)
            for (size_t w = 0; w < 4; w++) {
                const bool in_place = w % 2;
                activation_case(MF_OP_GATED_ACTIVATION, 2, 1, dtype, activation, widths[w], in_place);
                activation_case(MF_OP_GATED_ACTIVATION_GRADIENT, 3, 2, dtype, activation, widths[w],
                                in_place);
                activation_case(MF_OP_ACTIVATION, 1, 1, dtype, activation, widths[w], in_place);
                activation_case(MF_OP_ACTIVATION_GRADIENT, 2, 1, dtype, activation, widths[w], in_place);
            }
}

struct attention_case {
    int64_t heads, key_heads, size;
    int sequences;
    int32_t length[4];
    struct mf_attention_attributes a;
};

static const struct attention_case attention_cases[] = {
    {9, 3, 64, 3, {1, 33, 70}, {0.125f, 0, 0, true}}, {4, 4, 20, 2, {7, 130}, {0.3f, 0, 0, false}},
    {4, 2, 12, 3, {64, 65, 3}, {0.3f, 0, 17, true}},  {2, 1, 32, 2, {100, 5}, {0.4f, 5, 0, true}},
    {2, 2, 16, 1, {129}, {0.25f, 2, 64, true}},       {3, 1, 1, 4, {2, 1, 1, 66}, {1, 0, 0, true}},
    {4, 2, 128, 2, {150, 65}, {0.088f, 0, 0, true}},  {2, 1, 128, 2, {97, 32}, {0.088f, 3, 40, true}},
    {2, 2, 64, 2, {64, 131}, {0.125f, 4, 50, true}},  {2, 1, 128, 1, {70}, {0.088f, 0, 0, false}},
};
enum { ATTENTION_CASES = sizeof attention_cases / sizeof attention_cases[0], TAIL = 3 };

/* q, k, v as in[0..2]; returns T. offsets (sequences + 1). `sized`: the greatest sizes are known, a kernel
 * may be made for them. */
static int64_t attention_inputs(struct bench *bench, const struct attention_case *c, enum mf_dtype dtype,
                                bool sized, int32_t *offsets) {
    int32_t longest = 0;
    offsets[0] = 0;
    for (int s = 0; s < c->sequences; s++) {
        offsets[s + 1] = offsets[s] + c->length[s];
        longest = c->length[s] > longest ? c->length[s] : longest;
    }
    int64_t T = offsets[c->sequences] + TAIL;
    bench->node.a.attention = c->a;
    bench->step.value[MF_TOKENS] = sized ? (int32_t)T : 0;
    bench->step.value[MF_SEQUENCES] = sized ? c->sequences + 1 : 0;
    bench->step.value[MF_LONGEST] = sized ? longest + 1 : 0;
    bench_input(bench, 0, dtype, 3, DIM(T, c->heads, c->size), 16);
    bench_input(bench, 1, dtype, 3, DIM(T, c->key_heads, c->size), 24);
    bench_input(bench, 2, dtype, 3, DIM(T, c->key_heads, c->size), 24);
    return T;
}

static void test_attention(void **state) {
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int i = 0; i < 2 * ATTENTION_CASES; i++) {
            const struct attention_case *c = &attention_cases[i / 2];
            int32_t offsets[5];
            struct bench bench;
            bench_begin(&bench, MF_OP_ATTENTION);
            int64_t T = attention_inputs(&bench, c, dtype, i % 2, offsets);
            bench.call.in[4] = *bench_integers(&bench, 3, offsets, c->sequences + 1);
            bench_output(&bench, 0, dtype, 3, DIM(T, c->heads, c->size), 8);
            bench_output(&bench, 1, MF_F32, 2, DIM(T, c->heads), 0);
            op_compare(&bench, dtype, 1);
            bench_end(&bench);
        }
}

/* Queries at the end of longer caches, as when decoding (1 query) and prefilling in parts (70). */
static void test_attention_on_a_cache(void **state) {
    (void)state;
    const int32_t query_offsets[] = {0, 1, 71, 74}, cache_offsets[] = {0, 90, 290, 300},
                  lengths[] = {83, 180, 3};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int32_t window = 0; window <= 50; window += 50) {
            struct bench bench;
            bench_begin(&bench, MF_OP_ATTENTION);
            bench.node.a.attention = (struct mf_attention_attributes){0.125f, 0, window, true};
            bench_input(&bench, 0, dtype, 3, DIM(74, 9, 64), 0);
            bench_input(&bench, 1, dtype, 3, DIM(300, 3, 64), 0);
            bench_input(&bench, 2, dtype, 3, DIM(300, 3, 64), 0);
            bench_integers(&bench, 3, query_offsets, 4);
            bench_integers(&bench, 4, cache_offsets, 4);
            bench_integers(&bench, 5, lengths, 3);
            bench_output(&bench, 0, dtype, 3, DIM(74, 9, 64), 0);
            bench_output(&bench, 1, MF_F32, 2, DIM(74, 9), 0);
            op_compare(&bench, dtype, 1);
            bench_end(&bench);
        }
}

static void test_attention_gradient(void **state) {
    (void)state;
    struct mf_backend *oracle;
    assert_int_equal(mf_cpu_reference_create(&oracle, NULL), MF_OK);
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int i = 0; i < 2 * ATTENTION_CASES; i++) {
            const struct attention_case *c = &attention_cases[i / 2];
            int32_t offsets[5];
            struct bench forward, bench;
            bench_begin(&forward, MF_OP_ATTENTION);
            int64_t T = attention_inputs(&forward, c, dtype, i % 2, offsets);
            bench_integers(&forward, 3, offsets, c->sequences + 1);
            bench_integers(&forward, 4, offsets, c->sequences + 1);
            bench_output(&forward, 0, dtype, 3, DIM(T, c->heads, c->size), 0);
            bench_output(&forward, 1, MF_F32, 2, DIM(T, c->heads), 0);
            bench_run(&forward, oracle, dtype);

            bench_begin(&bench, MF_OP_ATTENTION_GRADIENT);
            bench.step = forward.step;
            bench.node.a.attention = c->a;
            for (int in = 0; in < 3; in++)
                bench.call.in[in] = forward.call.in[in];
            bench.call.in[3] = forward.call.out[0];
            bench.call.in[4] = forward.call.out[1];
            bench_input(&bench, 5, dtype, 3, DIM(T, c->heads, c->size), 8);
            bench.call.in[7] = *bench_integers(&bench, 6, offsets, c->sequences + 1);
            bench_output(&bench, 0, dtype, 3, DIM(T, c->heads, c->size), 16);
            bench_output(&bench, 1, dtype, 3, DIM(T, c->key_heads, c->size), 8);
            bench_output(&bench, 2, dtype, 3, DIM(T, c->key_heads, c->size), 0);
            bench_workspace(&bench, 2, DIM(T, c->heads));
            op_compare(&bench, dtype, 1.5); /* p and its gradient are rounded on their way into the sums */
            bench_end(&bench);
            bench_end(&forward);
        }
}

static void head_case(enum mf_dtype dtype, int64_t L, int64_t V, int64_t D, struct mf_head_attributes a,
                      bool bias) {
    enum { T = 40 };
    int32_t label_rows[T], labels[T];
    struct bench bench;
    bench_begin(&bench, MF_OP_HEAD);
    bench.node.a.head = a;
    for (int64_t i = 0; i < L; i++) {
        label_rows[i] = (int32_t)(i * (T - 1) / (L > 1 ? L - 1 : 1));
        labels[i] = (int32_t)((i * 37 + V - 1) % V);
    }
    bench_input(&bench, 0, dtype, 2, DIM(T, D), 4);
    bench_input(&bench, 1, MF_BF16, 2, DIM(V, D), 0);
    bench_integers(&bench, 2, label_rows, L);
    bench_integers(&bench, 3, labels, L);
    if (bias)
        bench_input(&bench, 4, MF_BF16, 1, DIM(V), 0);
    bench_output(&bench, 0, MF_F32, 1, DIM(L), 0);
    bench_output(&bench, 1, MF_F32, 1, DIM(L), 0);
    if (a.with_gradient)
        bench_output(&bench, 2, dtype, 2, DIM(L, D), 0);
    bench_workspace(&bench, 2, DIM(a.chunk_rows, V));
    /* Log-probabilities are f32: products of bf16 are exact. A row's gradient in bf16 may hang on one slope,
     * whose rounding alone is worth up to 2^-8. */
    op_compare(&bench, MF_F32, dtype == MF_BF16 ? 2 : 1);
    bench_end(&bench);
}

static void test_head(void **state) {
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++) {
        head_case(dtype, 33, 1000, 64, (struct mf_head_attributes){1, 0, 8, true}, false);
        head_case(dtype, 1, 33, 20, (struct mf_head_attributes){0.5f, 0, 128, true}, false);
        head_case(dtype, 7, 777, 48, (struct mf_head_attributes){1, 3, 4, true}, false);
        head_case(dtype, 7, 777, 48, (struct mf_head_attributes){1, 0, 7, false}, false);
        head_case(dtype, 33, 1000, 64, (struct mf_head_attributes){1, 0, 8, true}, true);
        head_case(dtype, 7, 777, 48, (struct mf_head_attributes){0.5f, 3, 4, true}, true);
        head_case(dtype, 0, 100, 16, (struct mf_head_attributes){1, 0, 4, true}, false); /* no labels */
    }
}

static void test_head_gradient(void **state) {
    (void)state;
    const int32_t label_rows[] = {0, 3, 4, 32};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (int64_t L = 0; L <= 4; L += 4) {
            struct bench bench;
            bench_begin(&bench, MF_OP_HEAD_GRADIENT);
            bench_input(&bench, 0, dtype, 2, DIM(L, 700), 0);
            bench_integers(&bench, 1, label_rows, L);
            bench_input(&bench, 2, MF_F32, 1, DIM(L), 0);
            bench_input(&bench, 3, dtype, 2, DIM(33, 700), 0);
            bench_output(&bench, 0, dtype, 2, DIM(33, 700), 4);
            op_compare(&bench, dtype, 0);
            bench_end(&bench);
        }
}

static void test_logits(void **state) {
    (void)state;
    const int32_t last[] = {0, 12, 32};
    for (int i = 0; i < 4; i++) {
        const enum mf_dtype dtype = i % 2 ? MF_BF16 : MF_F32;
        struct bench bench;
        bench_begin(&bench, MF_OP_LOGITS);
        bench.node.a.head = (struct mf_head_attributes){1.5f, 4, 0, false};
        bench_input(&bench, 0, dtype, 2, DIM(33, 64), 8);
        bench_input(&bench, 1, MF_BF16, 2, DIM(1001, 64), 0);
        bench_integers(&bench, 2, last, 3);
        if (i >= 2)
            bench_input(&bench, 3, MF_F32, 1, DIM(1001), 0);
        bench_output(&bench, 0, MF_F32, 2, DIM(3, 1001), 0);
        op_compare(&bench, MF_F32, 1);
        bench_end(&bench);
    }
}

static void test_embedding(void **state) {
    (void)state;
    const int32_t tokens[] = {0, 99, 7, 7, 50};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++) {
        struct bench bench;
        bench_begin(&bench, MF_OP_EMBEDDING);
        bench.node.a.embedding.scale = 1.5f;
        bench_input(&bench, 0, MF_BF16, 2, DIM(100, 67), 0);
        bench_integers(&bench, 1, tokens, 5);
        bench_output(&bench, 0, dtype, 2, DIM(5, 67), 3);
        op_compare(&bench, dtype, 0);
        bench_end(&bench);
    }
}

static void test_rope_table(void **state) {
    (void)state;
    const int32_t positions[] = {0, 1, 2, 1000, 131071};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++) {
        struct bench bench;
        bench_begin(&bench, MF_OP_ROPE_TABLE);
        bench.node.a.rope_table.factor = 1.25f;
        bench_input(&bench, 0, MF_F32, 1, DIM(33), 0);
        bench_integers(&bench, 1, positions, 5);
        bench_output(&bench, 0, dtype, 2, DIM(5, 66), 0);
        op_compare(&bench, dtype, 1);
        bench_end(&bench);
    }
}

static void test_loss(void **state) {
    (void)state;
    for (int64_t L = 0; L <= 1001; L += 1001)
        for (int backward = 0; backward < 2; backward++) {
            struct bench bench;
            bench_begin(&bench, backward ? MF_OP_LOSS_GRADIENT : MF_OP_LOSS);
            bench.step.inverse_count = 0.125f;
            bench_input(&bench, 0, MF_F32, 1, DIM(L), 0);
            if (!backward)
                bench_input(&bench, 1, MF_F32, 1, DIM(L), 0);
            bench_output(&bench, 0, MF_F32, 1, DIM(backward ? L : 1), 0);
            op_compare(&bench, MF_F32, 1);
            bench_end(&bench);
        }
}

static void test_argmax(void **state) {
    (void)state;
    for (int64_t V = 3; V <= 1003; V += 500) {
        struct bench bench;
        bench_begin(&bench, MF_OP_ARGMAX);
        struct mf_array *logits = bench_input(&bench, 0, MF_F32, 2, DIM(4, V), 0);
        float *row = logits->data; /* the lowest of equals, far apart and side by side */
        row[1] = row[V - 1] = 2;
        row[V] = row[V + 1] = 3;
        int32_t tokens[4] = {-1, -1, -1, -1};
        bench.call.out[0] = *bench_integers(&bench, 1, tokens, 4);
        bench.call.in[1] = (struct mf_array){.tensor = -1};
        op_compare(&bench, MF_F32, 0);
        bench_end(&bench);
    }
}

static void test_cache_write(void **state) {
    (void)state;
    const int32_t slots[] = {10, 0, 4};
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++) {
        struct bench bench;
        bench_begin(&bench, MF_OP_CACHE_WRITE);
        bench_input(&bench, 0, dtype, 3, DIM(11, 2, 20), 0);
        bench_input(&bench, 1, dtype, 3, DIM(3, 2, 20), 7);
        bench_integers(&bench, 2, slots, 3);
        bench_in_place(&bench, 0, 0);
        op_compare(&bench, dtype, 0);
        bench_end(&bench);
    }
}

int op_cases_run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rms_norm),
        cmocka_unit_test(test_rms_norm_gradient),
        cmocka_unit_test(test_layer_norm),
        cmocka_unit_test(test_layer_norm_gradient),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_linear_input_gradient),
        cmocka_unit_test(test_linear_weight_gradient),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_add_columns),
        cmocka_unit_test(test_rope_table),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_on_a_cache),
        cmocka_unit_test(test_attention_gradient),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_head_gradient),
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_argmax),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_cache_write),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + op_cases_weights_run() + op_cases_update_run() + op_cases_quantized_run();
}
