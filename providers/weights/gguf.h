/* GGUF version 2 and 3 (little-endian): bounded reading of metadata and tensors, dequantising with ggml's
 * exact arithmetic. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#ifndef MF_PROVIDERS_WEIGHTS_GGUF_H
#define MF_PROVIDERS_WEIGHTS_GGUF_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MF_GGUF_MAX_RANK = 4,
    MF_GGUF_MAX_TENSORS = 1000 * 1000,
    MF_GGUF_MAX_KEYS = 1000 * 1000,
    MF_GGUF_MAX_ARRAY = 16 * 1000 * 1000 /* elements of one metadata array */
};

/* ggml's type numbers, those that can be dequantised. */
enum mf_gguf_type {
    MF_GGUF_F32 = 0,
    MF_GGUF_F16 = 1,
    MF_GGUF_Q4_0 = 2,
    MF_GGUF_Q4_1 = 3,
    MF_GGUF_Q5_0 = 6,
    MF_GGUF_Q5_1 = 7,
    MF_GGUF_Q8_0 = 8,
    MF_GGUF_Q4_K = 12,
    MF_GGUF_Q5_K = 13,
    MF_GGUF_Q6_K = 14,
    MF_GGUF_BF16 = 30
};

/* A string inside the mapped file: not NUL-terminated, any bytes. */
struct mf_gguf_text {
    const char *data;
    size_t length;
};

struct mf_gguf_tensor {
    const char *name; /* NUL-terminated copy */
    enum mf_gguf_type type;
    int32_t rank;
    int64_t dim[MF_GGUF_MAX_RANK]; /* row-major as in Hugging Face: dim[rank - 1] is contiguous */
    int64_t elements;
    const void *data; /* memory-mapped */
    size_t bytes;
};

struct mf_gguf;

/* MF_ERROR_MODEL_NOT_FOUND when `path` does not exist; MF_ERROR_BAD_WEIGHTS names what is wrong and where.
 * Freed with mf_gguf_close; reading is thread-safe. */
enum mf_status mf_gguf_open(const char *path, struct mf_gguf **out, struct mf_error *error);
void mf_gguf_close(struct mf_gguf *file); /* NULL is fine */

size_t mf_gguf_count(const struct mf_gguf *file);
const struct mf_gguf_tensor *mf_gguf_at(const struct mf_gguf *file, size_t index);
const struct mf_gguf_tensor *mf_gguf_find(const struct mf_gguf *file, const char *name);

/* Metadata: false when the key is absent or has another type (any width of integer is an integer). */
bool mf_gguf_integer(const struct mf_gguf *file, const char *key, int64_t *value);
bool mf_gguf_number(const struct mf_gguf *file, const char *key, double *value);
bool mf_gguf_boolean(const struct mf_gguf *file, const char *key, bool *value);
bool mf_gguf_string(const struct mf_gguf *file, const char *key, struct mf_gguf_text *value);
/* Length of an array, -1 when the key is absent or no array. */
int64_t mf_gguf_array_length(const struct mf_gguf *file, const char *key);
/* All elements in order; false when the key is no array of strings / integers / f32 or `capacity` is less
 * than its length. */
bool mf_gguf_strings(const struct mf_gguf *file, const char *key, struct mf_gguf_text *value,
                     size_t capacity);
bool mf_gguf_integers(const struct mf_gguf *file, const char *key, int64_t *value, size_t capacity);
bool mf_gguf_numbers(const struct mf_gguf *file, const char *key, double *value, size_t capacity);

/* Dequantises `count` elements from element `first` on; both multiples of the type's block (1, 32 or 256).
 * Returns false when they are not, or lie outside the tensor. */
bool mf_gguf_read(const struct mf_gguf_tensor *tensor, int64_t first, int64_t count, float *value);

const char *mf_gguf_type_name(enum mf_gguf_type type); /* "Q4_K"; NULL for one that is not supported */

#endif
