/* One block of each type, with the roundings of ggml's reference (dequantize_row_*): f32 products and sums,
 * each rounded, nothing contracted (the build says so for this file). */
#include "providers/weights/gguf_types.h"

#include "kernels/tensor.h"
#include "providers/weights/gguf.h"

enum { QK = 32, QK_K = 256 };

static uint16_t bits_16(const uint8_t *bytes) {
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static uint32_t bits_32(const uint8_t *bytes) {
    return bits_16(bytes) | (uint32_t)bits_16(bytes + 2) << 16;
}

static float half(const uint8_t *bytes) {
    return mf_f16_to_f32(bits_16(bytes));
}

static void read_f32(const uint8_t *block, float *value) {
    uint32_t word = bits_32(block);
    memcpy(value, &word, sizeof word);
}

static void read_f16(const uint8_t *block, float *value) {
    *value = half(block);
}

static void read_bf16(const uint8_t *block, float *value) {
    *value = mf_bf16_to_f32(bits_16(block));
}

/* d f16, 16 bytes of nibbles: elements 0..15 low, 16..31 high. */
static void read_q4_0(const uint8_t *block, float *value) {
    float d = half(block);
    const uint8_t *quants = block + 2;
    for (int i = 0; i < QK / 2; i++) {
        value[i] = (float)((quants[i] & 0xf) - 8) * d;
        value[i + QK / 2] = (float)((quants[i] >> 4) - 8) * d;
    }
}

/* d f16, m f16, nibbles. */
static void read_q4_1(const uint8_t *block, float *value) {
    float d = half(block), m = half(block + 2);
    const uint8_t *quants = block + 4;
    for (int i = 0; i < QK / 2; i++) {
        value[i] = (float)(quants[i] & 0xf) * d + m;
        value[i + QK / 2] = (float)(quants[i] >> 4) * d + m;
    }
}

/* Element i of a 5-bit block: a nibble and bit i of `high`. */
static int five_bits(const uint8_t *quants, uint32_t high, int i) {
    int nibble = i < QK / 2 ? quants[i] & 0xf : quants[i - QK / 2] >> 4;
    return nibble | (int)((high >> i & 1) << 4);
}

/* d f16, 32 high bits, nibbles. */
static void read_q5_0(const uint8_t *block, float *value) {
    float d = half(block);
    uint32_t high = bits_32(block + 2);
    for (int i = 0; i < QK; i++)
        value[i] = (float)(five_bits(block + 6, high, i) - 16) * d;
}

/* d f16, m f16, 32 high bits, nibbles. */
static void read_q5_1(const uint8_t *block, float *value) {
    float d = half(block), m = half(block + 2);
    uint32_t high = bits_32(block + 4);
    for (int i = 0; i < QK; i++)
        value[i] = (float)five_bits(block + 8, high, i) * d + m;
}

/* d f16, 32 signed bytes. */
static void read_q8_0(const uint8_t *block, float *value) {
    float d = half(block);
    for (int i = 0; i < QK; i++)
        value[i] = (float)(int8_t)block[2 + i] * d;
}

/* The 6-bit scale and minimum of sub-block j (0..7) from the 12 packed bytes. */
static void scale_and_minimum(const uint8_t *packed, int j, int *scale, int *minimum) {
    if (j < 4) {
        *scale = packed[j] & 63;
        *minimum = packed[j + 4] & 63;
    } else {
        *scale = (packed[j + 4] & 0xf) | (packed[j - 4] >> 6) << 4;
        *minimum = packed[j + 4] >> 4 | (packed[j] >> 6) << 4;
    }
}

/* d f16, dmin f16, 12 bytes of scales, 128 of nibbles; sub-blocks 2k and 2k+1 share 32 bytes. */
static void read_q4_k(const uint8_t *block, float *value) {
    float d = half(block), dmin = half(block + 2);
    for (int j = 0; j < 8; j++) {
        int scale, minimum;
        scale_and_minimum(block + 4, j, &scale, &minimum);
        float d1 = d * (float)scale, m1 = dmin * (float)minimum;
        const uint8_t *quants = block + 16 + 32 * (j / 2);
        for (int i = 0; i < 32; i++)
            *value++ = d1 * (float)(j & 1 ? quants[i] >> 4 : quants[i] & 0xf) - m1;
    }
}

/* As q4_k with 32 bytes of high bits (bit j for sub-block j) before the nibbles. */
static void read_q5_k(const uint8_t *block, float *value) {
    float d = half(block), dmin = half(block + 2);
    const uint8_t *high = block + 16;
    for (int j = 0; j < 8; j++) {
        int scale, minimum;
        scale_and_minimum(block + 4, j, &scale, &minimum);
        float d1 = d * (float)scale, m1 = dmin * (float)minimum;
        const uint8_t *quants = block + 48 + 32 * (j / 2);
        for (int i = 0; i < 32; i++) {
            int nibble = j & 1 ? quants[i] >> 4 : quants[i] & 0xf;
            *value++ = d1 * (float)(nibble + ((high[i] >> j & 1) << 4)) - m1;
        }
    }
}

/* 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, d f16; two halves of 128 elements. */
static void read_q6_k(const uint8_t *block, float *value) {
    float d = half(block + 208);
    for (int part = 0; part < 2; part++) {
        const uint8_t *low = block + 64 * part, *high = block + 128 + 32 * part;
        const uint8_t *scales = block + 192 + 8 * part;
        for (int i = 0; i < 128; i++) {
            int quarter = i / 32, column = i % 32;
            int nibble = quarter < 2 ? low[i % 64] & 0xf : low[i % 64] >> 4;
            int quant = (nibble | (high[column] >> (2 * quarter) & 3) << 4) - 32;
            *value++ = d * (float)(int8_t)scales[i / 16] * (float)quant;
        }
    }
}

static const struct mf_gguf_type_info types[] = {
    {MF_GGUF_F32, "F32", 1, 4, read_f32},         {MF_GGUF_F16, "F16", 1, 2, read_f16},
    {MF_GGUF_BF16, "BF16", 1, 2, read_bf16},      {MF_GGUF_Q4_0, "Q4_0", QK, 18, read_q4_0},
    {MF_GGUF_Q4_1, "Q4_1", QK, 20, read_q4_1},    {MF_GGUF_Q5_0, "Q5_0", QK, 22, read_q5_0},
    {MF_GGUF_Q5_1, "Q5_1", QK, 24, read_q5_1},    {MF_GGUF_Q8_0, "Q8_0", QK, 34, read_q8_0},
    {MF_GGUF_Q4_K, "Q4_K", QK_K, 144, read_q4_k}, {MF_GGUF_Q5_K, "Q5_K", QK_K, 176, read_q5_k},
    {MF_GGUF_Q6_K, "Q6_K", QK_K, 210, read_q6_k},
};

const struct mf_gguf_type_info *mf_gguf_type_find(uint32_t type) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == type)
            return &types[i];
    return NULL;
}
