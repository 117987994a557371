/* Compiled without contraction: every product and sum is rounded as in bitsandbytes. */
#include "kernels/quantize.h"
#include "kernels/dynamic_map.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = MF_QUANTIZATION_BLOCK, CODES = 16, NESTED_BLOCK = MF_QUANTIZATION_NESTED_BLOCK };

/* Ascending values, and the nibble that stands for each. */
struct code {
    float value[CODES];
    uint8_t nibble[CODES];
};

static const struct code nf4 = {{-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                                 -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                                 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f,
                                 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                                 0.7229568362236023f, 1.0f},
                                {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

/* A sign, two bits of exponent and one of mantissa, over 12. Zero has two nibbles: 0 is taken for what is not
 * above zero, 8 for what is, as bitsandbytes does on the CPU. */
static const struct code fp4 = {{-1.0f, -8.0f / 12, -6.0f / 12, -4.0f / 12, -3.0f / 12, -2.0f / 12,
                                 -0.0625f / 12, 0.0f, 0.0f, 0.0625f / 12, 2.0f / 12, 3.0f / 12, 4.0f / 12,
                                 6.0f / 12, 8.0f / 12, 1.0f},
                                {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3}};

const char *mf_quantization_name(enum mf_quantization quantization) {
    static const char *const name[] = {"none", "nf4", "fp4", "int8"};
    assert((size_t)quantization < sizeof name / sizeof *name);
    return name[quantization];
}

static int64_t block_count(int64_t elements, int64_t block) {
    return (elements + block - 1) / block;
}

static float value_at(enum mf_dtype dtype, const void *data, int64_t index) {
    if (dtype == MF_F32)
        return ((const float *)data)[index];
    const uint16_t bits = ((const uint16_t *)data)[index];
    return dtype == MF_BF16 ? mf_bf16_to_f32(bits) : mf_f16_to_f32(bits);
}

/* The largest magnitude; not a number when one of them is not. */
static float largest(const float *value, int64_t count) {
    float found = 0;
    for (int64_t i = 0; i < count; i++) {
        const float size = fabsf(value[i]);
        found = size > found || size != size ? size : found;
    }
    return found;
}

/* Divides a block by its largest magnitude, which it returns. Only a weight's last block may have fewer
 * values than `block`; that one divides where the others multiply by an inverse, and its scale is never 0, as
 * in bitsandbytes. */
static float normalize(float *value, int64_t count, int64_t block) {
    const float scale = largest(value, count), divisor = scale < 1e-38f ? 1e-38f : scale;
    const float inverse = 1.0f / divisor;
    for (int64_t i = 0; i < count; i++) {
        const float scaled = count < block ? value[i] / divisor : value[i] * inverse;
        value[i] = scaled < -1 ? -1 : scaled > 1 ? 1 : scaled;
    }
    return count < block ? divisor : scale;
}

/* ---- the nested map ---- */

const float *mf_quantization_nested_map(void) {
    return mf_dynamic_map_signed;
}

/* ---- 4 bits ---- */

static const struct code *code_of(enum mf_quantization quantization) {
    return quantization == MF_QUANTIZATION_NF4 ? &nf4 : &fp4;
}

/* How many of the thresholds, which lie midway between neighbours, a value is above. */
static void search(const struct code *code, const float *value, uint8_t *nibble) {
    int32_t above[BLOCK] = {0};
    for (int k = 0; k + 1 < CODES; k++) {
        const float threshold = (code->value[k] + code->value[k + 1]) / 2;
        for (int i = 0; i < BLOCK; i++)
            above[i] += value[i] > threshold;
    }
    for (int i = 0; i < BLOCK; i++)
        nibble[i] = code->nibble[above[i]];
}

static float quantize_block(const struct code *code, enum mf_dtype dtype, const void *data, int64_t first,
                            int64_t count, uint8_t *packed) {
    float value[BLOCK] = {0};
    uint8_t nibble[BLOCK];
    for (int64_t i = 0; i < count; i++)
        value[i] = value_at(dtype, data, first + i);
    const float scale = normalize(value, count, BLOCK);
    search(code, value, nibble);
    for (int64_t i = 0; i < count; i += 2)
        packed[i / 2] = (uint8_t)(nibble[i] << 4 | nibble[i + 1]);
    return scale;
}

static void quantize_blocks(enum mf_dtype dtype, const void *data, struct mf_quantized *out) {
    const struct code *code = code_of(out->quantization);
    const int64_t elements = out->rows * out->columns, blocks = block_count(elements, BLOCK);
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t first = block * BLOCK, left = elements - first;
        out->scale[block] =
            quantize_block(code, dtype, data, first, left < BLOCK ? left : BLOCK, out->code + first / 2);
    }
}

/* The nearest of the map: how many thresholds a value is above. */
static uint8_t search_nested(const float *map, float value) {
    int low = 0, high = MF_QUANTIZATION_NESTED_CODES - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (value > (map[middle] + map[middle + 1]) / 2)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint8_t)low;
}

