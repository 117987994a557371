#include "providers/weights/safetensors.h"

#include "common/files.h"
#include "common/json.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_LENGTH_BYTES = 8, NAME_BYTES = 1024, INDEX_FILE_BYTES = 64 << 20 };

struct mapped_file {
    char *path;
    const uint8_t *data;
    size_t size, data_start;
    json_t *header;
};

struct mf_safetensors {
    struct mapped_file *file;
    size_t file_count;
    struct mf_stored_tensor *tensor; /* by name */
    size_t count;
};

static const struct {
    const char *name;
    size_t bytes;
    bool floating;
    enum mf_dtype dtype;
} dtypes[] = {
    {"F32", 4, true, MF_F32},         {"BF16", 2, true, MF_BF16},       {"F16", 2, true, MF_F16},
    {"F64", 8, false, MF_DTYPES},     {"I64", 8, false, MF_DTYPES},     {"U64", 8, false, MF_DTYPES},
    {"I32", 4, false, MF_DTYPES},     {"U32", 4, false, MF_DTYPES},     {"I16", 2, false, MF_DTYPES},
    {"U16", 2, false, MF_DTYPES},     {"I8", 1, false, MF_DTYPES},      {"U8", 1, false, MF_U8},
    {"BOOL", 1, false, MF_DTYPES},    {"F8_E4M3", 1, false, MF_DTYPES}, {"F8_E5M2", 1, false, MF_DTYPES},
    {"F8_E8M0", 1, false, MF_DTYPES},
};

static uint64_t little_endian_64(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

/* ---- reading one file ---- */

static enum mf_status map_file(const char *path, struct mapped_file *file, struct mf_error *error) {
    enum mf_status status = MF_OK;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return mf_error_set(error, MF_ERROR_MODEL_INCOMPLETE, "%s: the weight file is missing", path);
        return mf_error_errno(error, errno, "%s", path);
    }
    struct stat info;
    if (fstat(descriptor, &info)) {
        status = mf_error_errno(error, errno, "%s", path);
        goto done;
    }
    if (!S_ISREG(info.st_mode)) {
        status = mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: not a regular file", path);
        goto done;
    }
    if (info.st_size < HEADER_LENGTH_BYTES) {
        status =
            mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: %lld bytes are too few for a safetensors file",
                         path, (long long)info.st_size);
        goto done;
    }
    file->size = (size_t)info.st_size;
    void *data = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED) {
        status = mf_error_errno(error, errno, "%s: mmap", path);
        goto done;
    }
    file->data = data;
    file->path = strdup(path);
    if (!file->path)
        status = mf_error_errno(error, ENOMEM, "%s", path);
done:
    close(descriptor);
    return status;
}

static enum mf_status read_header(struct mapped_file *file, struct mf_error *error) {
    uint64_t length = little_endian_64(file->data);
    if (length > MF_SAFETENSORS_MAX_HEADER_BYTES)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                            "%s: the header claims %llu bytes, more than the limit of %d", file->path,
                            (unsigned long long)length, MF_SAFETENSORS_MAX_HEADER_BYTES);
    if (length > file->size - HEADER_LENGTH_BYTES)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                            "%s: the header claims %llu bytes but only %zu follow its length; the file is "
                            "truncated or not safetensors",
                            file->path, (unsigned long long)length, file->size - HEADER_LENGTH_BYTES);
    struct mf_error cause;
    if (mf_json_parse((const char *)file->data + HEADER_LENGTH_BYTES, (size_t)length, "header", &file->header,
                      &cause))
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: %s", file->path, cause.message);
    if (!json_is_object(file->header))
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: the header is not a JSON object", file->path);
    file->data_start = HEADER_LENGTH_BYTES + (size_t)length;
    return MF_OK;
}

static enum mf_status read_dtype(const struct mapped_file *file, const json_t *entry,
                                 struct mf_stored_tensor *tensor, size_t *bytes, struct mf_error *error) {
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s: dtype is missing or not a string",
                            file->path, tensor->name);
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtypes[i].name, name) != 0)
            continue;
        tensor->dtype_name = dtypes[i].name;
        tensor->floating = dtypes[i].floating;
        tensor->dtype = dtypes[i].dtype;
        *bytes = dtypes[i].bytes;
        return MF_OK;
    }
    return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s: unknown dtype '%.32s'", file->path,
                        tensor->name, name);
}

