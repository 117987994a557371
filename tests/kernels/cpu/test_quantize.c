/* Weights in few bits against bitsandbytes (tests/golden/make_quantized.py), bit for bit: packed codes,
 * scales, nested codes and what comes back. The mean of a nested weight's scales is a sum in an order of
 * PyTorch's own, so it and the scales that are measured from it may be a last bit or two away; with
 * bitsandbytes' own parts the result is exact again. */
#include "kernels/quantize.h"
#include "providers/weights/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct mf_safetensors *golden;

static int open_golden(void **state) {
    (void)state;
    struct mf_error error;
    return mf_safetensors_open_file("tests/golden/quantized.safetensors", &golden, &error) != MF_OK;
}

static int close_golden(void **state) {
    (void)state;
    mf_safetensors_close(golden);
    return 0;
}

static const struct mf_stored_tensor *part_or_null(const char *name, const char *part) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", name, part);
    return mf_safetensors_find(golden, key);
}

/* A copy of a golden tensor at an aligned address; the caller frees it. */
static void *part(const char *name, const char *what, size_t *bytes) {
    *bytes = 0;
    const struct mf_stored_tensor *tensor = part_or_null(name, what);
    if (!tensor) {
        fail_msg("there is no golden %s.%s", name, what);
        return NULL;
    }
    void *copy = malloc(tensor->bytes);
    assert_non_null(copy);
    memcpy(copy, tensor->data, tensor->bytes);
    *bytes = tensor->bytes;
    return copy;
}

static void assert_same(const char *name, const char *what, const void *made, size_t made_bytes) {
    size_t bytes;
    uint8_t *expected = part(name, what, &bytes);
    assert_int_equal(made_bytes, bytes);
    for (size_t i = 0; i < bytes; i++)
        if (((const uint8_t *)made)[i] != expected[i])
            fail_msg("%s.%s: byte %zu of %zu is %02x, not %02x", name, what, i, bytes,
                     ((const uint8_t *)made)[i], expected[i]);
    free(expected);
}

static void assert_near(const char *name, const char *what, const float *made, size_t count,
                        double tolerance) {
    size_t bytes;
    float *expected = part(name, what, &bytes);
    assert_int_equal(count * sizeof *made, bytes);
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)made[i] - (double)expected[i]) <= tolerance))
            fail_msg("%s.%s[%zu] is %.9g, not %.9g", name, what, i, (double)made[i], (double)expected[i]);
    free(expected);
}

static void assert_dequantized(const struct mf_quantized *weight, const char *name, const char *what,
                               enum mf_dtype dtype) {
    const size_t bytes = (size_t)(weight->rows * weight->columns) * mf_dtype_bytes(dtype);
    void *made = malloc(bytes);
    mf_dequantize(weight, dtype, made);
    assert_same(name, what, made, bytes);
    free(made);
}

struct source {
    enum mf_dtype dtype;
    int64_t rows, columns;
    void *data;
};

static struct source source_of(const char *which) {
    const struct mf_stored_tensor *tensor = part_or_null(which, "weight");
    struct source source = {0};
    size_t bytes;
    assert_non_null(tensor);
    source.data = part(which, "weight", &bytes);
    source.dtype = tensor->dtype;
    source.rows = tensor->dim[0];
    source.columns = tensor->dim[1];
    return source;
}

static void quantize(const struct source *source, enum mf_quantization quantization, bool nested,
                     struct mf_quantized *out) {
    struct mf_error error;
    if (mf_quantize(source->dtype, source->data, source->rows, source->columns, quantization, nested, out,
                    &error) != MF_OK)
        fail_msg("%s", error.message);
    assert_int_equal(out->nested, nested);
}

/* Largest magnitude of the scales about their mean: what a difference of the mean is measured by. */
static double size_of(const float *value, size_t count) {
    double size = 1e-45;
    for (size_t i = 0; i < count; i++)
        size = fmax(size, fabs((double)value[i]));
    return size;
}

static void check_nested(const struct source *source, const char *name, enum mf_quantization quantization,
                         const struct mf_quantized *plain) {
    const size_t blocks = ((size_t)(source->rows * source->columns) + 63) / 64;
    const double last_bits = 3e-7 * size_of(plain->scale, blocks);
    struct mf_quantized nested;
    size_t bytes;
    quantize(source, quantization, true, &nested);
    assert_null(nested.scale);
    assert_same(name, "code", nested.code, (size_t)(source->rows * source->columns + 1) / 2);
    assert_near(name, "scale_mean", &nested.scale_mean, 1, last_bits);
    assert_near(name, "scale_scale", nested.scale_scale, (blocks + 255) / 256, last_bits);
    const bool measured = size_of(nested.scale_scale, (blocks + 255) / 256) > last_bits;
    if (measured) /* else the scales are all the same, and their codes say nothing */
        assert_same(name, "scale_code", nested.scale_code, blocks);
    free(nested.scale_scale);
    free(nested.scale_code);
    nested.scale_scale = part(name, "scale_scale", &bytes);
    nested.scale_code = part(name, "scale_code", &bytes);
    float *mean = part(name, "scale_mean", &bytes);
    nested.scale_mean = *mean;
    free(mean);
    assert_dequantized(&nested, name, "nested", source->dtype == MF_F32 ? MF_F32 : MF_BF16);
    mf_quantized_free(&nested);
}

