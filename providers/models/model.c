#include "providers/models/model.h"

#include "kernels/passes/expand.h"
#include "providers/models/decoder.h"
#include "providers/models/source.h"
#include "providers/models/weight_names.h"
#include "providers/registry.h"
#include "providers/weights/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A weight in the dtype of the graph, where the file has another. */
struct converted {
    void *data;
    enum mf_dtype dtype;
};

struct mf_model {
    struct mf_architecture architecture;
    struct mf_safetensors *weights;
    struct converted *converted; /* one for each tensor of `weights` */
    char *folder;
    enum mf_dtype compute_dtype;
    enum mf_quantization quantization; /* of linear modules but the head, as bitsandbytes chooses them */
    bool nested_quantization;
    bool fuse;
    struct mf_source *source; /* NULL: the programs are the decoder's */
    struct mf_model_module *module;
    size_t module_count;
    int64_t parameters;
    float *rope_frequency, *window_rope_frequency; /* (columns / 2 of each) */
};

/* ---- opening: configuration and files must agree ---- */

static char *shape_text(const int64_t *dim, int32_t rank, char *text, size_t bytes) {
    size_t used = (size_t)snprintf(text, bytes, "[");
    for (int32_t i = 0; i < rank && used < bytes; i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s%lld", i ? ", " : "", (long long)dim[i]);
    if (used < bytes)
        snprintf(text + used, bytes - used, "]");
    return text;
}

/* The weight that modules call `name`, whichever of its names the file has; NULL: none. */
static const struct mf_stored_tensor *find_stored(const struct mf_model *model, const char *name) {
    char buffer[MF_WEIGHT_NAME_BYTES];
    const struct mf_stored_tensor *found = mf_safetensors_find(model->weights, name);
    const char *old = mf_weight_old_name(&model->architecture, name, buffer);
    return found || old == name ? found : mf_safetensors_find(model->weights, old);
}

static enum mf_status check_weight(struct mf_model *model, const struct mf_decoder_weight *need,
                                   struct mf_error *error) {
    const struct mf_stored_tensor *found = find_stored(model, need->name);
    char wanted[64], there[128];
    if (!found)
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH,
                            "%s: config.json implies the weight %s, but no weight file holds it",
                            model->folder, need->name);
    bool same = found->rank == need->rank;
    for (int32_t i = 0; i < need->rank && same; i++)
        same = found->dim[i] == need->dim[i];
    if (!same)
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "%s: %s has shape %s, config.json implies %s",
                            found->file, need->name, shape_text(found->dim, found->rank, there, sizeof there),
                            shape_text(need->dim, need->rank, wanted, sizeof wanted));
    if (!found->floating)
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH,
                            "%s: %s has dtype %s; only F32, F16 and BF16 are supported", found->file,
                            need->name, found->dtype_name);
    model->parameters += need->dim[0] * (need->rank > 1 ? need->dim[1] : 1);
    return MF_OK;
}

/* A tied head may be stored as well, as long as it is the same. `name` is the tensor's. */
static bool may_ignore(const struct mf_model *model, const struct mf_stored_tensor *tensor,
                       const char *name) {
    static const char suffix[] = ".rotary_emb.inv_freq";
    size_t length = strlen(tensor->name);
    char embedding[MF_DECODER_NAME_BYTES];
    if (mf_weight_is_carried(&model->architecture, tensor->name))
        return true;
    if (length > sizeof suffix - 1 && !strcmp(tensor->name + length - (sizeof suffix - 1), suffix))
        return true;
    if (!model->architecture.tied_embeddings || strcmp(name, "lm_head.weight") != 0)
        return false;
    mf_decoder_embedding_name(&model->architecture, embedding);
    const struct mf_stored_tensor *table = find_stored(model, embedding);
    return table && table->bytes == tensor->bytes && !strcmp(table->dtype_name, tensor->dtype_name) &&
           !memcmp(table->data, tensor->data, table->bytes);
}

static int by_weight_name(const void *a, const void *b) {
    return strcmp(((const struct mf_decoder_weight *)a)->name, ((const struct mf_decoder_weight *)b)->name);
}

static enum mf_dtype weight_dtype(const void *owner, const char *name);

