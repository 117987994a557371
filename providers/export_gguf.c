#include "providers/export.h"

#include "common/files.h"
#include "providers/export_tokenizer.h"
#include "providers/gguf_names.h"
#include "providers/gguf_rope.h"
#include "providers/merge.h"
#include "providers/models/weight_names.h"
#include "providers/weights/gguf_writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ggml's numbers of "mostly" this type. */
enum { FILE_TYPE_F16 = 1, FILE_TYPE_Q8_0 = 7, QUANTIZATION_VERSION = 2, QK = 32 };

static enum mf_status out_of_memory(const char *what, struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "%s: out of memory", what);
    return MF_ERROR_OUT_OF_MEMORY;
}

static enum mf_status refuse(const char *what, struct mf_error *error) {
    return mf_error_set(
        error, MF_ERROR_UNSUPPORTED_FIELD,
        "output: gguf: %s cannot be written as GGUF by this version; leave gguf out and write "
        "merged_16bit instead",
        what);
}

/* ---- what llama.cpp would compute otherwise ---- */

/* All layers but every so-many-th have windows: how many that is. */
static int32_t pattern_of(const struct mf_gguf_family *family, const struct mf_architecture *a) {
    for (int32_t i = 0; i < a->layers; i++)
        if (!a->windowed[i])
            return i + 1;
    return family->pattern;
}

static bool windows_fit(const struct mf_gguf_family *family, const struct mf_architecture *a) {
    const int32_t pattern = pattern_of(family, a);
    for (int32_t i = 0; i < a->layers; i++)
        if (family->windows == MF_GGUF_WINDOWS_PATTERN ? a->windowed[i] != ((i + 1) % pattern != 0)
            : family->windows == MF_GGUF_WINDOWS_ALL   ? a->windowed[i] != a->windowed[0]
                                                       : false)
            return false;
    return true;
}

/* The factor that llama.cpp has for the scores of such a model. */
static bool scale_fits(const struct mf_gguf_family *family, const struct mf_architecture *a) {
    const int32_t width =
        family->wide_layers && a->layers == family->wide_layers ? a->hidden / a->heads : a->head_dim;
    return fabs((double)a->attention_scale * sqrt(width) - 1) < 1e-5;
}

static bool caps_fit(const struct mf_gguf_family *family, const struct mf_architecture *a) {
    return (a->attention_soft_cap > 0) == family->soft_caps && (a->final_soft_cap > 0) == family->soft_caps;
}

static enum mf_status check_architecture(const struct mf_architecture *architecture, struct mf_error *error) {
    char what[80];
    snprintf(what, sizeof what, "the architecture %s", architecture->model_type);
    const struct mf_gguf_family *family = mf_gguf_family_of_type(architecture->model_type);
    if (!family)
        return refuse(what, error);
    if (!windows_fit(family, architecture))
        return refuse("a model whose layers with windows follow no pattern (layer_types)", error);
    const char *obstacle = mf_gguf_rope_obstacle(family, architecture);
    if (obstacle)
        return refuse(obstacle, error);
    if (!family->optional_biases &&
        (architecture->attention_bias != family->query_bias ||
         architecture->output_bias != family->all_biases || architecture->mlp_bias != family->all_biases))
        return refuse("a model with attention_bias or mlp_bias", error);
    if (!scale_fits(family, architecture))
        return refuse("a model with a query_pre_attn_scalar of its own", error);
    if (!caps_fit(family, architecture))
        return refuse(family->soft_caps ? "a model without attn_logit_softcapping or final_logit_softcapping"
                                        : "a model with attn_logit_softcapping or final_logit_softcapping",
                      error);
    return MF_OK;
}

enum mf_status mf_export_gguf_check(const char *folder, struct mf_error *error) {
    struct mf_architecture architecture;
    enum mf_status status;
    if ((status = mf_architecture_read(folder, &architecture, error)) ||
        (status = check_architecture(&architecture, error)))
        return status;
    return mf_export_tokenizer(folder, &architecture, NULL, error);
}

enum mf_status mf_export_gguf_check_untied(const char *folder, struct mf_error *error) {
    struct mf_architecture architecture;
    enum mf_status status = mf_architecture_read(folder, &architecture, error);
    if (status != MF_OK || !architecture.tied_embeddings)
        return status;
    const struct mf_gguf_family *family = mf_gguf_family_of_type(architecture.model_type);
    return family && family->tied_head
               ? refuse("a head apart from the table of tokens (modules_to_save)", error)
               : MF_OK;
}

/* The last part of the folder's path: what tools show as the model's name. */
static void put_name(const char *folder, struct mf_gguf_writer *writer) {
    char *real = realpath(folder, NULL);
    const char *slash = real ? strrchr(real, '/') : NULL;
    if (slash && slash[1])
        mf_gguf_put_string(writer, "general.name", slash + 1);
    free(real);
}

