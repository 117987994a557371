#include "providers/export.h"

#include "common/files.h"
#include "common/json.h"
#include "providers/folder.h"
#include "providers/merge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES = 16 << 20 };

static enum mf_status out_of_memory(const char *what, struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "%s: out of memory", what);
    return MF_ERROR_OUT_OF_MEMORY;
}

/* The dtype of a weight that is stored in f32. */
static enum mf_dtype dtype_of_wide(const struct mf_merge *merge) {
    bool f16 = false;
    for (size_t i = 0; i < merge->count; i++) {
        if (merge->weight[i].stored->dtype == MF_BF16)
            return MF_BF16;
        f16 = f16 || merge->weight[i].stored->dtype == MF_F16;
    }
    return f16 ? MF_F16 : MF_BF16;
}

static enum mf_dtype written_dtype(const struct mf_merge_weight *weight, enum mf_export_precision precision,
                                   enum mf_dtype wide) {
    if (precision == MF_EXPORT_F32)
        return MF_F32;
    if (precision == MF_EXPORT_STORED)
        return weight->stored->dtype;
    return weight->stored->dtype == MF_F32 ? wide : weight->stored->dtype;
}

/* False when one is not finite. */
static bool narrow_values(enum mf_dtype dtype, const float *value, size_t count, uint16_t *narrow) {
    bool finite = true;
    for (size_t i = 0; i < count; i++) {
        narrow[i] = dtype == MF_BF16 ? mf_f32_to_bf16(value[i]) : mf_f32_to_f16(value[i]);
        finite = finite && isfinite(dtype == MF_BF16 ? mf_bf16_to_f32(narrow[i]) : mf_f16_to_f32(narrow[i]));
    }
    return finite;
}

static enum mf_status write_weight(struct mf_merge *merge, size_t index, enum mf_dtype dtype,
                                   struct mf_safetensors_writer *writer, struct mf_error *error) {
    const struct mf_merge_weight *weight = &merge->weight[index];
    const int64_t batch = mf_merge_batch_rows(weight->rows, weight->columns);
    float *value = malloc((size_t)(batch * weight->columns) * sizeof *value);
    uint16_t *narrow = malloc((size_t)(batch * weight->columns) * sizeof *narrow);
    enum mf_status status = value && narrow ? MF_OK : out_of_memory(weight->name, error);
    for (int64_t row = 0; row < weight->rows && status == MF_OK; row += batch) {
        const int64_t rows = weight->rows - row < batch ? weight->rows - row : batch;
        const size_t count = (size_t)(rows * weight->columns);
        mf_merge_rows(merge, index, row, rows, value);
        if (dtype == MF_F32)
            status = mf_safetensors_write(writer, value, count * sizeof *value, error);
        else if (narrow_values(dtype, value, count, narrow))
            status = mf_safetensors_write(writer, narrow, count * sizeof *narrow, error);
        else
            status = mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: the merged weight is not finite in %s",
                                  weight->name, mf_dtype_name(dtype));
        if (status == MF_OK)
            status = mf_merge_proceed(merge, (int64_t)count, error);
    }
    free(narrow);
    free(value);
    return status;
}

static enum mf_status write_weights(struct mf_merge *merge, enum mf_export_precision precision,
                                    enum mf_dtype wide, const char *folder, struct mf_error *error) {
    struct mf_safetensors_writer *writer = NULL;
    struct mf_safetensors_entry *entry = calloc(merge->count + 1, sizeof *entry);
    char *path = mf_path_join(folder, "model.safetensors");
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    enum mf_status status = entry && path && metadata ? MF_OK : out_of_memory(folder, error);
    for (size_t i = 0; status == MF_OK && i < merge->count; i++) {
        const struct mf_stored_tensor *stored = merge->weight[i].stored;
        entry[i] = (struct mf_safetensors_entry){.name = merge->weight[i].name,
                                                 .dtype = written_dtype(&merge->weight[i], precision, wide),
                                                 .rank = stored->rank};
        memcpy(entry[i].dim, stored->dim, sizeof stored->dim);
    }
    if (status == MF_OK)
        status = mf_safetensors_create(path, entry, merge->count, metadata, &writer, error);
    for (size_t i = 0; status == MF_OK && i < merge->count; i++)
        status = write_weight(merge, i, entry[i].dtype, writer, error);
    if (status == MF_OK)
        status = mf_safetensors_finish(writer, error);
    else
        mf_safetensors_abandon(writer);
    json_decref(metadata);
    free(path);
    free(entry);
    return status;
}