static struct mf_source_weights source_weights(const struct mf_model *model) {
    return (struct mf_source_weights){.dtype = weight_dtype, .owner = model};
}

/* The weights that the programs read, and the modules. */
static enum mf_status list_parts(struct mf_model *model, struct mf_decoder_weight **need, size_t *count,
                                 struct mf_error *error) {
    if (mf_source_builds(model->source))
        return mf_source_survey(model->source, source_weights(model), model->compute_dtype, need, count,
                                &model->module, &model->module_count, error);
    const enum mf_status status =
        mf_decoder_modules(&model->architecture, &model->module, &model->module_count, error);
    return status ? status : mf_decoder_weights(&model->architecture, need, count, error);
}

static enum mf_status check_weights(struct mf_model *model, struct mf_error *error) {
    struct mf_decoder_weight *need = NULL;
    size_t count = 0;
    enum mf_status status = list_parts(model, &need, &count, error);
    for (size_t i = 0; i < count && status == MF_OK; i++)
        status = check_weight(model, &need[i], error);
    if (status)
        goto done;
    qsort(need, count, sizeof *need, by_weight_name);
    for (size_t i = 0; i < mf_safetensors_count(model->weights); i++) {
        const struct mf_stored_tensor *tensor = mf_safetensors_at(model->weights, i);
        struct mf_decoder_weight key;
        char buffer[MF_WEIGHT_NAME_BYTES];
        const char *name = mf_weight_name(&model->architecture, tensor->name, buffer);
        snprintf(key.name, sizeof key.name, "%s", name);
        bool known = !strcmp(key.name, name) && bsearch(&key, need, count, sizeof key, by_weight_name) &&
                     find_stored(model, name) == tensor; /* and not under both names */
        if (!known && !may_ignore(model, tensor, name)) {
            status = mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH,
                                  "%s: the weight %s does not belong to a %s model with this config.json",
                                  tensor->file, tensor->name, model->architecture.model_type);
            goto done;
        }
    }
done:
    free(need);
    return status;
}

static enum mf_status check_options(const struct mf_model_options *options, struct mf_error *error) {
    if (options->quantization > MF_QUANTIZATION_INT8 ||
        (options->nested_quantization && options->quantization != MF_QUANTIZATION_NF4 &&
         options->quantization != MF_QUANTIZATION_FP4))
        return mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED, "quantisation %d%s is not supported",
                            (int)options->quantization, options->nested_quantization ? ", nested," : "");
    if (options->compute_dtype != MF_F32 && options->compute_dtype != MF_BF16)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED, "computing in %s is not supported yet",
                            mf_dtype_name(options->compute_dtype));
    return MF_OK;
}

static enum mf_status make_frequencies(const struct mf_rope *rope, float **frequency,
                                       struct mf_error *error) {
    *frequency = calloc((size_t)rope->columns / 2 + 1, sizeof **frequency);
    if (!*frequency)
        return mf_error_errno(error, ENOMEM, "rotary frequencies");
    mf_rope_frequencies(rope, 0, *frequency);
    return MF_OK;
}

static enum mf_status open_parts(const struct mf_model_options *options, struct mf_model *model,
                                 struct mf_error *error) {
    enum mf_status status;
    model->compute_dtype = options->compute_dtype;
    model->quantization = options->quantization;
    model->nested_quantization = options->nested_quantization;
    model->fuse = options->fuse;
    model->folder = strdup(options->folder);
    if (!model->folder)
        return mf_error_errno(error, ENOMEM, "%s", options->folder);
    if (mf_source_builds(model->source))
        mf_source_describe(model->source, &model->architecture);
    else if ((status = mf_architecture_read(model->folder, &model->architecture, error)))
        return status;
    if ((status = mf_safetensors_open_folder(model->folder, &model->weights, error)) ||
        (status = check_weights(model, error)))
        return status;
    model->converted = calloc(mf_safetensors_count(model->weights), sizeof *model->converted);
    if (!model->converted)
        return mf_error_errno(error, ENOMEM, "%s", model->folder);
    if ((status = make_frequencies(&model->architecture.rope, &model->rope_frequency, error)))
        return status;
    return make_frequencies(&model->architecture.window_rope, &model->window_rope_frequency, error);
}

