#include "providers/merge.h"

#include "providers/models/decoder.h"
#include "providers/models/weight_names.h"

#include <stdlib.h>
#include <string.h>

static enum mf_status out_of_memory(const char *what, struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "%s: out of memory", what);
    return MF_ERROR_OUT_OF_MEMORY;
}

/* What a folder may hold although the model does not compute with it (models/model.c knows the same). */
static bool unused(const struct mf_architecture *architecture, const char *stored) {
    static const char suffix[] = ".rotary_emb.inv_freq";
    char buffer[MF_WEIGHT_NAME_BYTES];
    const char *name = mf_weight_name(architecture, stored, buffer);
    const size_t length = strlen(name);
    return (length >= sizeof suffix && !strcmp(name + length - (sizeof suffix - 1), suffix)) ||
           (architecture->tied_embeddings && !strcmp(name, "lm_head.weight"));
}

/* "x.weight" belongs to module "x". */
static const struct mf_weight_delta *find_delta(const struct mf_merge *merge, const char *stored) {
    static const char suffix[] = ".weight";
    const struct mf_export_options *options = merge->options;
    char buffer[MF_WEIGHT_NAME_BYTES];
    const char *name = mf_weight_name(&merge->architecture, stored, buffer);
    for (size_t i = 0; i < options->deltas; i++) {
        const size_t length = strlen(options->delta[i].module);
        if (!strncmp(name, options->delta[i].module, length) && !strcmp(name + length, suffix))
            return &options->delta[i];
    }
    return NULL;
}

static const struct mf_weight_value *find_value(const struct mf_merge *merge, const char *stored) {
    const struct mf_export_options *options = merge->options;
    char buffer[MF_WEIGHT_NAME_BYTES];
    const char *name = mf_weight_name(&merge->architecture, stored, buffer);
    for (size_t i = 0; i < options->values; i++)
        if (!strcmp(options->value[i].name, name))
            return &options->value[i];
    return NULL;
}

/* `name` is what is written of `stored`: its own, but for a head that is not tied any more. */
static enum mf_status add_weight(struct mf_merge *merge, const struct mf_stored_tensor *stored,
                                 const char *name, struct mf_error *error) {
    int64_t elements = 1;
    for (int32_t i = 0; i < stored->rank; i++)
        elements *= stored->dim[i];
    const bool carried = mf_weight_is_carried(&merge->architecture, stored->name); /* images have more axes */
    if (!stored->floating || stored->rank < 1 || (stored->rank > 2 && !carried) || elements < 1)
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH,
                            "%s: %s is no vector or matrix of F32, F16 or BF16", stored->file, stored->name);
    const int64_t columns = stored->dim[stored->rank - 1];
    const struct mf_weight_delta *delta = find_delta(merge, name);
    const struct mf_weight_value *value = find_value(merge, name);
    if (delta && (stored->rank != 2 || delta->output_features != stored->dim[0] ||
                  delta->input_features != stored->dim[1]))
        return mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH,
                            "the adapter of '%s' is for a weight (%lld, %lld), which %s does not hold",
                            delta->module, (long long)delta->output_features,
                            (long long)delta->input_features, stored->file);
    bool fits = !value || value->rank == stored->rank;
    for (int32_t i = 0; value && fits && i < stored->rank; i++)
        fits = value->dim[i] == stored->dim[i];
    if (!fits)
        return mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH,
                            "%s: what was trained of it has another shape than it has in %s", name,
                            stored->file);
    merge->weight[merge->count++] = (struct mf_merge_weight){
        name, stored, delta, value ? value->value : NULL, elements / columns, columns};
    merge->elements += elements;
    return MF_OK;
}

static enum mf_status check_deltas(const struct mf_merge *merge, struct mf_error *error) {
    const struct mf_export_options *options = merge->options;
    for (size_t i = 0; i < options->deltas; i++) {
        bool found = false;
        for (size_t j = 0; j < merge->count && !found; j++)
            found = merge->weight[j].delta == &options->delta[i];
        if (!found)
            return mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH,
                                "%s: there is no weight of the module '%s' to merge its adapter into",
                                options->folder, options->delta[i].module);
    }
    for (size_t i = 0; i < options->values; i++) {
        bool found = false;
        for (size_t j = 0; j < merge->count && !found; j++)
            found = merge->weight[j].value == options->value[i].value;
        if (!found)
            return mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH,
                                "%s: there is no weight '%s' in the place of which trained values could be "
                                "written",
                                options->folder, options->value[i].name);
    }
    return MF_OK;
}

