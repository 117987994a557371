#include "providers/weights/gguf_writer.h"

#include "common/files.h"
#include "kernels/tensor.h"
#include "providers/weights/gguf_types.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 3, ALIGNMENT = 32, QK = 32, PIECE_ELEMENTS = 1 << 15 };

/* Metadata value types of the format. */
enum { VALUE_U32 = 4, VALUE_I32 = 5, VALUE_F32 = 6, VALUE_BOOL = 7, VALUE_STRING = 8, VALUE_ARRAY = 9 };

struct declared {
    char *name;
    enum mf_gguf_type type;
    size_t elements, bytes;
};

/* Bytes of the header in the making. */
struct text {
    FILE *stream;
    char *data;
    size_t size;
};

struct mf_gguf_writer {
    struct mf_atomic_file file;
    struct text metadata, tensors;
    uint64_t keys;
    struct declared *tensor;
    size_t count, room;
    uint64_t offset;         /* where the next declared tensor's data begin */
    size_t current, written; /* the tensor being written, and its values so far */
    uint8_t *piece;          /* blocks of up to PIECE_ELEMENTS values, of 4 bytes at most */
};

/* ---- quantising ---- */

static void put_16(uint8_t *bytes, uint16_t bits) {
    bytes[0] = (uint8_t)(bits & 0xff);
    bytes[1] = (uint8_t)(bits >> 8);
}

static bool quantize_q8_0(const float *value, uint8_t *block) {
    float largest = 0;
    for (int i = 0; i < QK; i++) {
        if (!isfinite(value[i]))
            return false;
        largest = fabsf(value[i]) > largest ? fabsf(value[i]) : largest;
    }
    const float d = largest / 127, inverse = d != 0 ? 1 / d : 0;
    const uint16_t half = mf_f32_to_f16(d);
    if (!isfinite(mf_f16_to_f32(half)))
        return false;
    put_16(block, half);
    for (int i = 0; i < QK; i++) /* a d so small that its inverse is infinite: all zeros */
        block[2 + i] = (uint8_t)(int8_t)(isfinite(inverse) ? roundf(value[i] * inverse) : 0);
    return true;
}

static bool quantize_one(enum mf_gguf_type type, float value, uint8_t *bytes) {
    if (type == MF_GGUF_F32) {
        memcpy(bytes, &value, sizeof value);
        return isfinite(value);
    }
    const bool half = type == MF_GGUF_F16;
    const uint16_t bits = half ? mf_f32_to_f16(value) : mf_f32_to_bf16(value);
    put_16(bytes, bits);
    return isfinite(half ? mf_f16_to_f32(bits) : mf_bf16_to_f32(bits));
}

bool mf_gguf_quantize(enum mf_gguf_type type, const float *value, size_t count, uint8_t *block) {
    bool good = true;
    if (type == MF_GGUF_Q8_0) {
        for (size_t i = 0; i < count / QK && good; i++)
            good = quantize_q8_0(value + i * QK, block + i * mf_gguf_bytes(type, QK));
        return good;
    }
    const size_t bytes = mf_gguf_bytes(type, 1);
    for (size_t i = 0; i < count && good; i++)
        good = quantize_one(type, value[i], block + i * bytes);
    return good;
}

size_t mf_gguf_bytes(enum mf_gguf_type type, size_t count) {
    if (type != MF_GGUF_F32 && type != MF_GGUF_F16 && type != MF_GGUF_BF16 && type != MF_GGUF_Q8_0)
        return 0;
    const struct mf_gguf_type_info *info = mf_gguf_type_find(type);
    return count / (size_t)info->block_elements * (size_t)info->block_bytes;
}

/* ---- the header ---- */

static void put_number(struct text *text, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        putc((int)(value >> (8 * i) & 0xff), text->stream);
}

static void put_text(struct text *text, const char *value) {
    put_number(text, strlen(value), 8);
    fputs(value, text->stream);
}

static void put_key(struct mf_gguf_writer *writer, const char *key, uint32_t type) {
    writer->keys++;
    put_text(&writer->metadata, key);
    put_number(&writer->metadata, type, 4);
}

static void put_array(struct mf_gguf_writer *writer, const char *key, uint32_t type, size_t count) {
    put_key(writer, key, VALUE_ARRAY);
    put_number(&writer->metadata, type, 4);
    put_number(&writer->metadata, count, 8);
}

