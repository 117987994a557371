#include "providers/weights/gguf.h"

#include "providers/weights/gguf_types.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_BYTES = 255, KEY_BYTES = 65535, DEFAULT_ALIGNMENT = 32, MAX_ALIGNMENT = 1 << 20 };

/* Metadata value types of the format. */
enum value_type {
    VALUE_U8,
    VALUE_I8,
    VALUE_U16,
    VALUE_I16,
    VALUE_U32,
    VALUE_I32,
    VALUE_F32,
    VALUE_BOOL,
    VALUE_STRING,
    VALUE_ARRAY,
    VALUE_U64,
    VALUE_I64,
    VALUE_F64,
    VALUE_TYPES
};

static const uint8_t value_bytes[VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct metadata {
    struct mf_gguf_text key;
    uint32_t type, element_type; /* element_type: of arrays */
    uint64_t count;              /* elements of an array, else 1 */
    const uint8_t *value;        /* the first element */
};

struct mf_gguf {
    char *path;
    const uint8_t *data;
    size_t size;
    struct metadata *metadata; /* by key */
    size_t metadata_count;
    struct mf_gguf_tensor *tensor; /* by name */
    size_t count;
};

/* ---- bounded reading; every take_ returns false when the file is too short ---- */

struct cursor {
    const uint8_t *at, *end;
};

static uint64_t little_endian(const uint8_t *bytes, size_t count) {
    uint64_t value = 0;
    while (count-- > 0)
        value = value << 8 | bytes[count];
    return value;
}

static bool skip(struct cursor *cursor, uint64_t bytes) {
    if (bytes > (uint64_t)(cursor->end - cursor->at))
        return false;
    cursor->at += bytes;
    return true;
}

static bool take_u32(struct cursor *cursor, uint32_t *value) {
    const uint8_t *from = cursor->at;
    if (!skip(cursor, 4))
        return false;
    *value = (uint32_t)little_endian(from, 4);
    return true;
}

static bool take_u64(struct cursor *cursor, uint64_t *value) {
    const uint8_t *from = cursor->at;
    if (!skip(cursor, 8))
        return false;
    *value = little_endian(from, 8);
    return true;
}

static bool take_text(struct cursor *cursor, struct mf_gguf_text *text) {
    uint64_t length;
    if (!take_u64(cursor, &length))
        return false;
    text->data = (const char *)cursor->at;
    text->length = (size_t)length;
    return skip(cursor, length);
}

/* ---- opening ---- */

static enum mf_status map_gguf(const char *path, struct mf_gguf *file, struct mf_error *error) {
    enum mf_status status = MF_OK;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return mf_error_set(error, MF_ERROR_MODEL_NOT_FOUND, "%s: there is no such file", path);
        return mf_error_errno(error, errno, "%s", path);
    }
    struct stat info;
    if (fstat(descriptor, &info)) {
        status = mf_error_errno(error, errno, "%s", path);
    } else if (!S_ISREG(info.st_mode) || info.st_size < 24) {
        status = mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: too short for a GGUF file", path);
    } else {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (data == MAP_FAILED) {
            status = mf_error_errno(error, errno, "%s: mmap", path);
        } else {
            file->data = data;
            file->size = (size_t)info.st_size;
            file->path = strdup(path);
            if (!file->path)
                status = mf_error_errno(error, ENOMEM, "%s", path);
        }
    }
    close(descriptor);
    return status;
}

static enum mf_status cut_short(const struct mf_gguf *file, const char *what, struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: the file ends inside %s", file->path, what);
}