/* Checks the shape and multiplies it into *bytes. */
static enum mf_status read_shape(const struct mapped_file *file, const json_t *entry,
                                 struct mf_stored_tensor *tensor, size_t *bytes, struct mf_error *error) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > MF_SAFETENSORS_MAX_RANK)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                            "%s: tensor %s: shape is not an array of at most %d sizes", file->path,
                            tensor->name, MF_SAFETENSORS_MAX_RANK);
    tensor->rank = (int32_t)json_array_size(shape);
    for (int32_t i = 0; i < tensor->rank; i++) {
        const json_t *size = json_array_get(shape, (size_t)i);
        json_int_t value = json_is_integer(size) ? json_integer_value(size) : -1;
        if (value < 0)
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                                "%s: tensor %s: shape[%d] is not a whole number from 0 up", file->path,
                                tensor->name, i);
        tensor->dim[i] = value;
        if (__builtin_mul_overflow(*bytes, (size_t)value, bytes))
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s: the shape overflows", file->path,
                                tensor->name);
    }
    return MF_OK;
}

static enum mf_status read_tensor(const struct mapped_file *file, const char *name, const json_t *entry,
                                  struct mf_stored_tensor *tensor, struct mf_error *error) {
    tensor->name = name;
    tensor->file = file->path;
    if (strlen(name) > NAME_BYTES)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: a tensor name is longer than %d bytes",
                            file->path, NAME_BYTES);
    if (!json_is_object(entry))
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s: its entry is not a JSON object",
                            file->path, name);
    size_t bytes = 0;
    enum mf_status status = read_dtype(file, entry, tensor, &bytes, error);
    if (status == MF_OK)
        status = read_shape(file, entry, tensor, &bytes, error);
    if (status)
        return status;
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                            "%s: tensor %s: data_offsets is not a pair of whole numbers", file->path, name);
    json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    size_t available = file->size - file->data_start;
    if (from < 0 || to < from || (uint64_t)to > available)
        return mf_error_set(
            error, MF_ERROR_BAD_WEIGHTS,
            "%s: tensor %s: data_offsets [%lld, %lld] do not lie within the %zu bytes of data", file->path,
            name, (long long)from, (long long)to, available);
    tensor->bytes = (size_t)(to - from);
    if (tensor->bytes != bytes)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                            "%s: tensor %s: data_offsets hold %zu bytes but dtype %s and shape need %zu",
                            file->path, name, tensor->bytes, tensor->dtype_name, bytes);
    tensor->data = file->data + file->data_start + (size_t)from;
    return MF_OK;
}

static int by_data(const void *a, const void *b) {
    const struct mf_stored_tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const uint8_t *)x->data < (const uint8_t *)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b) {
    const struct mf_stored_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Sorts the file's tensors by place: each must begin where the one before it ends, and the last at the end of
 * the file, as the format demands. */
static enum mf_status check_layout(const struct mapped_file *file, struct mf_stored_tensor *tensor,
                                   size_t count, struct mf_error *error) {
    qsort(tensor, count, sizeof *tensor, by_data);
    const uint8_t *place = file->data + file->data_start;
    const char *before = "the header";
    for (size_t i = 0; i < count; i++) {
        const uint8_t *start = tensor[i].data;
        if (start < place)
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s overlaps %s by %zu bytes",
                                file->path, tensor[i].name, before, (size_t)(place - start));
        if (start > place)
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                                "%s: %zu bytes between %s and tensor %s belong to no tensor", file->path,
                                (size_t)(start - place), before, tensor[i].name);
        place = start + tensor[i].bytes;
        before = tensor[i].name;
    }
    size_t rest = file->size - (size_t)(place - file->data);
    if (rest)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: %zu bytes after the last tensor belong to none",
                            file->path, rest);
    return MF_OK;
}

static enum mf_status check_metadata(const struct mapped_file *file, struct mf_error *error) {
    const json_t *metadata = json_object_get(file->header, "__metadata__");
    if (!metadata)
        return MF_OK;
    const char *key;
    json_t *value;
    bool right = json_is_object(metadata);
    json_object_foreach((json_t *)metadata, key, value) right = right && json_is_string(value);
    return right ? MF_OK
                 : mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: __metadata__ is not an object of strings",
                                file->path);
}