static void check_four_bits(const char *which, enum mf_quantization quantization) {
    struct source source = source_of(which);
    const int64_t elements = source.rows * source.columns;
    struct mf_quantized weight;
    char name[64];
    snprintf(name, sizeof name, "%s.%s", which, mf_quantization_name(quantization));
    quantize(&source, quantization, false, &weight);
    assert_same(name, "code", weight.code, (size_t)(elements + 1) / 2);
    assert_same(name, "scale", weight.scale, (size_t)(elements + 63) / 64 * sizeof(float));
    assert_int_equal(mf_quantized_bytes(&weight),
                     (size_t)(elements + 1) / 2 + (size_t)(elements + 63) / 64 * 4);
    if (source.dtype == MF_F32)
        assert_dequantized(&weight, name, "f32", MF_F32);
    else
        assert_dequantized(&weight, name, "bf16", MF_BF16);
    check_nested(&source, name, quantization, &weight);
    mf_quantized_free(&weight);
    free(source.data);
}

static const char *const cases[] = {"blocks",
                                    "rows_across_blocks",
                                    "wide_rows_across_blocks",
                                    "odd",
                                    "one",
                                    "holes",
                                    "nothing",
                                    "tiny",
                                    "nf4_thresholds",
                                    "fp4_thresholds",
                                    "two_nested_blocks"};
enum { CASES = sizeof cases / sizeof *cases };

static void test_nf4(void **state) {
    (void)state;
    for (size_t i = 0; i < CASES; i++)
        check_four_bits(cases[i], MF_QUANTIZATION_NF4);
}

static void test_fp4(void **state) {
    (void)state;
    for (size_t i = 0; i < CASES; i++)
        check_four_bits(cases[i], MF_QUANTIZATION_FP4);
}

static void test_int8(void **state) {
    (void)state;
    for (size_t i = 0; i < CASES; i++) {
        if (!strcmp(cases[i], "tiny"))
            continue; /* 127 / 1e-39 is infinite: bitsandbytes' integers are not defined; ours are 0 */
        struct source source = source_of(cases[i]);
        struct mf_quantized weight;
        char name[64];
        snprintf(name, sizeof name, "%s.int8", cases[i]);
        quantize(&source, MF_QUANTIZATION_INT8, false, &weight);
        assert_same(name, "code", weight.code, (size_t)(source.rows * source.columns));
        assert_same(name, "scale", weight.scale, (size_t)source.rows * sizeof(float));
        if (source.dtype == MF_F32)
            assert_dequantized(&weight, name, "f32", MF_F32);
        else
            assert_dequantized(&weight, name, "bf16", MF_BF16);
        mf_quantized_free(&weight);
        free(source.data);
    }
}

static void test_nested_map(void **state) {
    (void)state;
    const struct mf_stored_tensor *map = mf_safetensors_find(golden, "map");
    assert_non_null(map);
    assert_int_equal(map->bytes, MF_QUANTIZATION_NESTED_CODES * sizeof(float));
    assert_memory_equal(mf_quantization_nested_map(), map->data, map->bytes);
}

/* A weight that is not finite does not come back as one that is. */
static void test_not_finite(void **state) {
    (void)state;
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    static const enum mf_quantization all[] = {MF_QUANTIZATION_NF4, MF_QUANTIZATION_FP4,
                                               MF_QUANTIZATION_INT8};
    for (size_t i = 0; i < 9; i++) {
        float value[2 * 64], back[2 * 64];
        struct mf_quantized weight;
        for (int k = 0; k < 128; k++)
            value[k] = (float)(k % 9) - 4;
        value[64 + 5] = bad[i / 3];
        value[64 + 7] = 100;
        quantize(&(struct source){MF_F32, 2, 64, value}, all[i % 3], false, &weight);
        mf_dequantize(&weight, MF_F32, back);
        assert_true(isfinite(back[5]));
        assert_true(!isfinite(back[64 + 5]));
        mf_quantized_free(&weight);
    }
}

static void test_what_cannot_be_quantised(void **state) {
    (void)state;
    float value[64] = {1};
    struct mf_quantized weight;
    struct mf_error error;
    assert_int_equal(mf_quantize(MF_I32, value, 1, 64, MF_QUANTIZATION_NF4, false, &weight, &error),
                     MF_ERROR_INTERNAL);
    assert_int_equal(mf_quantize(MF_F32, value, 1, 64, MF_QUANTIZATION_INT8, true, &weight, &error),
                     MF_ERROR_INTERNAL);
    assert_int_equal(mf_quantize(MF_F32, value, 1, 64, MF_QUANTIZATION_NONE, false, &weight, &error),
                     MF_ERROR_INTERNAL);
    assert_string_equal(error.message, "f32 (1, 64) cannot be quantised to none");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nf4),        cmocka_unit_test(test_fp4),
        cmocka_unit_test(test_int8),       cmocka_unit_test(test_nested_map),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_what_cannot_be_quantised),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