static enum mf_status read_value(const struct mf_gguf *file, struct cursor *cursor, struct metadata *item,
                                 struct mf_error *error) {
    item->count = 1;
    if (!take_u32(cursor, &item->type))
        return cut_short(file, "the metadata", error);
    uint32_t type = item->type;
    if (type == VALUE_ARRAY) {
        if (!take_u32(cursor, &item->element_type) || !take_u64(cursor, &item->count))
            return cut_short(file, "the metadata", error);
        type = item->element_type;
        if (item->count > MF_GGUF_MAX_ARRAY)
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: metadata %.*s: more than %d elements",
                                file->path, (int)item->key.length, item->key.data, MF_GGUF_MAX_ARRAY);
    }
    if (type >= VALUE_TYPES || type == VALUE_ARRAY)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: metadata %.*s: unknown or nested type %u",
                            file->path, (int)item->key.length, item->key.data, type);
    item->value = cursor->at;
    bool whole = true;
    if (type == VALUE_STRING) {
        struct mf_gguf_text text;
        for (uint64_t i = 0; i < item->count && whole; i++)
            whole = take_text(cursor, &text);
    } else {
        whole = skip(cursor, item->count * value_bytes[type]);
    }
    return whole ? MF_OK : cut_short(file, "the metadata", error);
}

static int compare_text(const struct mf_gguf_text *a, const struct mf_gguf_text *b) {
    size_t shorter = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->data, b->data, shorter);
    return order ? order : a->length < b->length ? -1 : a->length > b->length;
}

static int by_key(const void *a, const void *b) {
    return compare_text(&((const struct metadata *)a)->key, &((const struct metadata *)b)->key);
}

static enum mf_status read_metadata(struct mf_gguf *file, struct cursor *cursor, uint64_t count,
                                    struct mf_error *error) {
    /* A pair takes at least 8 + 4 + 1 bytes, so a lying count costs no memory. */
    if (count > MF_GGUF_MAX_KEYS || count > (uint64_t)(cursor->end - cursor->at) / 13)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: %llu metadata keys cannot be in this file",
                            file->path, (unsigned long long)count);
    file->metadata = calloc((size_t)count + 1, sizeof *file->metadata);
    if (!file->metadata)
        return mf_error_errno(error, ENOMEM, "%s", file->path);
    for (; file->metadata_count < count; file->metadata_count++) {
        struct metadata *item = &file->metadata[file->metadata_count];
        if (!take_text(cursor, &item->key))
            return cut_short(file, "the metadata", error);
        if (item->key.length > KEY_BYTES)
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: a metadata key is longer than %d bytes",
                                file->path, KEY_BYTES);
        enum mf_status status = read_value(file, cursor, item, error);
        if (status)
            return status;
    }
    qsort(file->metadata, file->metadata_count, sizeof *file->metadata, by_key);
    for (size_t i = 1; i < file->metadata_count; i++)
        if (!by_key(&file->metadata[i - 1], &file->metadata[i]))
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: metadata %.*s is there twice", file->path,
                                (int)file->metadata[i].key.length, file->metadata[i].key.data);
    return MF_OK;
}

static enum mf_status copy_name(const struct mf_gguf *file, struct mf_gguf_text text,
                                struct mf_gguf_tensor *tensor, struct mf_error *error) {
    if (!text.length || text.length > NAME_BYTES || memchr(text.data, 0, text.length))
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: a tensor name has %zu bytes or holds a NUL",
                            file->path, text.length);
    tensor->name = strndup(text.data, text.length);
    return tensor->name ? MF_OK : mf_error_errno(error, ENOMEM, "%s", file->path);
}

