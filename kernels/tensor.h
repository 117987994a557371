/* Tensors: what a graph computes with. A tensor is a row of the graph's table; it owns its storage or is a
 * view of one that does. Sizes that change from batch to batch are symbols whose bounds are known when the
 * plan is made. Nothing here allocates; every function is pure and may be called by any thread. */
#ifndef MF_KERNELS_TENSOR_H
#define MF_KERNELS_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum mf_dtype { MF_F32, MF_BF16, MF_F16, MF_I32, MF_U8, MF_DTYPES };

/* The sizes that a step chooses. MF_CONST is always 1, so that a constant dimension is {size, MF_CONST}. */
enum mf_symbol {
    MF_CONST,
    MF_TOKENS,    /* T: tokens of the batch's stream */
    MF_SEQUENCES, /* S: sequences in the stream */
    MF_OFFSETS,   /* S + 1: the executor derives it from MF_SEQUENCES */
    MF_LABELLED,  /* L: tokens whose next token is a label */
    MF_CACHE,     /* rows of the key / value cache, over all sequences */
    MF_LONGEST,   /* tokens of the longest sequence in the stream; no tensor has this size. Bound 0: not known
                   */
    MF_SYMBOLS
};

/* multiplier * value of the symbol; with `most` > 0, multiplier * how many of the value's first .. first +
 * most
 * - 1 there are: a stretch of a token stream. Only dim[0] of a tensor may carry a symbol other than MF_CONST.
 */
struct mf_dim {
    int32_t multiplier;
    uint8_t symbol;
    int32_t first, most;
};

enum mf_storage {
    MF_WEIGHT,     /* bound from outside, read only, shared by all programs */
    MF_ADAPTER,    /* trainable masters, f32, persistent */
    MF_GRADIENT,   /* accumulated gradients, f32, persistent */
    MF_OPTIMIZER,  /* moments, f32, persistent */
    MF_STATE,      /* what programs carry on (key / value cache), persistent */
    MF_INPUT,      /* written by the host before a run, persistent */
    MF_ACTIVATION, /* lives within one run of one program */
    MF_WORKSPACE,  /* lives within one node */
    MF_STORAGES
};

enum mf_tensor_flag {
    MF_TENSOR_TRAINABLE = 1, /* the gradient pass emits what its gradient needs */
    MF_TENSOR_NO_DECAY = 2,  /* the optimiser does not decay it */
    MF_TENSOR_OUTPUT = 4,    /* an activation that the host reads after the run: lives to the program's end */
    MF_TENSOR_HOST = 8,      /* an activation that lies in host memory: what was offloaded */
    MF_TENSOR_EXACT_MOMENTS = 16, /* an optimiser with 8-bit moments keeps those of this parameter in f32 */
    MF_TENSOR_HOLDS_WEIGHT = 32,  /* state that a weight is a part of */
    MF_TENSOR_PLACED = 64         /* a weight that is a part of state, and bound there (passes/fold.h) */
};

enum { MF_RANK = 4 };

struct mf_tensor {
    int32_t id;
    int32_t view_of;     /* the owner's id (never a view itself); -1: owns its storage */
    int32_t version;     /* 0: as the run found it; n: after the n-th write of this run (state only) */
    int32_t program;     /* the only program that may use it (activation, workspace, version > 0), else -1 */
    int64_t view_offset; /* elements from the owner's first */
    int64_t stride[MF_RANK]; /* elements; the last dimension's is always 1 */
    struct mf_dim dim[MF_RANK];
    uint8_t dtype, rank, storage, flags; /* enum mf_dtype, 1..4, enum mf_storage, enum mf_tensor_flag */
    int16_t slot;                        /* adapter set; -1: none */
    uint8_t
        quantization; /* weights: the enum mf_quantization (quantize.h) whose values they have been given */
    uint8_t nested;   /* weights: 1 when their scales are quantised too */
    int32_t quantized_row; /* 1 + the row in the graph's table of quantised weights, of the weight and of what
                              it is kept as; 0: none */
    const char
        *name; /* key on disk (weights: Hugging Face; adapters: PEFT), owned by the graph; NULL: none */
};

static inline struct mf_dim mf_dim_const(int64_t size) {
    return (struct mf_dim){(int32_t)size, MF_CONST, 0, 0};
}
static inline struct mf_dim mf_dim_symbol(enum mf_symbol symbol, int32_t multiplier) {
    return (struct mf_dim){multiplier, (uint8_t)symbol, 0, 0};
}
static inline bool mf_dim_equal(struct mf_dim a, struct mf_dim b) {
    return a.multiplier == b.multiplier && a.symbol == b.symbol && a.first == b.first && a.most == b.most;
}
/* The size of `dim` when the symbols have `value`[MF_SYMBOLS] (value[MF_CONST] is not read). */
static inline int64_t mf_dim_value(struct mf_dim dim, const int32_t *value) {
    int64_t size = dim.symbol == MF_CONST ? 1 : value[dim.symbol];
    if (dim.most > 0) {
        size = size > dim.first ? size - dim.first : 0;
        size = size < dim.most ? size : dim.most;
    }
    return dim.multiplier * size;
}

/* A weight that is bound by its own name: no rows of another. */
static inline bool mf_tensor_is_bound(const struct mf_tensor *tensor) {
    return tensor->storage == MF_WEIGHT && (tensor->view_of < 0 || (tensor->flags & MF_TENSOR_PLACED));
}

size_t mf_dtype_bytes(enum mf_dtype dtype);
const char *mf_dtype_name(enum mf_dtype dtype); /* "f32", "bf16", "f16", "i32", "u8" */
const char *mf_storage_name(enum mf_storage storage);
const char *mf_symbol_name(enum mf_symbol symbol);
static inline bool mf_dtype_is_float(enum mf_dtype dtype) {
    return dtype == MF_F32 || dtype == MF_BF16 || dtype == MF_F16;
}

/* Product of the dimensions under `value`; a negative or overflowing product is -1. */
int64_t mf_tensor_elements(const struct mf_tensor *tensor, const int32_t *value);
/* Row-major strides from the dimensions. dim[1..] are constants, so strides are too. */
void mf_tensor_set_contiguous(struct mf_tensor *tensor);
bool mf_tensor_is_contiguous(const struct mf_tensor *tensor);
bool mf_tensor_same_shape(const struct mf_tensor *a, const struct mf_tensor *b);
/* "(T, 576) bf16"; returns `text`. */
char *mf_tensor_describe(const struct mf_tensor *tensor, char *text, size_t bytes);

/* Conversions that every backend and every reader shares: round to nearest even, NaN stays NaN. */
static inline float mf_bf16_to_f32(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}
static inline uint16_t mf_f32_to_bf16(float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    if ((word & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((word >> 16) | 0x40u);
    return (uint16_t)((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
}
float mf_f16_to_f32(uint16_t bits);
uint16_t mf_f32_to_f16(float value);

#endif