enum mf_status mf_model_open(const struct mf_model_options *options, struct mf_model **out,
                             struct mf_error *error) {
    *out = NULL;
    enum mf_status status = check_options(options, error);
    struct mf_model *model = calloc(1, sizeof *model);
    if (status || !model) {
        free(model);
        mf_source_destroy(options->source);
        return status ? status : mf_error_errno(error, ENOMEM, "%s", options->folder);
    }
    model->source = options->source;
    status = open_parts(options, model, error);
    if (status)
        mf_model_close(model);
    else
        *out = model;
    return status;
}

void mf_model_close(struct mf_model *model) {
    if (!model)
        return;
    for (size_t i = 0; model->converted && i < mf_safetensors_count(model->weights); i++)
        free(model->converted[i].data);
    free(model->converted);
    mf_decoder_modules_free(model->module, model->module_count);
    mf_source_destroy(model->source);
    mf_safetensors_close(model->weights);
    free(model->rope_frequency);
    free(model->window_rope_frequency);
    free(model->folder);
    free(model);
}

void mf_model_set_longest_row(struct mf_model *model, int32_t tokens) {
    mf_rope_frequencies(&model->architecture.rope, tokens, model->rope_frequency);
    mf_rope_frequencies(&model->architecture.window_rope, tokens, model->window_rope_frequency);
}

const struct mf_architecture *mf_model_architecture(const struct mf_model *model) {
    return &model->architecture;
}

const char *mf_model_folder(const struct mf_model *model) {
    return model->folder;
}

enum mf_dtype mf_model_compute_dtype(const struct mf_model *model) {
    return model->compute_dtype;
}

enum mf_quantization mf_model_quantization(const struct mf_model *model, bool *nested) {
    *nested = model->nested_quantization;
    return model->quantization;
}

bool mf_model_fuses(const struct mf_model *model) {
    return model->fuse;
}

int64_t mf_model_parameters(const struct mf_model *model) {
    return model->parameters;
}

static bool is_quantized(const struct mf_model *model, const char *weight) {
    for (size_t i = 0; model->quantization && i < model->module_count; i++) {
        const size_t length = strlen(model->module[i].name);
        if (!strncmp(weight, model->module[i].name, length) &&
            (!strcmp(weight + length, ".weight") || !strncmp(weight + length, ".weight" MF_DECODER_FUSED, 8)))
            return !model->module[i].head;
    }
    return false;
}

const struct mf_stored_tensor *mf_model_stored(const struct mf_model *model, const char *name) {
    return find_stored(model, name);
}

bool mf_model_is_quantized(const struct mf_model *model, const char *weight) {
    return is_quantized(model, weight);
}

/* ---- modules and adapters ---- */

bool mf_model_is_built(const struct mf_model *model) {
    return mf_source_builds(model->source);
}

enum mf_status mf_model_weights(const struct mf_model *model, struct mf_decoder_weight **weight,
                                size_t *count, struct mf_error *error) {
    return mf_model_is_built(model) ? mf_source_list_weights(model->source, weight, count, error)
                                    : mf_decoder_weights(&model->architecture, weight, count, error);
}

size_t mf_model_module_count(const struct mf_model *model) {
    return model->module_count;
}

const struct mf_model_module *mf_model_module(const struct mf_model *model, size_t index) {
    return &model->module[index];
}

static bool matches(const struct mf_model_module *module, const char *target) {
    size_t length = strlen(module->name), wanted = strlen(target);
    return !strcmp(module->name, target) || (length > wanted && module->name[length - wanted - 1] == '.' &&
                                             !strcmp(module->name + length - wanted, target));
}

static enum mf_status no_such_module(const struct mf_model *model, const char *target,
                                     struct mf_error *error) {
    char known[512] = "";
    for (size_t i = 0; i < model->module_count; i++) {
        const struct mf_model_module *module = &model->module[i];
        if (module->layer <= 0 && strlen(known) + strlen(module->suffix) + 3 < sizeof known)
            snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", known[0] ? ", " : "",
                     module->suffix);
    }
    return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                        "target_modules: no module of this model matches '%s' (there are: %s)", target,
                        known);
}

