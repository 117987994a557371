/* Safetensors: memory-mapped, checked reading of one file or a sharded folder, and a streaming writer.
 * Format: 8-byte little-endian header length, JSON header {name: {dtype, shape, data_offsets}}, data.
 *
 * A file comes from outside: nothing in its header is believed before it is checked. After a successful open
 * every tensor's bytes lie inside the file, no two overlap, and dtype x shape equals the byte count. */
#ifndef MF_PROVIDERS_WEIGHTS_SAFETENSORS_H
#define MF_PROVIDERS_WEIGHTS_SAFETENSORS_H

#include "common/error.h"
#include "kernels/tensor.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MF_SAFETENSORS_MAX_RANK = 8,
    MF_SAFETENSORS_MAX_HEADER_BYTES = 100 * 1000 * 1000, /* as the reference implementation */
    MF_SAFETENSORS_MAX_TENSORS = 1000 * 1000,            /* over all files of a model */
    MF_SAFETENSORS_MAX_FILES = 10000
};

/* One tensor on disk, row-major, little-endian, aligned to nothing. Lives as long as its mf_safetensors. */
struct mf_stored_tensor {
    const char *name;
    const char *dtype_name; /* as on disk: "F32", "BF16", "I64", ... */
    bool floating;          /* F32, F16 or BF16; the others can be listed but not trained on */
    enum mf_dtype dtype;    /* MF_F32, MF_F16, MF_BF16, MF_U8; MF_DTYPES: none of ours */
    int32_t rank;
    int64_t dim[MF_SAFETENSORS_MAX_RANK];
    const void *data; /* memory-mapped, read-only */
    size_t bytes;
    const char *file; /* path, for messages */
};

struct mf_safetensors;

/* Opens one file. MF_ERROR_BAD_WEIGHTS names the file, the tensor and what is wrong;
 * MF_ERROR_MODEL_INCOMPLETE when the file does not exist. *out is freed with mf_safetensors_close. Reading is
 * thread-safe. */
enum mf_status mf_safetensors_open_file(const char *path, struct mf_safetensors **out,
                                        struct mf_error *error);

/* Opens `folder`/model.safetensors, or all shards that `folder`/model.safetensors.index.json names. Each
 * tensor of the index must be in the file that the index says, once; a shard may hold nothing that the index
 * lacks. */
enum mf_status mf_safetensors_open_folder(const char *folder, struct mf_safetensors **out,
                                          struct mf_error *error);

void mf_safetensors_close(struct mf_safetensors *file); /* NULL is fine */

size_t mf_safetensors_count(const struct mf_safetensors *file);
/* Tensors by name in byte order, index < count. */
const struct mf_stored_tensor *mf_safetensors_at(const struct mf_safetensors *file, size_t index);
/* NULL when there is none. */
const struct mf_stored_tensor *mf_safetensors_find(const struct mf_safetensors *file, const char *name);
/* Says that a tensor's data are not needed for now: its pages leave memory and come back from the file when
 * they are read again. */
void mf_safetensors_release(const struct mf_stored_tensor *tensor);
/* `count` values of a floating tensor from element `first` on, as f32. */
void mf_stored_values(const struct mf_stored_tensor *tensor, int64_t first, int64_t count, float *value);
/* A string of `__metadata__`, NULL when there is none; of a sharded folder, the first shard's. */
const char *mf_safetensors_metadata(const struct mf_safetensors *file, const char *key);

/* Writing: declare everything, then give the data of each tensor in the order declared, in any pieces.
 *
 *     mf_safetensors_create(path, tensors, count, metadata, &writer, error)
 *     for each tensor: mf_safetensors_write(writer, data, bytes, error) until its bytes are complete
 *     mf_safetensors_finish(writer, error)           fsync, then the file appears under its name
 *
 * Until finish nothing stands at `path` (an older file stays). The header is padded so that data start at a
 * multiple of 64 bytes. */
struct mf_safetensors_entry {
    const char *name;
    enum mf_dtype dtype; /* MF_F32, MF_F16, MF_BF16 or MF_U8 */
    int32_t rank;
    int64_t dim[MF_SAFETENSORS_MAX_RANK];
};

struct mf_safetensors_writer;

/* `metadata`: NULL or an object whose values are strings (borrowed). Entries are borrowed for the call. */
enum mf_status mf_safetensors_create(const char *path, const struct mf_safetensors_entry *entry, size_t count,
                                     const json_t *metadata, struct mf_safetensors_writer **out,
                                     struct mf_error *error);
enum mf_status mf_safetensors_write(struct mf_safetensors_writer *writer, const void *data, size_t bytes,
                                    struct mf_error *error);
/* Frees the writer, also when it fails (data missing, disk full). */
enum mf_status mf_safetensors_finish(struct mf_safetensors_writer *writer, struct mf_error *error);
/* Frees the writer and removes what it wrote; NULL is fine. */
void mf_safetensors_abandon(struct mf_safetensors_writer *writer);

#endif