/* Reads name, shape and type; leaves the offset in *offset and bytes computed. */
static enum mf_status read_tensor_info(const struct mf_gguf *file, struct cursor *cursor,
                                       struct mf_gguf_tensor *tensor, uint64_t *offset,
                                       struct mf_error *error) {
    struct mf_gguf_text name;
    uint32_t rank, type;
    if (!take_text(cursor, &name))
        return cut_short(file, "the list of tensors", error);
    enum mf_status status = copy_name(file, name, tensor, error);
    if (status)
        return status;
    if (!take_u32(cursor, &rank))
        return cut_short(file, "the list of tensors", error);
    if (rank < 1 || rank > MF_GGUF_MAX_RANK)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s has %u dimensions (1 to %d)",
                            file->path, tensor->name, rank, MF_GGUF_MAX_RANK);
    tensor->rank = (int32_t)rank;
    tensor->elements = 1;
    for (uint32_t i = 0; i < rank; i++) {
        uint64_t size;
        if (!take_u64(cursor, &size))
            return cut_short(file, "the list of tensors", error);
        if (size < 1 || size > INT64_MAX ||
            __builtin_mul_overflow(tensor->elements, (int64_t)size, &tensor->elements))
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s: dimension %u is %llu",
                                file->path, tensor->name, i, (unsigned long long)size);
        tensor->dim[rank - 1 - i] = (int64_t)size; /* ggml lists the contiguous dimension first */
    }
    if (!take_u32(cursor, &type) || !take_u64(cursor, offset))
        return cut_short(file, "the list of tensors", error);
    const struct mf_gguf_type_info *info = mf_gguf_type_find(type);
    if (!info)
        return mf_error_set(
            error, MF_ERROR_BAD_WEIGHTS,
            "%s: tensor %s: ggml type %u is not supported; use a file quantised as Q4_0, Q4_1, "
            "Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, or F16, BF16, F32",
            file->path, tensor->name, type);
    if (tensor->dim[rank - 1] % info->block_elements)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s: a row is no multiple of %d elements",
                            file->path, tensor->name, info->block_elements);
    tensor->type = (enum mf_gguf_type)type;
    if (__builtin_mul_overflow((size_t)(tensor->elements / info->block_elements), (size_t)info->block_bytes,
                               &tensor->bytes))
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s is too large", file->path,
                            tensor->name);
    return MF_OK;
}

static int by_place(const void *a, const void *b) {
    const struct mf_gguf_tensor *x = a, *y = b;
    return x->data < y->data ? -1 : x->data > y->data;
}

static int by_tensor_name(const void *a, const void *b) {
    return strcmp(((const struct mf_gguf_tensor *)a)->name, ((const struct mf_gguf_tensor *)b)->name);
}

/* Sorts by place, then by name: no two may share bytes or a name. */
static enum mf_status check_tensors(struct mf_gguf *file, struct mf_error *error) {
    qsort(file->tensor, file->count, sizeof *file->tensor, by_place);
    for (size_t i = 1; i < file->count; i++) {
        const struct mf_gguf_tensor *before = &file->tensor[i - 1];
        if ((const uint8_t *)before->data + before->bytes > (const uint8_t *)file->tensor[i].data)
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s overlaps %s", file->path,
                                file->tensor[i].name, before->name);
    }
    qsort(file->tensor, file->count, sizeof *file->tensor, by_tensor_name);
    for (size_t i = 1; i < file->count; i++)
        if (!by_tensor_name(&file->tensor[i - 1], &file->tensor[i]))
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s is there twice", file->path,
                                file->tensor[i].name);
    return MF_OK;
}

static enum mf_status read_alignment(const struct mf_gguf *file, int64_t *alignment, struct mf_error *error) {
    *alignment = DEFAULT_ALIGNMENT;
    mf_gguf_integer(file, "general.alignment", alignment);
    if (*alignment < 1 || *alignment > MAX_ALIGNMENT || (*alignment & (*alignment - 1)))
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: general.alignment is %lld (a power of two)",
                            file->path, (long long)*alignment);
    return MF_OK;
}

static enum mf_status read_tensors(struct mf_gguf *file, struct cursor *cursor, uint64_t count,
                                   struct mf_error *error) {
    if (count > MF_GGUF_MAX_TENSORS || count > (uint64_t)(cursor->end - cursor->at) / 33)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: %llu tensors cannot be in this file",
                            file->path, (unsigned long long)count);
    int64_t alignment;
    enum mf_status status = read_alignment(file, &alignment, error);
    if (status)
        return status;
    uint64_t *offset = calloc((size_t)count + 1, sizeof *offset);
    file->tensor = calloc((size_t)count + 1, sizeof *file->tensor);
    if (!offset || !file->tensor) {
        status = mf_error_errno(error, ENOMEM, "%s", file->path);
        goto done;
    }
    for (; file->count < count && status == MF_OK; file->count++)
        status = read_tensor_info(file, cursor, &file->tensor[file->count], &offset[file->count], error);
    if (status)
        goto done;
    size_t start = (size_t)(cursor->at - file->data);
    start = (start + (size_t)alignment - 1) / (size_t)alignment * (size_t)alignment;
    size_t available = start > file->size ? 0 : file->size - start;
    for (size_t i = 0; i < file->count; i++) {
        struct mf_gguf_tensor *tensor = &file->tensor[i];
        if (offset[i] % (uint64_t)alignment || offset[i] > available ||
            tensor->bytes > available - offset[i]) {
            status = mf_error_set(
                error, MF_ERROR_BAD_WEIGHTS,
                "%s: tensor %s: %zu bytes at offset %llu are not aligned or do not lie within "
                "the %zu bytes of data",
                file->path, tensor->name, tensor->bytes, (unsigned long long)offset[i], available);
            goto done;
        }
        tensor->data = file->data + start + offset[i];
    }
    status = check_tensors(file, error);