/* The head of a model whose head was the table of tokens: what that was, unless it was trained. */
static enum mf_status add_untied_head(struct mf_merge *merge, struct mf_error *error) {
    char name[MF_DECODER_NAME_BYTES], old[MF_WEIGHT_NAME_BYTES];
    mf_decoder_embedding_name(&merge->architecture, name);
    const struct mf_stored_tensor *table = mf_safetensors_find(merge->file, name);
    if (!table)
        table = mf_safetensors_find(merge->file, mf_weight_old_name(&merge->architecture, name, old));
    if (!table)
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "%s: there is no %s", merge->options->folder,
                            name);
    return add_weight(merge, table, "lm_head.weight", error);
}

enum mf_status mf_merge_open(const struct mf_export_options *options, bool text_only, struct mf_merge *merge,
                             struct mf_error *error) {
    *merge = (struct mf_merge){.options = options};
    enum mf_status status = MF_OK;
    if (options->architecture)
        merge->architecture = *options->architecture;
    else
        status = mf_architecture_read(options->folder, &merge->architecture, error);
    if (status == MF_OK)
        status = mf_safetensors_open_folder(options->folder, &merge->file, error);
    if (status != MF_OK)
        return status;
    const size_t count = mf_safetensors_count(merge->file);
    merge->weight = calloc(count + 2, sizeof *merge->weight);
    if (!merge->weight)
        return out_of_memory(options->folder, error);
    int64_t widest = 1;
    for (size_t i = 0; i < count && status == MF_OK; i++) {
        const struct mf_stored_tensor *stored = mf_safetensors_at(merge->file, i);
        if (unused(&merge->architecture, stored->name) ||
            (text_only && mf_weight_is_carried(&merge->architecture, stored->name)))
            continue;
        status = add_weight(merge, stored, stored->name, error);
        if (status == MF_OK && merge->weight[merge->count - 1].columns > widest)
            widest = merge->weight[merge->count - 1].columns;
    }
    if (status == MF_OK && mf_merge_unties(merge))
        status = add_untied_head(merge, error);
    if (status == MF_OK)
        status = check_deltas(merge, error);
    if (status == MF_OK && !(merge->row = malloc((size_t)widest * sizeof *merge->row)))
        status = out_of_memory(options->folder, error);
    return status;
}

bool mf_merge_unties(const struct mf_merge *merge) {
    return merge->options->untie_head && merge->architecture.tied_embeddings;
}

void mf_merge_close(struct mf_merge *merge) {
    mf_safetensors_close(merge->file);
    free(merge->weight);
    free(merge->row);
    *merge = (struct mf_merge){0};
}

int64_t mf_merge_batch_rows(int64_t rows, int64_t columns) {
    const int64_t batch = MF_MERGE_BATCH_ELEMENTS / columns;
    return batch < 1 ? 1 : batch > rows ? rows : batch;
}

void mf_merge_rows(struct mf_merge *merge, size_t index, int64_t first, int64_t rows, float *value) {
    const struct mf_merge_weight *weight = &merge->weight[index];
    const struct mf_weight_delta *delta = weight->delta;
    const int64_t columns = weight->columns;
    if (weight->value)
        memcpy(value, weight->value + first * columns, (size_t)(rows * columns) * sizeof *value);
    else
        mf_stored_values(weight->stored, first * columns, rows * columns, value);
    for (int64_t row = 0; delta && row < rows; row++, value += columns) {
        const float *b = delta->b + (first + row) * delta->rank;
        memset(merge->row, 0, (size_t)columns * sizeof *merge->row);
        for (int64_t r = 0; r < delta->rank; r++) {
            const float *a = delta->a + r * columns;
            for (int64_t k = 0; k < columns; k++)
                merge->row[k] += b[r] * a[k];
        }
        for (int64_t k = 0; k < columns; k++)
            value[k] += delta->scale * merge->row[k];
    }
}

enum mf_status mf_merge_proceed(struct mf_merge *merge, int64_t elements, struct mf_error *error) {
    const struct mf_export_options *options = merge->options;
    merge->done += elements;
    if (options->proceed &&
        !options->proceed(options->argument, (double)merge->done / (double)merge->elements))
        return mf_error_set(error, MF_ERROR_CANCELLED, "cancelled while writing the merged model");
    return MF_OK;
}
