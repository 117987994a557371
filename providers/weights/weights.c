#include "providers/weights/weights.h"

#include "kernels/tensor.h"
#include "providers/weights/gguf.h"
#include "providers/weights/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One of the two. */
struct mf_weights {
    struct mf_gguf *gguf;
    struct mf_safetensors *safetensors;
};

static bool begins_as_gguf(const char *path) {
    char magic[4] = "";
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    const bool is = file >= 0 && read(file, magic, sizeof magic) == sizeof magic && !memcmp(magic, "GGUF", 4);
    if (file >= 0)
        close(file);
    return is;
}

enum mf_status mf_weights_open(const char *path, struct mf_weights **out, struct mf_error *error) {
    struct stat about;
    struct mf_weights *weights = calloc(1, sizeof *weights);
    enum mf_status status;
    *out = NULL;
    if (!weights)
        return mf_error_errno(error, ENOMEM, "%s", path);
    if (stat(path, &about))
        status = mf_error_set(error, MF_ERROR_MODEL_NOT_FOUND, "%s: %s", path, strerror(errno));
    else if (S_ISDIR(about.st_mode))
        status = mf_safetensors_open_folder(path, &weights->safetensors, error);
    else if (begins_as_gguf(path))
        status = mf_gguf_open(path, &weights->gguf, error);
    else
        status = mf_safetensors_open_file(path, &weights->safetensors, error);
    if (status == MF_OK)
        *out = weights;
    else
        free(weights);
    return status;
}

void mf_weights_close(struct mf_weights *weights) {
    if (!weights)
        return;
    mf_gguf_close(weights->gguf);
    mf_safetensors_close(weights->safetensors);
    free(weights);
}

size_t mf_weights_count(const struct mf_weights *weights) {
    return weights->gguf ? mf_gguf_count(weights->gguf) : mf_safetensors_count(weights->safetensors);
}

static struct mf_weight row_at(const struct mf_weights *weights, size_t index) {
    struct mf_weight row = {0};
    if (index >= mf_weights_count(weights))
        return row;
    if (weights->gguf) {
        const struct mf_gguf_tensor *tensor = mf_gguf_at(weights->gguf, index);
        row.name = tensor->name;
        row.type = mf_gguf_type_name(tensor->type);
        row.rank = (uint32_t)tensor->rank;
        for (int32_t i = 0; i < tensor->rank; i++)
            row.dim[i] = tensor->dim[i];
    } else {
        const struct mf_stored_tensor *tensor = mf_safetensors_at(weights->safetensors, index);
        row.name = tensor->name;
        row.type = tensor->dtype_name;
        /* What has more dimensions than the ABI shows is shown as a matrix of its rows. */
        const int32_t folded = tensor->rank > MF_WEIGHT_RANK ? tensor->rank - MF_WEIGHT_RANK : 0;
        row.rank = (uint32_t)(tensor->rank - folded);
        for (int32_t i = 0; i < tensor->rank; i++)
            if (i <= folded)
                row.dim[0] = (i ? row.dim[0] : 1) * tensor->dim[i];
            else
                row.dim[i - folded] = tensor->dim[i];
    }
    return row;
}

void mf_weights_at(const struct mf_weights *weights, size_t index, struct mf_weight *out) {
    struct mf_weight row = row_at(weights, index);
    const uint32_t size = out->size < sizeof row ? out->size : (uint32_t)sizeof row;
    row.size = out->size;
    memcpy(out, &row, size);
}

int64_t mf_weights_find(const struct mf_weights *weights, const char *name) {
    if (weights->gguf) {
        const struct mf_gguf_tensor *found = mf_gguf_find(weights->gguf, name);
        return found ? found - mf_gguf_at(weights->gguf, 0) : -1;
    }
    const struct mf_stored_tensor *found = mf_safetensors_find(weights->safetensors, name);
    return found ? found - mf_safetensors_at(weights->safetensors, 0) : -1;
}

static bool read_stored(const struct mf_stored_tensor *tensor, int64_t first, int64_t count, float *value) {
    const size_t bytes = tensor->floating ? mf_dtype_bytes(tensor->dtype) : 0;
    const uint8_t *data = tensor->data;
    if (!bytes || first < 0 || count < 0 || (uint64_t)first > tensor->bytes / bytes ||
        (uint64_t)count > tensor->bytes / bytes - (uint64_t)first)
        return false;
    for (int64_t i = 0; i < count; i++) {
        uint16_t half;
        if (tensor->dtype == MF_F32) {
            memcpy(&value[i], data + (first + i) * 4, sizeof value[i]);
            continue;
        }
        memcpy(&half, data + (first + i) * 2, sizeof half);
        value[i] = tensor->dtype == MF_BF16 ? mf_bf16_to_f32(half) : mf_f16_to_f32(half);
    }
    return true;
}

enum mf_status mf_weights_read(const struct mf_weights *weights, size_t index, int64_t first, int64_t count,
                               float *value, struct mf_error *error) {
    const struct mf_weight row = row_at(weights, index);
    const bool done =
        row.name &&
        (weights->gguf ? mf_gguf_read(mf_gguf_at(weights->gguf, index), first, count, value)
                       : read_stored(mf_safetensors_at(weights->safetensors, index), first, count, value));
    return done ? MF_OK
                : mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                               "%s (%s): elements %lld to %lld cannot be read as numbers",
                               row.name ? row.name : "there is no such weight", row.type ? row.type : "-",
                               (long long)first, (long long)(first + count - 1));
}

bool mf_weights_text(const struct mf_weights *weights, const char *key, const char **text, size_t *bytes) {
    struct mf_gguf_text found;
    if (weights->gguf) {
        if (!mf_gguf_string(weights->gguf, key, &found))
            return false;
        *text = found.data;
        *bytes = found.length;
        return true;
    }
    *text = mf_safetensors_metadata(weights->safetensors, key);
    *bytes = *text ? strlen(*text) : 0;
    return *text != NULL;
}

bool mf_weights_number(const struct mf_weights *weights, const char *key, double *value) {
    int64_t integer;
    if (!weights->gguf)
        return false;
    if (mf_gguf_integer(weights->gguf, key, &integer)) {
        *value = (double)integer;
        return true;
    }
    return mf_gguf_number(weights->gguf, key, value);
}
