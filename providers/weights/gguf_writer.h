/* Writing GGUF version 3 (little-endian): metadata and tensors are declared, then the values of each tensor
 * are given as f32 in the order declared, in pieces, and quantised on the way with ggml's reference
 * arithmetic.
 *
 *     mf_gguf_create(path, &writer, error)
 *     mf_gguf_put_...(writer, key, value)            any number, each key once
 *     mf_gguf_declare(writer, name, type, rank, dim) any number, each name once
 *     mf_gguf_begin(writer, error)                   the header goes out
 *     mf_gguf_write(writer, value, count, error)     until all tensors are complete
 *     mf_gguf_finish(writer, error)                  fsync, then the file appears under its name
 *
 * Until finish nothing stands at the path (an older file stays). One thread a writer. */
#ifndef MF_PROVIDERS_WEIGHTS_GGUF_WRITER_H
#define MF_PROVIDERS_WEIGHTS_GGUF_WRITER_H

#include "common/error.h"
#include "providers/weights/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mf_gguf_writer;

enum mf_status mf_gguf_create(const char *path, struct mf_gguf_writer **out, struct mf_error *error);

/* Metadata. Texts are copied. Running out of memory is remembered and reported by mf_gguf_begin. */
void mf_gguf_put_integer(struct mf_gguf_writer *writer, const char *key, uint32_t value);
void mf_gguf_put_number(struct mf_gguf_writer *writer, const char *key, float value);
void mf_gguf_put_boolean(struct mf_gguf_writer *writer, const char *key, bool value);
void mf_gguf_put_string(struct mf_gguf_writer *writer, const char *key, const char *value);
void mf_gguf_put_strings(struct mf_gguf_writer *writer, const char *key, const char *const *value,
                         size_t count);
void mf_gguf_put_numbers(struct mf_gguf_writer *writer, const char *key, const float *value, size_t count);
void mf_gguf_put_integers(struct mf_gguf_writer *writer, const char *key, const int32_t *value, size_t count);

/* `dim` is row-major as in Hugging Face. MF_ERROR_INTERNAL for a type that mf_gguf_quantize does not make, a
 * rank outside 1 to MF_GGUF_MAX_RANK, or rows that are no multiple of the type's block. */
enum mf_status mf_gguf_declare(struct mf_gguf_writer *writer, const char *name, enum mf_gguf_type type,
                               int32_t rank, const int64_t *dim, struct mf_error *error);
enum mf_status mf_gguf_begin(struct mf_gguf_writer *writer, struct mf_error *error);

/* The next `count` values of the current tensor, a multiple of its type's block. MF_ERROR_BAD_WEIGHTS names
 * the tensor when a value is not finite or too large for the type. */
enum mf_status mf_gguf_write(struct mf_gguf_writer *writer, const float *value, size_t count,
                             struct mf_error *error);
/* Frees the writer, also when it fails (values missing, disk full). */
enum mf_status mf_gguf_finish(struct mf_gguf_writer *writer, struct mf_error *error);
/* Frees the writer and removes what it wrote; NULL is fine. */
void mf_gguf_abandon(struct mf_gguf_writer *writer);

/* Values to blocks of F32, F16, BF16 (round to nearest even) or Q8_0 (scale |largest| / 127, halves away from
 * zero, as ggml's quantize_row_q8_0_ref); `count` is a multiple of the block. False when a value has no
 * finite form in the type. */
bool mf_gguf_quantize(enum mf_gguf_type type, const float *value, size_t count, uint8_t *block);
/* Bytes of `count` values; 0 for a type that mf_gguf_quantize does not make. */
size_t mf_gguf_bytes(enum mf_gguf_type type, size_t count);

#endif
