#include "providers/made_folder.h"

#include "common/files.h"
#include "providers/convert.h"
#include "providers/folder.h"
#include "providers/weights/safetensors.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_ELEMENTS = 1 << 18, MAX_FILES = 64 };

struct mf_made_folder {
    struct mf_made_folder *next;
    char *path;
    char *of; /* the GGUF file that it was made of; NULL: of a provider's own source */
};

static enum mf_status out_of_memory(struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "a model folder of a provider: out of memory");
    return MF_ERROR_OUT_OF_MEMORY;
}

static void forget(struct mf_made_folder *made) {
    if (made) {
        if (made->path)
            mf_tree_remove(made->path, NULL);
        free(made->path);
        free(made->of);
        free(made);
    }
}

/* An empty folder, not yet one of the context's. */
static enum mf_status begin(struct mf_provider_context *context, const char *of, struct mf_made_folder **out,
                            struct mf_error *error) {
    const char *below = context->scratch ? context->scratch : getenv("TMPDIR");
    struct mf_made_folder *made = calloc(1, sizeof *made);
    *out = NULL;
    if (!made)
        return out_of_memory(error);
    if (!below || !*below)
        below = "/tmp";
    enum mf_status status = mf_directory_create(below, 0700, error);
    char *path = mf_path_join(below, "modelforge-model-XXXXXX");
    made->of = of ? strdup(of) : NULL;
    if (status == MF_OK && (!path || (of && !made->of)))
        status = out_of_memory(error);
    if (status == MF_OK && !mkdtemp(path))
        status = mf_error_errno(error, errno, "%s: a folder for a model", below);
    if (status != MF_OK) {
        free(path);
        forget(made);
        return status;
    }
    made->path = path;
    *out = made;
    return MF_OK;
}

/* Gives the folder to the context, or removes it. */
static enum mf_status settle(struct mf_provider_context *context, struct mf_made_folder *made,
                             enum mf_status status, const char **path) {
    if (status != MF_OK) {
        forget(made);
        return status;
    }
    made->next = context->made;
    context->made = made;
    *path = made->path;
    return MF_OK;
}

/* ---- of a provider's source ---- */

static const struct mf_folder_file *file_at(const struct mf_folder_source *source, uint64_t index) {
    return (const struct mf_folder_file *)(const void *)((const char *)source->file +
                                                         index * source->file_stride);
}

static const struct mf_folder_weight *weight_at(const struct mf_folder_source *source, uint64_t index) {
    return (const struct mf_folder_weight *)(const void *)((const char *)source->weight +
                                                           index * source->weight_stride);
}

static enum mf_status check_weight(const struct mf_folder_weight *weight, struct mf_error *error) {
    bool usable = weight->name && *weight->name && weight->rank >= 1 && weight->rank <= MF_WEIGHT_RANK &&
                  weight->dtype <= MF_NUMBER_F16;
    for (uint32_t i = 0; usable && i < weight->rank; i++)
        usable = weight->dim[i] >= 1 && weight->dim[i] <= INT32_MAX;
    return usable ? MF_OK
                  : mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                                 "make_folder: the weight '%s' has no name, shape or dtype that there is",
                                 weight->name ? weight->name : "");
}

static enum mf_status check_source(const struct mf_folder_source *source, struct mf_error *error) {
    if (source->files > MAX_FILES || source->weights > MF_SAFETENSORS_MAX_TENSORS ||
        (source->files && (!source->file || source->file_stride < sizeof *source->file)) ||
        (source->weights && (!source->weight || source->weight_stride < sizeof *source->weight)) ||
        !source->read)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                            "make_folder: the source has no read(), or lists that cannot be");
    for (uint64_t i = 0; i < source->files; i++) {
        const struct mf_folder_file *file = file_at(source, i);
        if (!file->name || !*file->name || strchr(file->name, '/') || !strcmp(file->name, ".") ||
            !strcmp(file->name, "..") || (file->bytes && !file->data))
            return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                                "make_folder: '%s' is not the name of a file with data",
                                file->name ? file->name : "");
    }
    enum mf_status status = MF_OK;
    for (uint64_t i = 0; i < source->weights && status == MF_OK; i++)
        status = check_weight(weight_at(source, i), error);
    return status;
}

static enum mf_status write_files(const struct mf_folder_source *source, const char *folder,
                                  struct mf_error *error) {
    enum mf_status status = MF_OK;
    if (source->copy_from &&
        ((status = mf_folder_copy(source->copy_from, "config.json", folder, error)) ||
         (status = mf_folder_copy(source->copy_from, "generation_config.json", folder, error)) ||
         (status = mf_folder_copy_tokenizer(source->copy_from, folder, error))))
        return status;
    for (uint64_t i = 0; i < source->files && status == MF_OK; i++) {
        const struct mf_folder_file *file = file_at(source, i);
        char *path = mf_path_join(folder, file->name);
        status = path ? mf_file_write_atomic(path, file->bytes ? file->data : "", file->bytes, 0600, error)
                      : out_of_memory(error);
        free(path);
    }
    return status;
}

static bool narrow(enum mf_dtype dtype, const float *value, int64_t count, uint16_t *out) {
    bool finite = true;
    for (int64_t i = 0; i < count; i++) {
        out[i] = dtype == MF_BF16 ? mf_f32_to_bf16(value[i]) : mf_f32_to_f16(value[i]);
        finite = finite && isfinite(dtype == MF_BF16 ? mf_bf16_to_f32(out[i]) : mf_f16_to_f32(out[i]));
    }
    return finite;
}

