/* The oneDNN wrapper against three loops: packed and plain right-hand sides, every combination of options,
 * many numbers of rows over one packed weight, more shapes than the cache holds. */
#include "kernels/cpu/gemm.h"
#include "kernels/tensor.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct mf_gemm *gemm;
static uint32_t random_state = 1;

static float random_value(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) * 0x1p-23f - 1.0f;
}

/* A matrix in f32 and, for the product, in f32 or bf16; values are exact in both. */
struct matrix {
    float *value;
    void *stored;
};

static struct matrix matrix_random(int64_t elements, bool bf16) {
    struct matrix m = {calloc((size_t)elements + 1, sizeof(float)), NULL};
    uint16_t *narrow = calloc((size_t)elements + 1, sizeof *narrow);
    assert_non_null(m.value);
    assert_non_null(narrow);
    for (int64_t i = 0; i < elements; i++) {
        narrow[i] = mf_f32_to_bf16(random_value());
        m.value[i] = mf_bf16_to_f32(narrow[i]);
    }
    if (bf16) {
        m.stored = narrow;
    } else {
        free(narrow);
        m.stored = m.value;
    }
    return m;
}

static void matrix_free(struct matrix *m) {
    if (m->stored != m->value)
        free(m->stored);
    free(m->value);
}

struct product_case {
    int64_t M, K, N;
    bool bf16, c_bf16, packed, transposed_b, transposed_a, accumulate, bias;
    float alpha;
};

static void *pack(const struct mf_operand *from, bool bf16, struct mf_operand *to) {
    struct mf_error error;
    size_t bytes = mf_gemm_packed_bytes(gemm, from->K, from->N, bf16);
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(memory);
    assert_int_equal(mf_gemm_pack(gemm, from, bf16, memory, to, &error), MF_OK);
    return memory;
}

static void check(const struct product_case *p) {
    struct matrix a = matrix_random(p->M * p->K, p->bf16), b = matrix_random(p->K * p->N, p->bf16);
    struct matrix c = matrix_random(p->M * p->N, p->c_bf16), bias = matrix_random(p->N, false);
    struct mf_operand plain = {.data = b.stored,
                               .K = p->K,
                               .N = p->N,
                               .k_stride = p->transposed_b ? 1 : p->N,
                               .n_stride = p->transposed_b ? p->K : 1,
                               .bf16 = p->bf16};
    struct mf_operand operand = plain;
    void *memory = p->packed ? pack(&plain, p->bf16, &operand) : NULL;
    struct mf_product product = {.M = p->M,
                                 .a = a.stored,
                                 .a_row = p->transposed_a ? 1 : p->K,
                                 .a_column = p->transposed_a ? p->M : 1,
                                 .b = &operand,
                                 .bias = p->bias ? bias.value : NULL,
                                 .c = c.stored,
                                 .c_row = p->N,
                                 .c_bf16 = p->c_bf16,
                                 .accumulate = p->accumulate,
                                 .alpha = p->alpha};
    struct mf_error error = {.message = ""};
    float *before = malloc((size_t)(p->M * p->N + 1) * sizeof *before);
    memcpy(before, c.value, (size_t)(p->M * p->N) * sizeof *before);
    if (mf_gemm_run(gemm, &product, &error) != MF_OK)
        fail_msg("%s", error.message);
    for (int64_t m = 0; m < p->M; m++)
        for (int64_t n = 0; n < p->N; n++) {
            double sum = p->bias ? bias.value[n] : 0;
            for (int64_t k = 0; k < p->K; k++)
                sum += (double)a.value[p->transposed_a ? k * p->M + m : m * p->K + k] *
                       b.value[p->transposed_b ? n * p->K + k : k * p->N + n];
            sum = p->alpha * sum + (p->accumulate ? before[m * p->N + n] : 0);
            double got = p->c_bf16 ? mf_bf16_to_f32(((uint16_t *)c.stored)[m * p->N + n])
                                   : ((float *)c.stored)[m * p->N + n];
            double bound = p->c_bf16 ? fabs(sum) / 256 + 1e-4 : 1e-5 * sqrt((double)p->K) + 1e-5;
            if (!(fabs(got - sum) <= bound))
                fail_msg("M %ld K %ld N %ld at (%ld, %ld): %g, should be %g", (long)p->M, (long)p->K,
                         (long)p->N, (long)m, (long)n, got, sum);
        }
    free(before);
    free(memory);
    matrix_free(&a);
    matrix_free(&b);
    matrix_free(&c);
    matrix_free(&bias);
}

static void test_every_combination(void **state) {
    (void)state;
    for (unsigned options = 0; options < 256; options++) {
        struct product_case p = {.M = 7,
                                 .K = 33,
                                 .N = 20,
                                 .bf16 = options & 1,
                                 .c_bf16 = (options & 3) == 3, /* only of bf16 operands */
                                 .packed = options & 4,
                                 .transposed_b = options & 8,
                                 .transposed_a = options & 16,
                                 .accumulate = options & 32,
                                 .bias = options & 64,
                                 .alpha = options & 128 ? 0.5f : 1.0f};
        check(&p);
    }
}

static void test_one_packed_layout_serves_every_number_of_rows(void **state) {
    (void)state;
    const int64_t rows[] = {0, 1, 2, 15, 16, 17, 64, 100, 257, 600};
    const int64_t shapes[][2] = {{576, 192}, {64, 1000}, {20, 5}, {1, 1}, {100, 16}};
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
            for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
                struct product_case p = {.M = rows[r],
                                         .K = shapes[s][0],
                                         .N = shapes[s][1],
                                         .bf16 = bf16,
                                         .packed = true,
                                         .transposed_b = true,
                                         .alpha = 1};
                check(&p);
            }
}

static void test_more_shapes_than_the_cache_holds(void **state) {
    (void)state;
    for (int round = 0; round < 2; round++)
        for (int64_t M = 1; M <= 600; M++) {
            struct product_case p = {.M = M, .K = 3, .N = 2, .alpha = 1};
            check(&p);
        }
}

static void test_f32_weights_are_packed_as_bf16(void **state) {
    (void)state;
    enum { K = 40, N = 24 };
    struct matrix b = matrix_random(K * N, false), a = matrix_random(K, true);
    struct mf_operand plain = {.data = b.stored, .K = K, .N = N, .k_stride = N, .n_stride = 1}, operand;
    void *memory = pack(&plain, true, &operand);
    float c[N];
    struct mf_product product = {
        .M = 1, .a = a.stored, .a_row = K, .a_column = 1, .b = &operand, .c = c, .c_row = N, .alpha = 1};
    assert_int_equal(mf_gemm_run(gemm, &product, NULL), MF_OK);
    for (int n = 0; n < N; n++) {
        double sum = 0;
        for (int k = 0; k < K; k++)
            sum += (double)a.value[k] * b.value[k * N + n];
        assert_true(fabs(sum - c[n]) < 1e-4);
    }
    free(memory);
    matrix_free(&a);
    matrix_free(&b);
}

static int set_up(void **state) {
    (void)state;
    return mf_gemm_create(&gemm, NULL) == MF_OK ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    mf_gemm_destroy(gemm);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_combination),
        cmocka_unit_test(test_one_packed_layout_serves_every_number_of_rows),
        cmocka_unit_test(test_more_shapes_than_the_cache_holds),
        cmocka_unit_test(test_f32_weights_are_packed_as_bf16),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