enum mf_status mf_model_choose_modules(const struct mf_model *model, const char *const *targets, size_t count,
                                       bool *chosen, struct mf_error *error) {
    bool all = !targets || !count || (count == 1 && !strcmp(targets[0], "all-linear"));
    for (size_t i = 0; i < model->module_count; i++)
        chosen[i] = all && !model->module[i].head;
    for (size_t t = 0; t < count && !all; t++) {
        bool found = false;
        for (size_t i = 0; i < model->module_count; i++)
            if (matches(&model->module[i], targets[t]))
                found = chosen[i] = true;
        if (!found)
            return no_such_module(model, targets[t], error);
    }
    return MF_OK;
}

/* With f32 computing a weight keeps the dtype of its file; with bf16 all are bf16, as Transformers loads
 * them. Quantised ones come back in the computing dtype. */
static enum mf_dtype weight_dtype(const void *owner, const char *name) {
    const struct mf_model *model = owner;
    const struct mf_stored_tensor *tensor = find_stored(model, name);
    return model->compute_dtype == MF_BF16 || !tensor || is_quantized(model, name) ? model->compute_dtype
                                                                                   : tensor->dtype;
}

/* What a weight of the graph is called on disk, part by part: a fused one has several. NULL: no more. */
static const struct mf_stored_tensor *next_part(const struct mf_model *model, const char **name,
                                                char part[MF_DECODER_NAME_BYTES]) {
    const size_t length = strcspn(*name, MF_DECODER_FUSED);
    (void)snprintf(part, MF_DECODER_NAME_BYTES, "%.*s", (int)length, *name);
    *name += length + ((*name)[length] != '\0');
    return find_stored(model, part);
}

/* Tells the graph which of its weights have quantised values. */
static enum mf_status mark_quantized(const struct mf_model *model, struct mf_graph *graph,
                                     struct mf_error *error) {
    enum mf_status status = MF_OK;
    for (int32_t id = 0; status == MF_OK && model->quantization && id < graph->tensors; id++) {
        const struct mf_tensor *tensor = mf_graph_tensor(graph, id);
        const char *name = tensor->name;
        char part[MF_DECODER_NAME_BYTES];
        int32_t rows[MF_QUANTIZED_PARTS];
        int parts = 0;
        if (tensor->storage != MF_WEIGHT || tensor->view_of >= 0 || !name || !is_quantized(model, name))
            continue;
        while (*name && parts < MF_QUANTIZED_PARTS) {
            const struct mf_stored_tensor *stored = next_part(model, &name, part);
            rows[parts++] = stored ? (int32_t)stored->dim[0] : 0;
        }
        status = mf_graph_mark_quantized(graph, id, model->quantization, model->nested_quantization, rows,
                                         parts, error);
    }
    return status;
}

/* Whether a slot trains the weight of a linear module that products are fused of: each is a matrix of its own
 * then, in all programs of the graph. */
static bool trains_modules(const struct mf_model *model, const struct mf_graph *graph) {
    for (int32_t t = 0; t < graph->trains; t++) {
        const char *weight = graph->trained[t].weight;
        for (size_t i = 0; i < model->module_count; i++) {
            const size_t length = strlen(model->module[i].name);
            if (!model->module[i].head && !strncmp(weight, model->module[i].name, length) &&
                !strcmp(weight + length, ".weight"))
                return true;
        }
    }
    return false;
}

static struct mf_decoder decoder_of(const struct mf_model *model, const struct mf_graph *graph) {
    return (struct mf_decoder){.architecture = &model->architecture,
                               .module = model->module,
                               .weight_dtype = weight_dtype,
                               .owner = model,
                               .fuse = model->fuse && !trains_modules(model, graph)};
}