void mf_gguf_put_integer(struct mf_gguf_writer *writer, const char *key, uint32_t value) {
    put_key(writer, key, VALUE_U32);
    put_number(&writer->metadata, value, 4);
}

void mf_gguf_put_number(struct mf_gguf_writer *writer, const char *key, float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    put_key(writer, key, VALUE_F32);
    put_number(&writer->metadata, word, 4);
}

void mf_gguf_put_boolean(struct mf_gguf_writer *writer, const char *key, bool value) {
    put_key(writer, key, VALUE_BOOL);
    put_number(&writer->metadata, value, 1);
}

void mf_gguf_put_string(struct mf_gguf_writer *writer, const char *key, const char *value) {
    put_key(writer, key, VALUE_STRING);
    put_text(&writer->metadata, value);
}

void mf_gguf_put_strings(struct mf_gguf_writer *writer, const char *key, const char *const *value,
                         size_t count) {
    put_array(writer, key, VALUE_STRING, count);
    for (size_t i = 0; i < count; i++)
        put_text(&writer->metadata, value[i]);
}

void mf_gguf_put_numbers(struct mf_gguf_writer *writer, const char *key, const float *value, size_t count) {
    put_array(writer, key, VALUE_F32, count);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &value[i], sizeof bits);
        put_number(&writer->metadata, bits, 4);
    }
}

void mf_gguf_put_integers(struct mf_gguf_writer *writer, const char *key, const int32_t *value,
                          size_t count) {
    put_array(writer, key, VALUE_I32, count);
    for (size_t i = 0; i < count; i++)
        put_number(&writer->metadata, (uint32_t)value[i], 4);
}

static enum mf_status more_room(struct mf_gguf_writer *writer, struct mf_error *error) {
    if (writer->count < writer->room)
        return MF_OK;
    const size_t room = writer->room ? 2 * writer->room : 64;
    struct declared *tensor = reallocarray(writer->tensor, room, sizeof *tensor);
    if (!tensor)
        return mf_error_errno(error, ENOMEM, "%s", writer->file.path);
    writer->tensor = tensor;
    writer->room = room;
    return MF_OK;
}

enum mf_status mf_gguf_declare(struct mf_gguf_writer *writer, const char *name, enum mf_gguf_type type,
                               int32_t rank, const int64_t *dim, struct mf_error *error) {
    size_t elements = 1;
    bool good = mf_gguf_bytes(type, QK) && rank >= 1 && rank <= MF_GGUF_MAX_RANK;
    for (int32_t i = 0; good && i < rank; i++)
        good = dim[i] > 0 && !__builtin_mul_overflow(elements, (size_t)dim[i], &elements);
    if (!good || (type == MF_GGUF_Q8_0 && dim[rank - 1] % QK))
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: tensor %s: this type cannot hold this shape",
                            writer->file.path, name);
    enum mf_status status = more_room(writer, error);
    if (status)
        return status;
    struct declared *tensor = &writer->tensor[writer->count];
    *tensor = (struct declared){strdup(name), type, elements, mf_gguf_bytes(type, elements)};
    if (!tensor->name)
        return mf_error_errno(error, ENOMEM, "%s", writer->file.path);
    writer->count++;
    put_text(&writer->tensors, name);
    put_number(&writer->tensors, (uint64_t)rank, 4);
    for (int32_t i = rank - 1; i >= 0; i--) /* the contiguous one first */
        put_number(&writer->tensors, (uint64_t)dim[i], 8);
    put_number(&writer->tensors, type, 4);
    put_number(&writer->tensors, writer->offset, 8);
    writer->offset += (tensor->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return MF_OK;
}

static enum mf_status close_text(struct text *text, const char *path, struct mf_error *error) {
    const bool failed = ferror(text->stream) != 0;
    FILE *stream = text->stream;
    text->stream = NULL;
    return fclose(stream) || failed ? mf_error_errno(error, ENOMEM, "%s", path) : MF_OK;
}

static enum mf_status put(struct mf_gguf_writer *writer, const void *data, size_t bytes,
                          struct mf_error *error) {
    return mf_descriptor_write(writer->file.descriptor, data, bytes, writer->file.path, error);
}

