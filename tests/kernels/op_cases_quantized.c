/* DEQUANTIZE: the values of quantize.h to the last bit, for weights that were quantised in one part and in
 * three, of sizes that leave blocks half full and rows at odd places. */
#include "kernels/quantize.h"
#include "tests/kernels/op_cases.h"
#include "tests/kernels/op_compare.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MOST = 1 << 20 };

/* What a weight is kept in. */
struct kept {
    uint8_t *codes, *scale_codes;
    float *scales;
    char *expected;
    size_t codes_bytes, scale_codes_bytes, scales_count, expected_bytes;
};

static void add_part(struct bench *bench, const struct mf_dequantize_attributes *a, int32_t rows,
                     enum mf_dtype dtype, struct kept *kept) {
    const enum mf_quantization quantization = (enum mf_quantization)a->quantization;
    const struct mf_quantized_layout size = mf_quantized_layout(quantization, a->nested, rows, a->columns);
    const size_t elements = (size_t)rows * (size_t)a->columns;
    float *value = malloc(elements * sizeof *value);
    struct mf_quantized part;
    assert_non_null(value);
    for (size_t i = 0; i < elements; i++)
        value[i] = (float)rows * bench_random(bench);
    assert_int_equal(mf_quantize(MF_F32, value, rows, a->columns, quantization, a->nested, &part, NULL),
                     MF_OK);
    mf_dequantize(&part, dtype, kept->expected + kept->expected_bytes);
    memcpy(kept->codes + kept->codes_bytes, part.code, mf_quantized_code_bytes(&part));
    const size_t scales = (size_t)size.scales - (part.nested ? 1 : 0);
    memcpy(kept->scales + kept->scales_count, part.nested ? part.scale_scale : part.scale,
           scales * sizeof(float));
    if (part.nested) {
        kept->scales[kept->scales_count + scales] = part.scale_mean;
        memcpy(kept->scale_codes + kept->scale_codes_bytes, part.scale_code, (size_t)size.scale_codes);
    }
    kept->codes_bytes += (size_t)size.codes;
    kept->scales_count += (size_t)size.scales;
    kept->scale_codes_bytes += (size_t)size.scale_codes;
    kept->expected_bytes += elements * mf_dtype_bytes(dtype);
    mf_quantized_free(&part);
    free(value);
}

static void dequantize_case(enum mf_quantization quantization, bool nested, const int32_t *rows,
                            int32_t columns, enum mf_dtype dtype) {
    struct bench bench;
    struct mf_backend *oracle;
    struct kept kept = {.codes = calloc(MOST, 1),
                        .scale_codes = calloc(MOST, 1),
                        .scales = calloc(MOST, sizeof(float)),
                        .expected = malloc(4 * (size_t)MOST)};
    int64_t all = 0;
    assert_true(kept.codes && kept.scale_codes && kept.scales && kept.expected);
    bench_begin(&bench, MF_OP_DEQUANTIZE);
    struct mf_dequantize_attributes *a = &bench.node.a.dequantize;
    *a = (struct mf_dequantize_attributes){
        .quantization = (uint32_t)quantization, .nested = nested, .columns = columns};
    for (int i = 0; i < MF_QUANTIZED_PARTS && rows[i]; i++) {
        a->rows[i] = rows[i];
        add_part(&bench, a, rows[i], dtype, &kept);
        all += rows[i];
    }
    bench_bytes(&bench, 0, kept.codes, (int64_t)kept.codes_bytes);
    memcpy(bench_input(&bench, 1, MF_F32, 1, DIM((int64_t)kept.scales_count), 0)->data, kept.scales,
           kept.scales_count * sizeof(float));
    if (nested)
        bench_bytes(&bench, 2, kept.scale_codes, (int64_t)kept.scale_codes_bytes);
    bench_output(&bench, 0, dtype, 2, DIM(all, columns), 0);
    op_compare(&bench, dtype, 0);
    assert_int_equal(mf_cpu_reference_create(&oracle, NULL), MF_OK);
    bench_run(&bench, oracle, dtype);
    assert_memory_equal(bench.call.out[0].data, kept.expected, kept.expected_bytes);
    bench_end(&bench);
    free(kept.codes);
    free(kept.scale_codes);
    free(kept.scales);
    free(kept.expected);
}

static void test_dequantize(void **state) {
    static const int32_t parts[][MF_QUANTIZED_PARTS] = {{96}, {64, 32, 32}, {7, 3, 1}, {1}};
    static const int32_t columns[] = {64, 576, 37, 200};
    static const struct {
        enum mf_quantization quantization;
        bool nested;
    } forms[] = {{MF_QUANTIZATION_NF4, false},
                 {MF_QUANTIZATION_NF4, true},
                 {MF_QUANTIZATION_FP4, false},
                 {MF_QUANTIZATION_FP4, true},
                 {MF_QUANTIZATION_INT8, false}};
    (void)state;
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++)
        for (size_t form = 0; form < sizeof forms / sizeof *forms; form++)
            for (size_t p = 0; p < sizeof parts / sizeof *parts; p++)
                for (size_t c = 0; c < sizeof columns / sizeof *columns; c++)
                    dequantize_case(forms[form].quantization, forms[form].nested, parts[p], columns[c],
                                    dtype);
}

int op_cases_quantized_run(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_dequantize)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
