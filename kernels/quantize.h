/* Weights in 4 or 8 bits, with the values of bitsandbytes 0.50.
 *
 * NF4 and FP4 (QLoRA, https://arxiv.org/abs/2305.14314): the flattened weight is cut into blocks of 64; each
 * is divided by its largest magnitude, and every value becomes the index of the nearest of 16 codes, two to a
 * byte, the first in the high nibble. Nested ("double") quantisation also keeps the blocks' scales in 8 bits:
 * scale less the mean of all scales, by a map of 256 values with a dynamic exponent
 * (https://arxiv.org/abs/1511.04561), in blocks of 256.
 *
 * INT8: each row is divided by its largest magnitude / 127 and rounded to nearest even.
 *
 * The values are those of bitsandbytes' GPU kernels and portable operators. (Its CPU library differs: it
 * takes a neighbour of the nearest nested code once in 600 scales, and wrong scales for some widths.) */
#ifndef MF_KERNELS_QUANTIZE_H
#define MF_KERNELS_QUANTIZE_H

#include "common/error.h"
#include "kernels/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Values are part of the provider ABI. */
enum mf_quantization {
    MF_QUANTIZATION_NONE = 0,
    MF_QUANTIZATION_NF4 = 1,
    MF_QUANTIZATION_FP4 = 2,
    MF_QUANTIZATION_INT8 = 3
};

enum { MF_QUANTIZATION_BLOCK = 64, MF_QUANTIZATION_NESTED_BLOCK = 256, MF_QUANTIZATION_NESTED_CODES = 256 };

const char *mf_quantization_name(enum mf_quantization quantization); /* "none", "nf4", "fp4", "int8" */

/* A weight (rows, columns) in few bits. n = rows * columns, blocks = ceil(n / 64). */
struct mf_quantized {
    enum mf_quantization quantization;
    bool nested;
    int64_t rows, columns;
    uint8_t *code;       /* NF4, FP4: (ceil(n / 2)); INT8: (rows, columns) of two's complement */
    float *scale;        /* NF4, FP4: (blocks), NULL when nested; INT8: (rows) */
    uint8_t *scale_code; /* nested: (blocks) */
    float *scale_scale;  /* nested: (ceil(blocks / 256)) */
    float scale_mean;    /* nested: summed in f64, rounded once */
};

/* How many elements of each kind a weight (rows, columns) is kept in, where weights lie one behind the other
 * in three arrays: codes, scales and scale codes of the first, then of the next. Codes are padded to whole
 * MF_QUANTIZED_ALIGNMENT, so that each weight's are aligned. */
enum { MF_QUANTIZED_ALIGNMENT = 64 };
struct mf_quantized_layout {
    int64_t codes;       /* u8: of mf_quantized.code and padding */
    int64_t scales;      /* f32: of scale; nested: of scale_scale, then scale_mean */
    int64_t scale_codes; /* u8: of scale_code; 0 unless nested */
};
struct mf_quantized_layout mf_quantized_layout(enum mf_quantization quantization, bool nested, int64_t rows,
                                               int64_t columns);
/* Of all that have rows[i] rows, 0 for none. */
struct mf_quantized_layout mf_quantized_layout_of_parts(enum mf_quantization quantization, bool nested,
                                                        const int32_t *rows, int parts, int64_t columns);

/* Quantises `data` (rows, columns), which is f32, bf16 or f16. `nested` is for NF4 and FP4 only. What is not
 * finite in a block (a row) makes all of it not finite when dequantised. Errors: MF_ERROR_OUT_OF_MEMORY, and
 * MF_ERROR_INTERNAL for another dtype or quantisation. *out is freed with mf_quantized_free; on failure it
 * needs no freeing. Uses the CPU backend's threads; the result does not depend on their number. */
enum mf_status mf_quantize(enum mf_dtype dtype, const void *data, int64_t rows, int64_t columns,
                           enum mf_quantization quantization, bool nested, struct mf_quantized *out,
                           struct mf_error *error);
void mf_quantized_free(struct mf_quantized *weight);          /* a zeroed one too */
size_t mf_quantized_bytes(const struct mf_quantized *weight); /* of all its parts */
size_t mf_quantized_code_bytes(const struct mf_quantized *weight);

/* Writes (rows, columns) as f32 or bf16 (products in f32, rounded once). Threads as above. */
void mf_dequantize(const struct mf_quantized *weight, enum mf_dtype dtype, void *data);

/* The 256 values of the nested map, ascending; static. */
const float *mf_quantization_nested_map(void);

#endif