/* Maps `path` and appends its tensors to `set`, which has room for one more file. */
static enum mf_status add_file(struct mf_safetensors *set, const char *path, struct mf_error *error) {
    struct mapped_file *file = &set->file[set->file_count++];
    enum mf_status status = map_file(path, file, error);
    if (file->data && status == MF_OK)
        status = read_header(file, error);
    if (status == MF_OK)
        status = check_metadata(file, error);
    if (status)
        return status;
    size_t entries = json_object_size(file->header);
    if (entries > MF_SAFETENSORS_MAX_TENSORS - set->count)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: more than %d tensors", path,
                            MF_SAFETENSORS_MAX_TENSORS);
    struct mf_stored_tensor *larger = realloc(set->tensor, (set->count + entries + 1) * sizeof *larger);
    if (!larger)
        return mf_error_errno(error, ENOMEM, "%s", path);
    set->tensor = larger;
    struct mf_stored_tensor *first = set->tensor + set->count;
    size_t count = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry) {
        if (!strcmp(name, "__metadata__"))
            continue;
        memset(&first[count], 0, sizeof *first);
        status = read_tensor(file, name, entry, &first[count], error);
        if (status)
            return status;
        count++;
    }
    status = check_layout(file, first, count, error);
    if (status == MF_OK)
        set->count += count;
    return status;
}

static enum mf_status sort_names(struct mf_safetensors *set, struct mf_error *error) {
    if (set->count)
        qsort(set->tensor, set->count, sizeof *set->tensor, by_name);
    for (size_t i = 1; i < set->count; i++)
        if (!strcmp(set->tensor[i - 1].name, set->tensor[i].name))
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "tensor %s is in both %s and %s",
                                set->tensor[i].name, set->tensor[i - 1].file, set->tensor[i].file);
    return MF_OK;
}

static struct mf_safetensors *new_set(size_t files) {
    struct mf_safetensors *set = calloc(1, sizeof *set);
    if (set && !(set->file = calloc(files, sizeof *set->file))) {
        free(set);
        set = NULL;
    }
    return set;
}

enum mf_status mf_safetensors_open_file(const char *path, struct mf_safetensors **out,
                                        struct mf_error *error) {
    *out = NULL;
    struct mf_safetensors *set = new_set(1);
    if (!set)
        return mf_error_errno(error, ENOMEM, "%s", path);
    enum mf_status status = add_file(set, path, error);
    if (status == MF_OK)
        status = sort_names(set, error);
    if (status)
        mf_safetensors_close(set);
    else
        *out = set;
    return status;
}

/* ---- sharded folders ---- */

/* The names of the shards, each once, in `files` (an object used as a set). */
static enum mf_status collect_shards(const json_t *map, const char *path, json_t *files,
                                     struct mf_error *error) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)map, name, value) {
        const char *file = json_string_value(value);
        size_t length = file ? strlen(file) : 0;
        const char *suffix = ".safetensors";
        if (!length || length > NAME_MAX || strchr(file, '/') || file[0] == '.' || length <= strlen(suffix) ||
            strcmp(file + length - strlen(suffix), suffix) != 0)
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                                "%s: weight_map: %s: not the name of a .safetensors file in this folder",
                                path, name);
        if (json_object_set_new(files, file, json_true()))
            return mf_error_errno(error, ENOMEM, "%s", path);
    }
    if (!json_object_size(files) || json_object_size(files) > MF_SAFETENSORS_MAX_FILES)
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: weight_map names %zu files (1 to %d)", path,
                            json_object_size(files), MF_SAFETENSORS_MAX_FILES);
    return MF_OK;
}

static enum mf_status check_index(const struct mf_safetensors *set, const json_t *map, const char *path,
                                  struct mf_error *error) {
    for (size_t i = 0; i < set->count; i++) {
        const struct mf_stored_tensor *tensor = &set->tensor[i];
        const char *claimed = json_string_value(json_object_get(map, tensor->name));
        if (!claimed)
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s of %s is not in the weight_map",
                                path, tensor->name, tensor->file);
        if (strcmp(strrchr(tensor->file, '/') + 1, claimed) != 0)
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s is in %s, the weight_map says %s",
                                path, tensor->name, tensor->file, claimed);
    }
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)map, name, value) if (!mf_safetensors_find(set, name)) return mf_error_set(
        error, MF_ERROR_BAD_WEIGHTS, "%s: tensor %s is not in %s", path, name, json_string_value(value));
    return MF_OK;
}