/* A number under the family's key. */
static void put_size(struct mf_gguf_writer *writer, const struct mf_gguf_family *family, const char *name,
                     int32_t value) {
    char key[80];
    snprintf(key, sizeof key, "%s.%s", family->name, name);
    mf_gguf_put_integer(writer, key, (uint32_t)value);
}

static void put_real(struct mf_gguf_writer *writer, const struct mf_gguf_family *family, const char *name,
                     double value) {
    char key[80];
    snprintf(key, sizeof key, "%s.%s", family->name, name);
    mf_gguf_put_number(writer, key, (float)value);
}

static void put_description(const struct mf_gguf_family *family, const struct mf_architecture *a,
                            enum mf_gguf_type type, struct mf_gguf_writer *writer) {
    put_size(writer, family, "block_count", a->layers);
    put_size(writer, family, "context_length", mf_gguf_context(family, a));
    put_size(writer, family, "embedding_length", a->hidden);
    put_size(writer, family, "feed_forward_length", a->intermediate);
    put_size(writer, family, "attention.head_count", a->heads);
    put_size(writer, family, "attention.head_count_kv", a->key_value_heads);
    put_size(writer, family, "attention.key_length", a->head_dim);
    put_size(writer, family, "attention.value_length", a->head_dim);
    put_real(writer, family, mf_gguf_epsilon_key(family), a->norm_epsilon);
    if (family->windows != MF_GGUF_WINDOWS_NONE) /* 0 where phi3 has none */
        put_size(writer, family, "attention.sliding_window", a->window);
    if (family->windows == MF_GGUF_WINDOWS_PATTERN && pattern_of(family, a) != family->pattern)
        put_size(writer, family, "attention.sliding_window_pattern", pattern_of(family, a));
    if (family->soft_caps) {
        put_real(writer, family, "attn_logit_softcapping", a->attention_soft_cap);
        put_real(writer, family, "final_logit_softcapping", a->final_soft_cap);
    }
    mf_gguf_put_rope(family, a, writer);
    put_size(writer, family, "rope.dimension_count", a->rope.columns);
    put_size(writer, family, "vocab_size", a->vocabulary);
    mf_gguf_put_integer(writer, "general.file_type", type == MF_GGUF_Q8_0 ? FILE_TYPE_Q8_0 : FILE_TYPE_F16);
    if (type == MF_GGUF_Q8_0)
        mf_gguf_put_integer(writer, "general.quantization_version", QUANTIZATION_VERSION);
}

/* ---- weights ---- */

static enum mf_gguf_type written_type(const struct mf_merge_weight *weight, enum mf_gguf_type type) {
    if (weight->stored->rank == 1)
        return MF_GGUF_F32;
    return type == MF_GGUF_Q8_0 && weight->columns % QK ? MF_GGUF_F16 : type;
}

static enum mf_status declare_weight(const struct mf_gguf_family *family, const struct mf_merge *merge,
                                     const struct mf_merge_weight *weight, enum mf_gguf_type type,
                                     struct mf_gguf_writer *writer, struct mf_error *error) {
    char name[MF_GGUF_NAME_BYTES], text[MF_WEIGHT_NAME_BYTES];
    if (!mf_gguf_name_of(family, mf_weight_text_name(&merge->architecture, weight->name, text), name))
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "%s: %s has no name in GGUF",
                            weight->stored->file, weight->name);
    return mf_gguf_declare(writer, name, written_type(weight, type), weight->stored->rank,
                           weight->stored->dim, error);
}

/* Heads whose rows change places; 0: rows stay. */
static int64_t permuted_heads(const struct mf_gguf_family *family, const struct mf_architecture *architecture,
                              const char *name) {
    return !family->interleaved       ? 0
           : strstr(name, ".q_proj.") ? architecture->heads
           : strstr(name, ".k_proj.") ? architecture->key_value_heads
                                      : 0;
}

static bool is_norm(const char *name) {
    static const char end[] = "norm.weight";
    const size_t length = strlen(name);
    return length >= sizeof end - 1 && !strcmp(name + length - (sizeof end - 1), end);
}