enum mf_status mf_model_add_adapters(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                                     const bool *chosen, int32_t rank, float scale, float dropout,
                                     struct mf_error *error) {
    const struct mf_decoder decoder = decoder_of(model, graph);
    for (size_t i = 0; i < model->module_count; i++) {
        int32_t module, adapter;
        if (!chosen[i])
            continue;
        if (model->module[i].head)
            return mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED,
                                "target_modules: an adapter on %s is not supported", model->module[i].name);
        enum mf_status status =
            mf_source_builds(model->source)
                ? mf_source_graph_module(model->source, source_weights(model), graph, i, &module, error)
                : mf_decoder_graph_module(&decoder, graph, i, &module, error);
        if (status == MF_OK)
            status = mf_graph_add_adapter(graph, slot, module, rank, scale, dropout, &adapter, error);
        if (status)
            return status;
    }
    return MF_OK;
}

enum mf_status mf_model_build(const struct mf_model *model, struct mf_graph *graph, enum mf_purpose purpose,
                              int16_t slot, struct mf_model_program *out, struct mf_error *error) {
    const struct mf_decoder decoder = decoder_of(model, graph);
    *out = (struct mf_model_program){-1, -1, -1, -1, -1};
    if (purpose > MF_DECODE)
        return mf_error_set(error, MF_ERROR_INTERNAL, "a model has no %s program", mf_purpose_name(purpose));
    enum mf_status status =
        mf_program_create(graph, purpose, slot, model->compute_dtype, &out->program, error);
    if (status == MF_OK)
        status = mf_source_builds(model->source)
                     ? mf_source_build(model->source, source_weights(model), graph, out, error)
                     : mf_decoder_build(&decoder, graph, out, error);
    if (status == MF_OK)
        status = mf_source_rewrite(model->source, graph, out->program, error);
    if (status == MF_OK)
        status = mark_quantized(model, graph, error);
    return status ? status : mf_pass_expand(graph, out->program, error);
}

/* ---- weights ---- */

enum { CONVERTED_AT_ONCE = 1024 };

/* Converts to bf16, or copies to aligned memory when the dtype stays. */
static void *convert(const struct mf_stored_tensor *tensor, enum mf_dtype dtype, size_t *bytes) {
    size_t elements = tensor->bytes / mf_dtype_bytes(tensor->dtype);
    *bytes = elements * mf_dtype_bytes(dtype);
    void *data = aligned_alloc(64, (*bytes + 63) / 64 * 64 + 64);
    if (!data)
        return NULL;
    if (dtype == tensor->dtype) {
        memcpy(data, tensor->data, tensor->bytes);
        return data;
    }
    uint16_t *bf16 = data;
    for (size_t first = 0; first < elements; first += CONVERTED_AT_ONCE) {
        float value[CONVERTED_AT_ONCE];
        const size_t count = elements - first < CONVERTED_AT_ONCE ? elements - first : CONVERTED_AT_ONCE;
        mf_stored_values(tensor, (int64_t)first, (int64_t)count, value);
        for (size_t i = 0; i < count; i++)
            bf16[first + i] = mf_f32_to_bf16(value[i]);
    }
    return data;
}

/* The quantised form of a weight that programs compute with in `dtype`; mf_quantized_free frees it. */
static enum mf_status quantize(const struct mf_model *model, const struct mf_stored_tensor *tensor,
                               enum mf_dtype dtype, struct mf_quantized *quantized, struct mf_error *error) {
    const enum mf_dtype from = dtype == MF_BF16 ? MF_BF16 : tensor->dtype;
    const bool usable = from == tensor->dtype && (uintptr_t)tensor->data % mf_dtype_bytes(from) == 0;
    size_t bytes;
    void *copy = usable ? NULL : convert(tensor, from, &bytes);
    if (!usable && !copy)
        return mf_error_errno(error, ENOMEM, "%s", tensor->name);
    const enum mf_status status =
        mf_quantize(from, usable ? tensor->data : copy, tensor->dim[0], tensor->dim[1], model->quantization,
                    model->nested_quantization, quantized, error);
    free(copy);
    mf_safetensors_release(tensor);
    return status;
}