static enum mf_status open_sharded(const char *folder, const char *index_path, struct mf_safetensors **out,
                                   struct mf_error *error) {
    json_t *index = NULL, *files = json_object();
    struct mf_safetensors *set = NULL;
    struct mf_error cause;
    enum mf_status status = MF_OK;
    if (mf_json_read_file(index_path, INDEX_FILE_BYTES, &index, &cause)) {
        status =
            mf_error_set(error, cause.status == MF_ERROR_INVALID_JSON ? MF_ERROR_BAD_WEIGHTS : cause.status,
                         "%s", cause.message);
        goto done;
    }
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) {
        status = mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: weight_map is missing or not an object",
                              index_path);
        goto done;
    }
    status = files ? collect_shards(map, index_path, files, error)
                   : mf_error_errno(error, ENOMEM, "%s", index_path);
    if (status)
        goto done;
    set = new_set(json_object_size(files));
    if (!set) {
        status = mf_error_errno(error, ENOMEM, "%s", index_path);
        goto done;
    }
    const char *file;
    json_t *unused;
    json_object_foreach(files, file, unused) {
        char *path = mf_path_join(folder, file);
        status = path ? add_file(set, path, error) : mf_error_errno(error, ENOMEM, "%s", file);
        free(path);
        if (status)
            goto done;
    }
    status = sort_names(set, error);
    if (status == MF_OK)
        status = check_index(set, map, index_path, error);
    if (status == MF_OK) {
        *out = set;
        set = NULL;
    }
done:
    mf_safetensors_close(set);
    json_decref(files);
    json_decref(index);
    return status;
}

enum mf_status mf_safetensors_open_folder(const char *folder, struct mf_safetensors **out,
                                          struct mf_error *error) {
    *out = NULL;
    char *single = mf_path_join(folder, "model.safetensors");
    char *index = mf_path_join(folder, "model.safetensors.index.json");
    enum mf_status status;
    if (!single || !index)
        status = mf_error_errno(error, ENOMEM, "%s", folder);
    else if (mf_path_exists(single))
        status = mf_safetensors_open_file(single, out, error);
    else if (mf_path_exists(index))
        status = open_sharded(folder, index, out, error);
    else
        status =
            mf_error_set(error, MF_ERROR_MODEL_INCOMPLETE,
                         "%s: neither model.safetensors nor model.safetensors.index.json is there; save the "
                         "model with save_pretrained (safetensors) or download it completely",
                         folder);
    free(single);
    free(index);
    return status;
}

/* ---- what was read ---- */

void mf_safetensors_close(struct mf_safetensors *set) {
    if (!set)
        return;
    for (size_t i = 0; i < set->file_count; i++) {
        struct mapped_file *file = &set->file[i];
        if (file->data)
            munmap((void *)file->data, file->size);
        json_decref(file->header);
        free(file->path);
    }
    free(set->file);
    free(set->tensor);
    free(set);
}

size_t mf_safetensors_count(const struct mf_safetensors *set) {
    return set->count;
}

const struct mf_stored_tensor *mf_safetensors_at(const struct mf_safetensors *set, size_t index) {
    return &set->tensor[index];
}

const struct mf_stored_tensor *mf_safetensors_find(const struct mf_safetensors *set, const char *name) {
    struct mf_stored_tensor key = {.name = name};
    return set->count ? bsearch(&key, set->tensor, set->count, sizeof key, by_name) : NULL;
}

void mf_safetensors_release(const struct mf_stored_tensor *tensor) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)tensor->data;
    const uintptr_t first = (start + page - 1) / page * page, end = (start + tensor->bytes) / page * page;
    char *data = (char *)tensor->data;
    if (first < end)
        (void)madvise(data + (first - start), end - first, MADV_DONTNEED); /* whole pages; only a hint */
}

void mf_stored_values(const struct mf_stored_tensor *tensor, int64_t first, int64_t count, float *value) {
    const char *data = tensor->data;
    if (tensor->dtype == MF_F32) {
        memcpy(value, data + first * 4, (size_t)count * 4);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, data + (first + i) * 2, sizeof bits);
        value[i] = tensor->dtype == MF_BF16 ? mf_bf16_to_f32(bits) : mf_f16_to_f32(bits);
    }
}

const char *mf_safetensors_metadata(const struct mf_safetensors *set, const char *key) {
    return json_string_value(json_object_get(json_object_get(set->file[0].header, "__metadata__"), key));
}