static enum mf_status write_rows(const struct mf_folder_weight *weight, const float *value, int64_t count,
                                 struct mf_safetensors_writer *writer, struct mf_error *error) {
    const enum mf_dtype dtype = (enum mf_dtype)weight->dtype;
    if (dtype == MF_F32)
        return mf_safetensors_write(writer, value, (size_t)count * sizeof *value, error);
    uint16_t *half = malloc((size_t)count * sizeof *half);
    enum mf_status status = MF_OK;
    if (!half)
        status = out_of_memory(error);
    else if (!narrow(dtype, value, count, half))
        status = mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: a value is not finite in %s", weight->name,
                              mf_dtype_name(dtype));
    else
        status = mf_safetensors_write(writer, half, (size_t)count * sizeof *half, error);
    free(half);
    return status;
}

static enum mf_status write_weight(struct mf_provider_context *context, const struct mf_folder_source *source,
                                   uint64_t index, struct mf_safetensors_writer *writer,
                                   struct mf_error *error) {
    const struct mf_folder_weight *weight = weight_at(source, index);
    const int64_t columns = weight->dim[weight->rank - 1];
    int64_t rows = 1, batch = BATCH_ELEMENTS / columns;
    for (uint32_t i = 0; i + 1 < weight->rank; i++)
        rows *= weight->dim[i];
    batch = batch < 1 ? 1 : batch > rows ? rows : batch;
    float *value = malloc((size_t)(batch * columns) * sizeof *value);
    enum mf_status status = value ? MF_OK : out_of_memory(error);
    for (int64_t row = 0; row < rows && status == MF_OK; row += batch) {
        const int64_t count = (rows - row < batch ? rows - row : batch) * columns;
        error->status = MF_OK;
        if (context->cancelled && context->cancelled(context->argument))
            status = mf_error_set(error, MF_ERROR_CANCELLED, "cancelled while a model folder was made");
        else if (source->read(source->state, index, row * columns, count, value, error))
            status =
                error->status != MF_OK
                    ? error->status
                    : mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                                   "make_folder: read() failed for %s and did not say why", weight->name);
        else
            status = write_rows(weight, value, count, writer, error);
    }
    free(value);
    return status;
}

static enum mf_status write_weights(struct mf_provider_context *context,
                                    const struct mf_folder_source *source, const char *folder,
                                    struct mf_error *error) {
    struct mf_safetensors_writer *writer = NULL;
    struct mf_safetensors_entry *entry = calloc(source->weights + 1, sizeof *entry);
    char *path = mf_path_join(folder, "model.safetensors");
    enum mf_status status = entry && path ? MF_OK : out_of_memory(error);
    for (uint64_t i = 0; i < source->weights && status == MF_OK; i++) {
        const struct mf_folder_weight *weight = weight_at(source, i);
        entry[i] = (struct mf_safetensors_entry){
            .name = weight->name, .dtype = (enum mf_dtype)weight->dtype, .rank = (int32_t)weight->rank};
        memcpy(entry[i].dim, weight->dim, sizeof weight->dim);
    }
    if (status == MF_OK)
        status = mf_safetensors_create(path, entry, source->weights, NULL, &writer, error);
    for (uint64_t i = 0; i < source->weights && status == MF_OK; i++)
        status = write_weight(context, source, i, writer, error);
    if (status == MF_OK)
        status = mf_safetensors_finish(writer, error);
    else
        mf_safetensors_abandon(writer);
    free(path);
    free(entry);
    return status;
}

enum mf_status mf_made_folder_write(struct mf_provider_context *context,
                                    const struct mf_folder_source *source, const char **path,
                                    struct mf_error *error) {
    struct mf_made_folder *made = NULL;
    enum mf_status status = check_source(source, error);
    if (status == MF_OK && source->copy_from)
        status = mf_made_folders_allow(context, source->copy_from, error);
    if (status == MF_OK)
        status = begin(context, NULL, &made, error);
    if (status == MF_OK && (status = write_files(source, made->path, error)) == MF_OK)
        status = write_weights(context, source, made->path, error);
    return settle(context, made, status, path);
}

/* ---- of a GGUF file ---- */

enum mf_status mf_made_folder_of_gguf(struct mf_provider_context *context, const char *file,
                                      enum mf_dtype dtype, const char **path, struct mf_error *error) {
    struct mf_made_folder *made = context->made;
    struct mf_convert_result result;
    while (made && (!made->of || strcmp(made->of, file) != 0))
        made = made->next;
    if (made) {
        *path = made->path;
        return MF_OK;
    }
    enum mf_status status = mf_made_folders_allow(context, file, error);
    if (status == MF_OK)
        status = begin(context, file, &made, error);
    if (status == MF_OK) {
        const struct mf_convert_options options = {
            .gguf_path = file, .output_folder = made->path, .dtype = dtype};
        status = mf_convert_gguf(&options, &result, error);
    }
    return settle(context, made, status, path);
}

enum mf_status mf_made_folders_allow(const struct mf_provider_context *context, const char *path,
                                     struct mf_error *error) {
    if (!context || !context->allow)
        return MF_OK;
    for (const struct mf_made_folder *made = context->made; made; made = made->next)
        if (!strcmp(made->path, path))
            return MF_OK;
    return context->allow(context->allow_argument, path, error);
}

void mf_made_folders_remove(struct mf_provider_context *context) {
    while (context && context->made) {
        struct mf_made_folder *made = context->made;
        context->made = made->next;
        forget(made);
    }
}