/* Puts the blocks' scales in 8 bits. */
static void nest(struct mf_quantized *out) {
    const float *map = mf_quantization_nested_map();
    const int64_t blocks = block_count(out->rows * out->columns, BLOCK);
    double sum = 0;
    for (int64_t i = 0; i < blocks; i++)
        sum += (double)out->scale[i];
    out->scale_mean = (float)(sum / (double)blocks);
    for (int64_t first = 0; first < blocks; first += NESTED_BLOCK) {
        const int64_t count = blocks - first < NESTED_BLOCK ? blocks - first : NESTED_BLOCK;
        float *scale = out->scale + first;
        for (int64_t i = 0; i < count; i++)
            scale[i] -= out->scale_mean;
        out->scale_scale[first / NESTED_BLOCK] = normalize(scale, count, NESTED_BLOCK);
        for (int64_t i = 0; i < count; i++)
            out->scale_code[first + i] = search_nested(map, scale[i]);
    }
    free(out->scale);
    out->scale = NULL;
    out->nested = true;
}

/* ---- 8 bits ---- */

static void quantize_rows(enum mf_dtype dtype, const void *data, struct mf_quantized *out) {
    const int64_t columns = out->columns;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < out->rows; row++) {
        float scale = 0;
        for (int64_t i = 0; i < columns; i++) {
            const float size = fabsf(value_at(dtype, data, row * columns + i));
            scale = size > scale || size != size ? size : scale;
        }
        const float inverse = 1.0f / scale * 127.0f; /* PyTorch divides a number by a tensor so */
        const bool usable = scale > 0 && isfinite(scale) && isfinite(inverse);
        for (int64_t i = 0; i < columns; i++)
            out->code[row * columns + i] =
                (uint8_t)(int8_t)(usable ? nearbyintf(value_at(dtype, data, row * columns + i) * inverse)
                                         : 0);
        out->scale[row] = scale;
    }
}

/* ---- whole weights ---- */

static enum mf_status allocate(struct mf_quantized *out, bool nested, struct mf_error *error) {
    const int64_t elements = out->rows * out->columns, blocks = block_count(elements, BLOCK);
    const bool rows = out->quantization == MF_QUANTIZATION_INT8;
    out->code = malloc((size_t)(rows ? elements : block_count(elements, 2)));
    out->scale = malloc((size_t)(rows ? out->rows : blocks) * sizeof *out->scale);
    if (nested) {
        out->scale_code = malloc((size_t)blocks);
        out->scale_scale = malloc((size_t)block_count(blocks, NESTED_BLOCK) * sizeof *out->scale_scale);
    }
    if (out->code && out->scale && (!nested || (out->scale_code && out->scale_scale)))
        return MF_OK;
    mf_quantized_free(out);
    return mf_error_errno(error, ENOMEM, "a quantised weight of %lld values", (long long)elements);
}

enum mf_status mf_quantize(enum mf_dtype dtype, const void *data, int64_t rows, int64_t columns,
                           enum mf_quantization quantization, bool nested, struct mf_quantized *out,
                           struct mf_error *error) {
    const bool four = quantization == MF_QUANTIZATION_NF4 || quantization == MF_QUANTIZATION_FP4;
    *out = (struct mf_quantized){.quantization = quantization, .rows = rows, .columns = columns};
    if (!mf_dtype_is_float(dtype) || rows < 1 || columns < 1 ||
        (!four && (nested || quantization != MF_QUANTIZATION_INT8)))
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s (%lld, %lld) cannot be quantised to %s%s",
                            mf_dtype_name(dtype), (long long)rows, (long long)columns,
                            mf_quantization_name(quantization), nested ? ", nested" : "");
    enum mf_status status = allocate(out, nested, error);
    if (status != MF_OK)
        return status;
    if (four)
        quantize_blocks(dtype, data, out);
    else
        quantize_rows(dtype, data, out);
    if (nested)
        nest(out);
    return MF_OK;
}