/* The base's config.json with the dtype of the new weights, under the name that it has there; MF_DTYPES: the
 * weights have that which it says. */
static enum mf_status write_config(const char *from, const char *to, enum mf_dtype dtype, bool untied,
                                   struct mf_error *error) {
    json_t *config = NULL;
    char *source = mf_path_join(from, "config.json"), *target = mf_path_join(to, "config.json"), *text = NULL;
    enum mf_status status =
        source && target ? mf_json_read_file(source, CONFIG_BYTES, &config, error) : out_of_memory(to, error);
    if (status != MF_OK)
        goto done;
    const char *key = json_object_get(config, "dtype") ? "dtype" : "torch_dtype";
    const char *name = dtype == MF_F32 ? "float32" : dtype == MF_F16 ? "float16" : "bfloat16";
    bool whole = dtype == MF_DTYPES || json_object_set_new(config, key, json_string(name)) == 0;
    if (untied)
        whole = whole && json_object_set_new(config, "tie_word_embeddings", json_false()) == 0;
    json_t *text_part = json_object_get(config, "text_config"); /* of a model of several parts */
    if (untied && text_part)
        whole = whole && json_object_set_new(text_part, "tie_word_embeddings", json_false()) == 0;
    if (whole)
        text = json_dumps(config, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    status =
        text ? mf_file_write_atomic(target, text, strlen(text), 0644, error) : out_of_memory(target, error);
done:
    json_decref(config);
    free(text);
    free(source);
    free(target);
    return status;
}

static enum mf_status fill(struct mf_merge *merge, enum mf_export_precision precision, const char *made,
                           struct mf_error *error) {
    const enum mf_dtype wide = dtype_of_wide(merge);
    const enum mf_dtype said = precision == MF_EXPORT_F32      ? MF_F32
                               : precision == MF_EXPORT_STORED ? MF_DTYPES
                                                               : wide;
    const char *folder = merge->options->folder;
    enum mf_status status;
    if ((status = write_weights(merge, precision, wide, made, error)) ||
        (status = mf_folder_copy(folder, "generation_config.json", made, error)) ||
        (status = mf_folder_copy(folder, "preprocessor_config.json", made, error)) ||
        (status = mf_folder_copy(folder, "processor_config.json", made, error)) ||
        (status = mf_folder_copy_tokenizer(folder, made, error)) ||
        (status = write_config(folder, made, said, mf_merge_unties(merge), error)))
        return status;
    return mf_directory_sync(made, error);
}

enum mf_status mf_export_huggingface(const struct mf_export_options *options,
                                     enum mf_export_precision precision, const char *output,
                                     struct mf_error *error) {
    char made[4096];
    if ((size_t)snprintf(made, sizeof made, "%s.partial", output) >= sizeof made)
        return mf_error_set(error, MF_ERROR_IO, "%s: the path is too long", output);
    struct mf_merge merge;
    enum mf_status status = mf_merge_open(options, false, &merge, error);
    if (status == MF_OK)
        status = mf_tree_remove(made, error);
    if (status == MF_OK)
        status = mf_directory_create(made, 0755, error);
    if (status == MF_OK) {
        status = fill(&merge, precision, made, error);
        if (status == MF_OK)
            status = mf_folder_replace(made, output, error);
        if (status != MF_OK)
            mf_tree_remove(made, NULL);
    }
    mf_merge_close(&merge);
    return status;
}