/* Zeros from `bytes` on to the alignment. */
static enum mf_status pad(struct mf_gguf_writer *writer, size_t bytes, struct mf_error *error) {
    static const uint8_t zero[ALIGNMENT];
    return put(writer, zero, (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT, error);
}

/* ---- the file ---- */

enum mf_status mf_gguf_create(const char *path, struct mf_gguf_writer **out, struct mf_error *error) {
    struct mf_gguf_writer *writer = calloc(1, sizeof *writer);
    *out = NULL;
    if (!writer)
        return mf_error_errno(error, ENOMEM, "%s", path);
    enum mf_status status = mf_atomic_file_open(path, 0644, &writer->file, error);
    if (status) {
        free(writer);
        return status;
    }
    writer->piece = malloc(4 * (size_t)PIECE_ELEMENTS);
    writer->metadata.stream = open_memstream(&writer->metadata.data, &writer->metadata.size);
    writer->tensors.stream = open_memstream(&writer->tensors.data, &writer->tensors.size);
    if (!writer->piece || !writer->metadata.stream || !writer->tensors.stream) {
        mf_gguf_abandon(writer);
        return mf_error_errno(error, ENOMEM, "%s", path);
    }
    *out = writer;
    return MF_OK;
}

enum mf_status mf_gguf_begin(struct mf_gguf_writer *writer, struct mf_error *error) {
    uint8_t start[24] = {'G', 'G', 'U', 'F', VERSION};
    for (int i = 0; i < 8; i++) {
        start[8 + i] = (uint8_t)((uint64_t)writer->count >> (8 * i) & 0xff);
        start[16 + i] = (uint8_t)(writer->keys >> (8 * i) & 0xff);
    }
    enum mf_status status;
    if ((status = close_text(&writer->metadata, writer->file.path, error)) ||
        (status = close_text(&writer->tensors, writer->file.path, error)) ||
        (status = put(writer, start, sizeof start, error)) ||
        (status = put(writer, writer->metadata.data, writer->metadata.size, error)) ||
        (status = put(writer, writer->tensors.data, writer->tensors.size, error)))
        return status;
    return pad(writer, sizeof start + writer->metadata.size + writer->tensors.size, error);
}

enum mf_status mf_gguf_write(struct mf_gguf_writer *writer, const float *value, size_t count,
                             struct mf_error *error) {
    if (writer->current == writer->count)
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: more values than its tensors hold",
                            writer->file.path);
    const struct declared *tensor = &writer->tensor[writer->current];
    if (count > tensor->elements - writer->written || (tensor->type == MF_GGUF_Q8_0 && count % QK))
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: tensor %s: not whole blocks of it",
                            writer->file.path, tensor->name);
    enum mf_status status = MF_OK;
    writer->written += count;
    while (count && status == MF_OK) {
        const size_t now = count < PIECE_ELEMENTS ? count : PIECE_ELEMENTS;
        if (!mf_gguf_quantize(tensor->type, value, now, writer->piece))
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                                "%s: tensor %s holds a value that is not finite in %s", writer->file.path,
                                tensor->name, mf_gguf_type_name(tensor->type));
        status = put(writer, writer->piece, mf_gguf_bytes(tensor->type, now), error);
        value += now;
        count -= now;
    }
    if (status == MF_OK && writer->written == tensor->elements) {
        status = pad(writer, tensor->bytes, error);
        writer->current++;
        writer->written = 0;
    }
    return status;
}

static void release(struct mf_gguf_writer *writer) {
    if (writer->metadata.stream)
        fclose(writer->metadata.stream);
    if (writer->tensors.stream)
        fclose(writer->tensors.stream);
    for (size_t i = 0; i < writer->count; i++)
        free(writer->tensor[i].name);
    free(writer->metadata.data);
    free(writer->tensors.data);
    free(writer->tensor);
    free(writer->piece);
    free(writer);
}

enum mf_status mf_gguf_finish(struct mf_gguf_writer *writer, struct mf_error *error) {
    enum mf_status status;
    if (writer->current != writer->count || writer->metadata.stream) {
        status = mf_error_set(error, MF_ERROR_INTERNAL, "%s: %zu of %zu tensors were written",
                              writer->file.path, writer->current, writer->count);
        mf_atomic_file_abandon(&writer->file);
    } else {
        status = mf_atomic_file_commit(&writer->file, error);
    }
    release(writer);
    return status;
}

void mf_gguf_abandon(struct mf_gguf_writer *writer) {
    if (!writer)
        return;
    mf_atomic_file_abandon(&writer->file);
    release(writer);
}