void mf_quantized_free(struct mf_quantized *weight) {
    free(weight->code);
    free(weight->scale);
    free(weight->scale_code);
    free(weight->scale_scale);
    *weight = (struct mf_quantized){0};
}

size_t mf_quantized_code_bytes(const struct mf_quantized *weight) {
    const int64_t elements = weight->rows * weight->columns;
    return (size_t)(weight->quantization == MF_QUANTIZATION_INT8 ? elements : block_count(elements, 2));
}

size_t mf_quantized_bytes(const struct mf_quantized *weight) {
    const int64_t elements = weight->rows * weight->columns, blocks = block_count(elements, BLOCK);
    if (weight->quantization == MF_QUANTIZATION_INT8)
        return (size_t)elements + (size_t)weight->rows * sizeof *weight->scale;
    const int64_t scales = weight->nested
                               ? blocks + (block_count(blocks, NESTED_BLOCK) + 1) * (int64_t)sizeof(float)
                               : blocks * (int64_t)sizeof(float);
    return (size_t)(block_count(elements, 2) + scales);
}

struct mf_quantized_layout mf_quantized_layout(enum mf_quantization quantization, bool nested, int64_t rows,
                                               int64_t columns) {
    const int64_t elements = rows * columns, blocks = block_count(elements, BLOCK);
    const bool by_row = quantization == MF_QUANTIZATION_INT8;
    const int64_t codes = by_row ? elements : block_count(elements, 2);
    return (struct mf_quantized_layout){.codes = block_count(codes, MF_QUANTIZED_ALIGNMENT) *
                                                 MF_QUANTIZED_ALIGNMENT,
                                        .scales = by_row   ? rows
                                                  : nested ? block_count(blocks, NESTED_BLOCK) + 1
                                                           : blocks,
                                        .scale_codes = nested ? blocks : 0};
}

struct mf_quantized_layout mf_quantized_layout_of_parts(enum mf_quantization quantization, bool nested,
                                                        const int32_t *rows, int parts, int64_t columns) {
    struct mf_quantized_layout all = {0};
    for (int i = 0; i < parts; i++) {
        const struct mf_quantized_layout part = mf_quantized_layout(quantization, nested, rows[i], columns);
        if (rows[i] < 1)
            continue;
        all.codes += part.codes;
        all.scales += part.scales;
        all.scale_codes += part.scale_codes;
    }
    return all;
}

static void put(enum mf_dtype dtype, void *data, int64_t index, float value) {
    if (dtype == MF_F32)
        ((float *)data)[index] = value;
    else
        ((uint16_t *)data)[index] = mf_f32_to_bf16(value);
}

static void dequantize_rows(const struct mf_quantized *weight, enum mf_dtype dtype, void *data) {
    const int64_t columns = weight->columns;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < weight->rows; row++)
        for (int64_t i = row * columns; i < (row + 1) * columns; i++)
            put(dtype, data, i, (float)(int8_t)weight->code[i] * weight->scale[row] * 7.874015718698502e-3f);
}

static float block_scale(const struct mf_quantized *weight, int64_t block) {
    if (!weight->nested)
        return weight->scale[block];
    const float product =
        mf_quantization_nested_map()[weight->scale_code[block]] * weight->scale_scale[block / NESTED_BLOCK];
    return product + weight->scale_mean;
}

static void dequantize_blocks(const struct mf_quantized *weight, enum mf_dtype dtype, void *data) {
    const struct code *code = code_of(weight->quantization);
    const int64_t elements = weight->rows * weight->columns, blocks = block_count(elements, BLOCK);
    float value[CODES];
    for (int i = 0; i < CODES; i++)
        value[code->nibble[i]] = code->value[i];
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t first = block * BLOCK, end = first + BLOCK < elements ? first + BLOCK : elements;
        const float scale = block_scale(weight, block);
        for (int64_t i = first; i < end; i++) {
            const int shift = i % 2 ? 0 : 4;
            put(dtype, data, i, value[weight->code[i / 2] >> shift & 15] * scale);
        }
    }
}

void mf_dequantize(const struct mf_quantized *weight, enum mf_dtype dtype, void *data) {
    assert(dtype == MF_F32 || dtype == MF_BF16);
    if (weight->quantization == MF_QUANTIZATION_INT8)
        dequantize_rows(weight, dtype, data);
    else
        dequantize_blocks(weight, dtype, data);
}