done:
    free(offset);
    return status;
}

static enum mf_status read_file(struct mf_gguf *file, struct mf_error *error) {
    struct cursor cursor = {file->data, file->data + file->size};
    uint32_t version = 0;
    uint64_t tensors = 0, keys = 0;
    if (memcmp(cursor.at, "GGUF", 4) != 0)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: not a GGUF file", file->path);
    cursor.at += 4;
    take_u32(&cursor, &version);
    if (version != 2 && version != 3)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                            "%s: GGUF version %u is not supported (2 and 3, little-endian)", file->path,
                            version);
    take_u64(&cursor, &tensors);
    take_u64(&cursor, &keys);
    enum mf_status status = read_metadata(file, &cursor, keys, error);
    return status ? status : read_tensors(file, &cursor, tensors, error);
}

enum mf_status mf_gguf_open(const char *path, struct mf_gguf **out, struct mf_error *error) {
    *out = NULL;
    struct mf_gguf *file = calloc(1, sizeof *file);
    if (!file)
        return mf_error_errno(error, ENOMEM, "%s", path);
    enum mf_status status = map_gguf(path, file, error);
    if (file->data && status == MF_OK)
        status = read_file(file, error);
    if (status)
        mf_gguf_close(file);
    else
        *out = file;
    return status;
}

void mf_gguf_close(struct mf_gguf *file) {
    if (!file)
        return;
    for (size_t i = 0; file->tensor && file->tensor[i].name; i++) /* one more than count was allocated */
        free((char *)file->tensor[i].name);
    free(file->tensor);
    free(file->metadata);
    if (file->data)
        munmap((void *)file->data, file->size);
    free(file->path);
    free(file);
}

/* ---- tensors ---- */

size_t mf_gguf_count(const struct mf_gguf *file) {
    return file->count;
}

const struct mf_gguf_tensor *mf_gguf_at(const struct mf_gguf *file, size_t index) {
    return &file->tensor[index];
}

const struct mf_gguf_tensor *mf_gguf_find(const struct mf_gguf *file, const char *name) {
    struct mf_gguf_tensor key = {.name = name};
    return file->count ? bsearch(&key, file->tensor, file->count, sizeof key, by_tensor_name) : NULL;
}

bool mf_gguf_read(const struct mf_gguf_tensor *tensor, int64_t first, int64_t count, float *value) {
    const struct mf_gguf_type_info *info = mf_gguf_type_find(tensor->type);
    if (first < 0 || count < 0 || first > tensor->elements || count > tensor->elements - first ||
        first % info->block_elements || count % info->block_elements)
        return false;
    const uint8_t *block = (const uint8_t *)tensor->data + first / info->block_elements * info->block_bytes;
    for (int64_t done = 0; done < count; done += info->block_elements, block += info->block_bytes)
        info->dequantize(block, value + done);
    return true;
}

const char *mf_gguf_type_name(enum mf_gguf_type type) {
    const struct mf_gguf_type_info *info = mf_gguf_type_find(type);
    return info ? info->name : NULL;
}

/* ---- metadata ---- */

static const struct metadata *find_metadata(const struct mf_gguf *file, const char *key) {
    struct metadata wanted = {.key = {key, strlen(key)}};
    return file->metadata_count
               ? bsearch(&wanted, file->metadata, file->metadata_count, sizeof wanted, by_key)
               : NULL;
}