/* What the quantised form of a weight stands for. */
static enum mf_status convert_quantized(const struct mf_model *model, const struct mf_stored_tensor *tensor,
                                        enum mf_dtype dtype, struct converted *converted, size_t *bytes,
                                        struct mf_error *error) {
    struct mf_quantized quantized = {0};
    *bytes = (size_t)tensor->dim[0] * (size_t)tensor->dim[1] * mf_dtype_bytes(dtype);
    void *data = aligned_alloc(64, (*bytes + 63) / 64 * 64);
    enum mf_status status = data ? quantize(model, tensor, dtype, &quantized, error)
                                 : mf_error_errno(error, ENOMEM, "%s", tensor->name);
    if (status == MF_OK)
        mf_dequantize(&quantized, dtype, data);
    mf_quantized_free(&quantized);
    if (status == MF_OK)
        *converted = (struct converted){data, dtype};
    else
        free(data);
    return status;
}

static enum mf_status weight_data(struct mf_model *model, const struct mf_stored_tensor *tensor,
                                  enum mf_dtype dtype, const void **data, size_t *bytes,
                                  struct mf_error *error) {
    size_t index = (size_t)(tensor - mf_safetensors_at(model->weights, 0));
    struct converted *converted = &model->converted[index];
    *data = tensor->data;
    *bytes = tensor->bytes;
    char name[MF_WEIGHT_NAME_BYTES];
    const bool quantized = is_quantized(model, mf_weight_name(&model->architecture, tensor->name, name));
    if (quantized && !converted->data) {
        const enum mf_status status = convert_quantized(model, tensor, dtype, converted, bytes, error);
        if (status != MF_OK)
            return status;
    }
    if (!quantized && tensor->dtype == dtype && (uintptr_t)tensor->data % mf_dtype_bytes(dtype) == 0)
        return MF_OK;
    if (!quantized && tensor->dtype != dtype && dtype != MF_BF16)
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: no conversion to %s", tensor->name,
                            mf_dtype_name(dtype));
    if (!converted->data) {
        converted->data = convert(tensor, dtype, bytes);
        converted->dtype = dtype;
        if (!converted->data)
            return mf_error_errno(error, ENOMEM, "%s", tensor->name);
        mf_safetensors_release(tensor);
    }
    if (converted->dtype != dtype)
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: wanted in two dtypes", tensor->name);
    *bytes = tensor->bytes / mf_dtype_bytes(tensor->dtype) * mf_dtype_bytes(dtype);
    *data = converted->data;
    return MF_OK;
}

/* What was made of a weight for binding it is not needed where that copied it. */
static void drop_converted(struct mf_model *model, const struct mf_stored_tensor *tensor) {
    struct converted *converted = &model->converted[tensor - mf_safetensors_at(model->weights, 0)];
    free(converted->data);
    *converted = (struct converted){0};
}

/* A weight that the graph has in one and the files in parts, one behind the other. */
static enum mf_status bind_parts(struct mf_model *model, const struct mf_tensor *tensor,
                                 struct mf_executor *executor, struct mf_error *error) {
    const char *name = tensor->name;
    size_t first = 0;
    enum mf_status status = MF_OK;
    while (*name && status == MF_OK) {
        char part[MF_DECODER_NAME_BYTES];
        const void *data;
        size_t bytes = 0;
        const struct mf_stored_tensor *stored = next_part(model, &name, part);
        if (!stored)
            return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "%s: the model has no such weight", part);
        status = weight_data(model, stored, (enum mf_dtype)tensor->dtype, &data, &bytes, error);
        if (status == MF_OK)
            status = mf_executor_bind_weight_part(executor, tensor->id, first, data, bytes, error);
        drop_converted(model, stored);
        first += bytes;
    }
    return status;
}

/* Where the next part of a quantised weight goes, in bytes. */
struct kept_at {
    size_t codes, scales, scale_codes;
};

static enum mf_status bind_quantized_part(const struct mf_quantized_weight *row,
                                          const struct mf_quantized *part, struct kept_at *at,
                                          struct mf_executor *executor, struct mf_error *error) {
    const struct mf_quantized_layout size =
        mf_quantized_layout(part->quantization, part->nested, part->rows, part->columns);
    const size_t scales = (size_t)(size.scales - (part->nested ? 1 : 0)) * sizeof(float);
    enum mf_status status = mf_executor_bind_weight_part(executor, row->codes, at->codes, part->code,
                                                         mf_quantized_code_bytes(part), error);
    if (status == MF_OK)
        status = mf_executor_bind_weight_part(executor, row->scales, at->scales,
                                              part->nested ? part->scale_scale : part->scale, scales, error);
    if (status == MF_OK && part->nested)
        status = mf_executor_bind_weight_part(executor, row->scales, at->scales + scales, &part->scale_mean,
                                              sizeof part->scale_mean, error);
    if (status == MF_OK && part->nested)
        status = mf_executor_bind_weight_part(executor, row->scale_codes, at->scale_codes, part->scale_code,
                                              (size_t)size.scale_codes, error);
    at->codes += (size_t)size.codes;
    at->scales += (size_t)size.scales * sizeof(float);
    at->scale_codes += (size_t)size.scale_codes;
    return status;
}