/* A vector whole: rows of a bias change places as those of its weight do. */
static enum mf_status write_vector(struct mf_merge *merge, size_t index, int64_t heads,
                                   struct mf_gguf_writer *writer, struct mf_error *error) {
    const struct mf_merge_weight *weight = &merge->weight[index];
    const struct mf_gguf_family *family = mf_gguf_family_of_type(merge->architecture.model_type);
    const int64_t count = weight->columns;
    const float offset = family->unit_norms && is_norm(weight->name) ? 1 : 0;
    float *value = malloc((size_t)(2 * count) * sizeof *value);
    if (!value)
        return out_of_memory(weight->name, error);
    float *ordered = value + count;
    mf_merge_rows(merge, index, 0, 1, value);
    for (int64_t i = 0; i < count; i++)
        ordered[i] = offset + value[heads ? mf_gguf_row_to_huggingface(count, heads, i) : i];
    enum mf_status status = mf_gguf_write(writer, ordered, (size_t)count, error);
    free(value);
    return status ? status : mf_merge_proceed(merge, count, error);
}

static enum mf_status write_matrix(struct mf_merge *merge, size_t index, int64_t heads,
                                   struct mf_gguf_writer *writer, struct mf_error *error) {
    const struct mf_merge_weight *weight = &merge->weight[index];
    const int64_t batch = mf_merge_batch_rows(weight->rows, weight->columns);
    float *value = malloc((size_t)(batch * weight->columns) * sizeof *value);
    enum mf_status status = value ? MF_OK : out_of_memory(weight->name, error);
    for (int64_t row = 0; row < weight->rows && status == MF_OK; row += batch) {
        const int64_t rows = weight->rows - row < batch ? weight->rows - row : batch;
        if (!heads)
            mf_merge_rows(merge, index, row, rows, value);
        for (int64_t i = 0; heads && i < rows; i++)
            mf_merge_rows(merge, index, mf_gguf_row_to_huggingface(weight->rows, heads, row + i), 1,
                          value + i * weight->columns);
        status = mf_gguf_write(writer, value, (size_t)(rows * weight->columns), error);
        if (status == MF_OK)
            status = mf_merge_proceed(merge, rows * weight->columns, error);
    }
    free(value);
    return status;
}

static enum mf_status write_weight(struct mf_merge *merge, size_t index, struct mf_gguf_writer *writer,
                                   struct mf_error *error) {
    const struct mf_stored_tensor *stored = merge->weight[index].stored;
    const struct mf_gguf_family *family = mf_gguf_family_of_type(merge->architecture.model_type);
    const int64_t heads = permuted_heads(family, &merge->architecture, merge->weight[index].name);
    return stored->rank == 1 ? write_vector(merge, index, heads, writer, error)
                             : write_matrix(merge, index, heads, writer, error);
}

static enum mf_status fill(struct mf_merge *merge, enum mf_gguf_type type, struct mf_gguf_writer *writer,
                           struct mf_error *error) {
    const struct mf_gguf_family *family = mf_gguf_family_of_type(merge->architecture.model_type);
    struct mf_gguf_factors factors[MF_GGUF_FACTOR_TENSORS];
    const size_t count = mf_gguf_factors_of(&merge->architecture.rope, factors);
    mf_gguf_put_string(writer, "general.architecture", family->name);
    mf_gguf_put_string(writer, "general.type", "model");
    put_name(merge->options->folder, writer);
    put_description(family, &merge->architecture, type, writer);
    enum mf_status status = mf_export_tokenizer(merge->options->folder, &merge->architecture, writer, error);
    for (size_t i = 0; i < count && status == MF_OK; i++)
        status = mf_gguf_declare(writer, factors[i].name, MF_GGUF_F32, 1, &factors[i].count, error);
    for (size_t i = 0; i < merge->count && status == MF_OK; i++)
        status = declare_weight(family, merge, &merge->weight[i], type, writer, error);
    if (status == MF_OK)
        status = mf_gguf_begin(writer, error);
    for (size_t i = 0; i < count && status == MF_OK; i++)
        status = mf_gguf_write(writer, factors[i].value, (size_t)factors[i].count, error);
    for (size_t i = 0; i < merge->count && status == MF_OK; i++)
        status = write_weight(merge, i, writer, error);
    return status;
}

enum mf_status mf_export_gguf(const struct mf_export_options *options, enum mf_gguf_type type,
                              const char *path, struct mf_error *error) {
    struct mf_merge merge;
    struct mf_gguf_writer *writer = NULL;
    enum mf_status status = mf_export_gguf_check(options->folder, error);
    if (status == MF_OK && options->untie_head)
        status = mf_export_gguf_check_untied(options->folder, error);
    if (status != MF_OK)
        return status;
    status = mf_merge_open(options, true, &merge, error);
    if (status == MF_OK)
        status = mf_gguf_create(path, &writer, error);
    if (status == MF_OK)
        status = fill(&merge, type, writer, error);
    if (status == MF_OK)
        status = mf_gguf_finish(writer, error);
    else
        mf_gguf_abandon(writer);
    mf_merge_close(&merge);
    return status;
}