static bool integer_value(uint32_t type, const uint8_t *bytes, int64_t *value) {
    uint64_t raw = little_endian(bytes, value_bytes[type]);
    switch (type) {
    case VALUE_U8:
    case VALUE_U16:
    case VALUE_U32:
        *value = (int64_t)raw;
        return true;
    case VALUE_I8:
        *value = (int64_t)(raw ^ 0x80) - 0x80; /* two's complement of 8 bits */
        return true;
    case VALUE_I16:
        *value = (int16_t)raw;
        return true;
    case VALUE_I32:
        *value = (int32_t)raw;
        return true;
    case VALUE_I64:
        *value = (int64_t)raw;
        return true;
    case VALUE_U64:
        *value = (int64_t)raw;
        return raw <= INT64_MAX;
    default:
        return false;
    }
}

bool mf_gguf_integer(const struct mf_gguf *file, const char *key, int64_t *value) {
    const struct metadata *item = find_metadata(file, key);
    int64_t found;
    if (!item || !integer_value(item->type, item->value, &found))
        return false;
    *value = found;
    return true;
}

bool mf_gguf_number(const struct mf_gguf *file, const char *key, double *value) {
    const struct metadata *item = find_metadata(file, key);
    if (!item)
        return false;
    if (item->type == VALUE_F32) {
        uint32_t word = (uint32_t)little_endian(item->value, 4);
        float number;
        memcpy(&number, &word, sizeof number);
        *value = (double)number;
        return true;
    }
    if (item->type == VALUE_F64) {
        uint64_t word = little_endian(item->value, 8);
        memcpy(value, &word, sizeof *value);
        return true;
    }
    int64_t integer;
    if (!integer_value(item->type, item->value, &integer))
        return false;
    *value = (double)integer;
    return true;
}

bool mf_gguf_boolean(const struct mf_gguf *file, const char *key, bool *value) {
    const struct metadata *item = find_metadata(file, key);
    if (!item || item->type != VALUE_BOOL)
        return false;
    *value = item->value[0] != 0;
    return true;
}

bool mf_gguf_string(const struct mf_gguf *file, const char *key, struct mf_gguf_text *value) {
    const struct metadata *item = find_metadata(file, key);
    if (!item || item->type != VALUE_STRING)
        return false;
    struct cursor cursor = {item->value, file->data + file->size};
    return take_text(&cursor, value);
}

int64_t mf_gguf_array_length(const struct mf_gguf *file, const char *key) {
    const struct metadata *item = find_metadata(file, key);
    return item && item->type == VALUE_ARRAY ? (int64_t)item->count : -1;
}

bool mf_gguf_strings(const struct mf_gguf *file, const char *key, struct mf_gguf_text *value,
                     size_t capacity) {
    const struct metadata *item = find_metadata(file, key);
    if (!item || item->type != VALUE_ARRAY || item->element_type != VALUE_STRING || item->count > capacity)
        return false;
    struct cursor cursor = {item->value, file->data + file->size};
    for (uint64_t i = 0; i < item->count; i++)
        if (!take_text(&cursor, &value[i]))
            return false;
    return true;
}

bool mf_gguf_integers(const struct mf_gguf *file, const char *key, int64_t *value, size_t capacity) {
    const struct metadata *item = find_metadata(file, key);
    if (!item || item->type != VALUE_ARRAY || item->count > capacity)
        return false;
    const uint8_t *at = item->value;
    for (uint64_t i = 0; i < item->count; i++, at += value_bytes[item->element_type])
        if (!integer_value(item->element_type, at, &value[i]))
            return false;
    return true;
}

bool mf_gguf_numbers(const struct mf_gguf *file, const char *key, double *value, size_t capacity) {
    const struct metadata *item = find_metadata(file, key);
    if (!item || item->type != VALUE_ARRAY || item->element_type != VALUE_F32 || item->count > capacity)
        return false;
    for (uint64_t i = 0; i < item->count; i++) {
        float number;
        memcpy(&number, item->value + i * sizeof number, sizeof number);
        value[i] = (double)number;
    }
    return true;
}