/* A weight that programs dequantise: quantised part by part, as it is read. */
static enum mf_status bind_quantized(const struct mf_model *model, const struct mf_graph *graph,
                                     const struct mf_quantized_weight *row, struct mf_executor *executor,
                                     struct mf_error *error) {
    const struct mf_tensor *weight = mf_graph_tensor(graph, row->weight);
    const char *name = weight->name;
    struct kept_at at = {0};
    enum mf_status status = MF_OK;
    while (*name && status == MF_OK) {
        char part[MF_DECODER_NAME_BYTES];
        struct mf_quantized quantized = {0};
        const struct mf_stored_tensor *stored = next_part(model, &name, part);
        if (!stored)
            return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "%s: the model has no such weight", part);
        status = quantize(model, stored, (enum mf_dtype)weight->dtype, &quantized, error);
        if (status == MF_OK)
            status = bind_quantized_part(row, &quantized, &at, executor, error);
        mf_quantized_free(&quantized);
    }
    return status;
}

/* Any other weight; what the model has no name for is left alone. */
static enum mf_status bind_whole(struct mf_model *model, const struct mf_tensor *tensor,
                                 struct mf_executor *executor, struct mf_error *error) {
    const struct mf_stored_tensor *stored = find_stored(model, tensor->name);
    size_t bytes = 0;
    const void *data = mf_source_values(model->source, tensor->name, &bytes);
    enum mf_status status = MF_OK;
    if (data) {
        stored = NULL; /* a constant of the provider's */
    } else if (!strcmp(tensor->name, MF_DECODER_ROPE_NAME)) {
        data = model->rope_frequency;
        bytes = (size_t)model->architecture.rope.columns / 2 * sizeof(float);
    } else if (!strcmp(tensor->name, MF_DECODER_WINDOW_ROPE_NAME)) {
        data = model->window_rope_frequency;
        bytes = (size_t)model->architecture.window_rope.columns / 2 * sizeof(float);
    } else if (stored) {
        status = weight_data(model, stored, (enum mf_dtype)tensor->dtype, &data, &bytes, error);
    } else {
        return MF_OK;
    }
    if (status == MF_OK)
        status = mf_executor_bind_weight(executor, tensor->id, data, bytes, error);
    if (stored && mf_executor_copies_weights(executor))
        drop_converted(model, stored);
    return status;
}

enum mf_status mf_model_bind(struct mf_model *model, struct mf_provider_context *context,
                             const struct mf_graph *graph, struct mf_executor *executor,
                             struct mf_error *error) {
    enum mf_status status = MF_OK;
    for (int32_t id = 0; id < graph->tensors && status == MF_OK; id++) {
        const struct mf_tensor *tensor = mf_graph_tensor(graph, id);
        if (!mf_tensor_is_bound(tensor) || !tensor->name || !mf_executor_reads(executor, id))
            continue;
        const struct mf_quantized_weight *kept =
            tensor->quantized_row ? &graph->quantized[tensor->quantized_row - 1] : NULL;
        if (context && context->cancelled && context->cancelled(context->argument))
            return mf_error_set(error, MF_ERROR_CANCELLED, "cancelled while loading the weights");
        if (kept && id == kept->codes)
            status = bind_quantized(model, graph, kept, executor, error);
        else if (kept && id != kept->weight)
            continue; /* its scales: bound with its codes */
        else if (strstr(tensor->name, MF_DECODER_FUSED))
            status = bind_parts(model, tensor, executor, error);
        else
            status = bind_whole(model, tensor, executor, error);
    }
    return status;
}
