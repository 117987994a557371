#include "providers/weights/safetensors.h"

#include "common/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DATA_ALIGNMENT = 64 };

struct mf_safetensors_writer {
    struct mf_atomic_file file;
    size_t expected, written; /* bytes of data */
};

static const char *dtype_on_disk(enum mf_dtype dtype) {
    switch (dtype) {
    case MF_F32:
        return "F32";
    case MF_BF16:
        return "BF16";
    case MF_F16:
        return "F16";
    case MF_U8:
        return "U8";
    default:
        return NULL;
    }
}

/* Adds one tensor to the header and its size to *offset. */
static enum mf_status add_entry(json_t *header, const struct mf_safetensors_entry *entry, size_t *offset,
                                const char *path, struct mf_error *error) {
    const char *dtype = dtype_on_disk(entry->dtype);
    if (!dtype || entry->rank < 0 || entry->rank > MF_SAFETENSORS_MAX_RANK ||
        json_object_get(header, entry->name))
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: tensor %s: wrong dtype, rank or a second time",
                            path, entry->name);
    size_t bytes = mf_dtype_bytes(entry->dtype);
    json_t *shape = json_array();
    for (int32_t i = 0; i < entry->rank; i++) {
        if (entry->dim[i] < 0 || __builtin_mul_overflow(bytes, (size_t)entry->dim[i], &bytes)) {
            json_decref(shape);
            return mf_error_set(error, MF_ERROR_INTERNAL, "%s: tensor %s: bad shape", path, entry->name);
        }
        json_array_append_new(shape, json_integer(entry->dim[i]));
    }
    size_t end;
    if (__builtin_add_overflow(*offset, bytes, &end)) {
        json_decref(shape);
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: too large", path);
    }
    json_t *item = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets",
                             (json_int_t)*offset, (json_int_t)end);
    if (!item || json_object_set_new(header, entry->name, item))
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: the tensor name '%.100s' is not UTF-8", path,
                            entry->name);
    *offset = end;
    return MF_OK;
}

/* The length, the header and blanks up to the alignment; freed by the caller. */
static char *header_bytes(const json_t *header, size_t *size) {
    size_t length = json_dumpb(header, NULL, 0, JSON_COMPACT);
    size_t padded = (length + 8 + DATA_ALIGNMENT - 1) / DATA_ALIGNMENT * DATA_ALIGNMENT - 8;
    char *bytes = length ? malloc(8 + padded) : NULL;
    if (bytes) {
        for (unsigned i = 0; i < 8; i++)
            bytes[i] = (char)(padded >> (8 * i) & 0xff);
        memset(bytes + 8, ' ', padded);
        json_dumpb(header, bytes + 8, padded, JSON_COMPACT);
        *size = 8 + padded;
    }
    return bytes;
}

enum mf_status mf_safetensors_create(const char *path, const struct mf_safetensors_entry *entry, size_t count,
                                     const json_t *metadata, struct mf_safetensors_writer **out,
                                     struct mf_error *error) {
    *out = NULL;
    char *bytes = NULL;
    size_t size = 0;
    struct mf_safetensors_writer *writer = calloc(1, sizeof *writer);
    json_t *header = json_object();
    enum mf_status status = MF_OK;
    if (!writer || !header) {
        status = mf_error_errno(error, ENOMEM, "%s", path);
        goto done;
    }
    if (metadata)
        json_object_set(header, "__metadata__", (json_t *)metadata);
    for (size_t i = 0; i < count && status == MF_OK; i++)
        status = add_entry(header, &entry[i], &writer->expected, path, error);
    if (status)
        goto done;
    bytes = header_bytes(header, &size);
    if (!bytes) {
        status = mf_error_errno(error, ENOMEM, "%s", path);
        goto done;
    }
    status = mf_atomic_file_open(path, 0644, &writer->file, error);
    if (status)
        goto done;
    status = mf_descriptor_write(writer->file.descriptor, bytes, size, path, error);
    if (status) {
        mf_atomic_file_abandon(&writer->file);
        goto done;
    }
    *out = writer;
    writer = NULL;
done:
    free(bytes);
    json_decref(header);
    free(writer);
    return status;
}

enum mf_status mf_safetensors_write(struct mf_safetensors_writer *writer, const void *data, size_t bytes,
                                    struct mf_error *error) {
    if (bytes > writer->expected - writer->written)
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: more data than its tensors hold",
                            writer->file.path);
    writer->written += bytes;
    return mf_descriptor_write(writer->file.descriptor, data, bytes, writer->file.path, error);
}

enum mf_status mf_safetensors_finish(struct mf_safetensors_writer *writer, struct mf_error *error) {
    enum mf_status status;
    if (writer->written != writer->expected) {
        status = mf_error_set(error, MF_ERROR_INTERNAL, "%s: %zu of %zu bytes of data were written",
                              writer->file.path, writer->written, writer->expected);
        mf_atomic_file_abandon(&writer->file);
    } else {
        status = mf_atomic_file_commit(&writer->file, error);
    }
    free(writer);
    return status;
}

void mf_safetensors_abandon(struct mf_safetensors_writer *writer) {
    if (!writer)
        return;
    mf_atomic_file_abandon(&writer->file);
    free(writer);
}
