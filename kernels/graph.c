#include "kernels/graph.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/graph_rows.h"
#include "kernels/random.h"

enum mf_status mf_rows_reserve(void **array, int32_t count, int32_t *capacity, size_t size,
                               struct mf_error *error) {
    if (count < *capacity)
        return MF_OK;
    if (count > INT32_MAX / 4)
        return mf_error_set(error, MF_ERROR_INTERNAL, "a graph has more than %d rows of a kind",
                            INT32_MAX / 4);
    int32_t wanted = *capacity > 0 ? 2 * *capacity : 16;
    void *grown = realloc(*array, (size_t)wanted * size);
    if (!grown)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for %d rows of a graph", (int)wanted);
    *array = grown;
    *capacity = wanted;
    return MF_OK;
}

/* Appends a copy of *row to a table of the graph: `table` names the member, `count` its length. */
#define APPEND(graph, table, count, capacity_, row, error)                                                \
    append((void **)&(graph)->table, &(graph)->count, &(graph)->capacity_, (row), sizeof *(graph)->table, \
           (error))

static enum mf_status append(void **array, int32_t *count, int32_t *capacity, const void *row, size_t size,
                             struct mf_error *error) {
    enum mf_status status = mf_rows_reserve(array, *count, capacity, size, error);
    if (status != MF_OK)
        return status;
    memcpy((char *)*array + (size_t)*count * size, row, size);
    ++*count;
    return MF_OK;
}

static enum mf_status keep_text(struct mf_graph *graph, const char *text, const char **kept,
                                struct mf_error *error) {
    char *copy = strdup(text);
    enum mf_status status;
    if (!copy)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a name");
    status = APPEND(graph, text, texts, text_capacity, &copy, error);
    if (status != MF_OK)
        free(copy);
    else
        *kept = copy;
    return status;
}

enum mf_status mf_graph_append_tensor(struct mf_graph *graph, const struct mf_tensor *tensor, int32_t *id,
                                      struct mf_error *error) {
    struct mf_tensor row = *tensor;
    enum mf_status status = MF_OK;
    *id = -1;
    if (graph->planned)
        return mf_error_set(error, MF_ERROR_INTERNAL, "the graph is planned: no tensor can be added");
    row.id = graph->tensors;
    if (row.view_of < 0)
        mf_tensor_set_contiguous(&row);
    if (row.name && row.view_of < 0)
        status = keep_text(graph, row.name, &row.name, error);
    if (status == MF_OK)
        status = APPEND(graph, tensor, tensors, tensor_capacity, &row, error);
    if (status == MF_OK)
        *id = row.id;
    return status;
}

enum mf_status mf_graph_append_segment(struct mf_graph *graph, const struct mf_segment *segment,
                                       struct mf_error *error) {
    return APPEND(graph, segment, segments, segment_capacity, segment, error);
}

static const struct {
    const char *name;
    uint8_t dtype, symbol;
} common_inputs[MF_INPUTS] = {
    [MF_INPUT_TOKENS] = {"input.tokens", MF_I32, MF_TOKENS},
    [MF_INPUT_POSITIONS] = {"input.positions", MF_I32, MF_TOKENS},
    [MF_INPUT_ROWS] = {"input.rows", MF_I32, MF_TOKENS},
    [MF_INPUT_OFFSETS] = {"input.offsets", MF_I32, MF_OFFSETS},
    [MF_INPUT_LABEL_ROWS] = {"input.label_rows", MF_I32, MF_LABELLED},
    [MF_INPUT_LABELS] = {"input.labels", MF_I32, MF_LABELLED},
    [MF_INPUT_COEFFICIENTS] = {"input.coefficients", MF_F32, MF_LABELLED},
    [MF_INPUT_LAST_ROWS] = {"input.last_rows", MF_I32, MF_SEQUENCES},
    [MF_INPUT_CACHE_SLOTS] = {"input.cache_slots", MF_I32, MF_TOKENS},
    [MF_INPUT_CACHE_OFFSETS] = {"input.cache_offsets", MF_I32, MF_OFFSETS},
    [MF_INPUT_CACHE_LENGTHS] = {"input.cache_lengths", MF_I32, MF_SEQUENCES},
};

enum mf_status mf_graph_create(struct mf_graph **result, struct mf_error *error) {
    struct mf_graph *graph = calloc(1, sizeof *graph);
    *result = NULL;
    if (!graph)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a graph");
    for (int i = 0; i < MF_INPUTS; i++) {
        struct mf_dim dim = mf_dim_symbol((enum mf_symbol)common_inputs[i].symbol, 1);
        enum mf_status status =
            mf_graph_extra_input(graph, common_inputs[i].name, (enum mf_dtype)common_inputs[i].dtype, 1, &dim,
                                 &graph->input[i], error);
        if (status != MF_OK) {
            mf_graph_destroy(graph);
            return status;
        }
    }
    *result = graph;
    return MF_OK;
}

void mf_graph_destroy(struct mf_graph *graph) {
    if (!graph)
        return;
    for (int32_t i = 0; i < graph->programs; i++) {
        free(graph->program[i]->node);
        free(graph->program[i]);
    }
    for (int32_t i = 0; i < graph->texts; i++)
        free(graph->text[i]);
    free(graph->program);
    free(graph->text);
    free(graph->tensor);
    free(graph->module);
    free(graph->adapter);
    free(graph->trained);
    free(graph->segment);
    free(graph->bucket);
    free(graph->quantized);
    free(graph);
}

const struct mf_tensor *mf_graph_tensor(const struct mf_graph *graph, int32_t id) {
    assert(id >= 0 && id < graph->tensors);
    return &graph->tensor[id];
}

int32_t mf_graph_owner(const struct mf_graph *graph, int32_t id) {
    int32_t owner = mf_graph_tensor(graph, id)->view_of;
    return owner < 0 ? id : owner;
}

int32_t mf_graph_find_tensor(const struct mf_graph *graph, const char *name) {
    for (int32_t i = 0; i < graph->tensors; i++)
        if (graph->tensor[i].name && graph->tensor[i].program < 0 && !strcmp(graph->tensor[i].name, name))
            return i;
    return -1;
}

int32_t mf_graph_find_module(const struct mf_graph *graph, const char *name) {
    for (int32_t i = 0; i < graph->modules; i++)
        if (!strcmp(graph->module[i].name, name))
            return i;
    return -1;
}

int32_t mf_graph_find_adapter(const struct mf_graph *graph, int16_t slot, int32_t module) {
    for (int32_t i = 0; i < graph->adapters; i++)
        if (graph->adapter[i].slot == slot && graph->adapter[i].module == module)
            return i;
    return -1;
}

int32_t mf_graph_find_bucket(const struct mf_graph *graph, int16_t slot) {
    for (int32_t i = 0; i < graph->buckets; i++)
        if (graph->bucket[i].slot == slot)
            return i;
    return -1;
}

const struct mf_trained *mf_graph_find_trained(const struct mf_graph *graph, int16_t slot,
                                               const char *weight) {
    for (int32_t i = 0; i < graph->trains; i++)
        if (graph->trained[i].slot == slot && !strcmp(graph->trained[i].weight, weight))
            return &graph->trained[i];
    return NULL;
}

int32_t mf_graph_find_shared(const struct mf_graph *graph, const char *name) {
    for (int32_t i = 0; i < graph->tensors; i++)
        if (graph->tensor[i].name && graph->tensor[i].program < 0 && graph->tensor[i].slot < 0 &&
            !strcmp(graph->tensor[i].name, name))
            return i;
    return -1;
}

/* The tensor `name` as described, found or made. */
static enum mf_status named_tensor(struct mf_graph *graph, const struct mf_tensor *wanted, int32_t *id,
                                   struct mf_error *error) {
    char have[96], want[96];
    *id = mf_graph_find_shared(graph, wanted->name);
    if (*id < 0) {
        for (int i = 0; i < wanted->rank; i++)
            if (wanted->dim[i].multiplier < 1 || (i > 0 && wanted->dim[i].symbol != MF_CONST))
                return mf_error_set(error, MF_ERROR_INTERNAL, "%s: dimension %d of %s is not allowed",
                                    wanted->name, i, mf_tensor_describe(wanted, want, sizeof want));
        return mf_graph_append_tensor(graph, wanted, id, error);
    }
    const struct mf_tensor *found = mf_graph_tensor(graph, *id);
    if (found->dtype == wanted->dtype && found->storage == wanted->storage &&
        mf_tensor_same_shape(found, wanted))
        return MF_OK;
    *id = -1;
    return mf_error_set(
        error, MF_ERROR_WEIGHT_MISMATCH, "%s: is %s %s, but %s %s was asked for", wanted->name,
        mf_storage_name((enum mf_storage)found->storage), mf_tensor_describe(found, have, sizeof have),
        mf_storage_name((enum mf_storage)wanted->storage), mf_tensor_describe(wanted, want, sizeof want));
}

static struct mf_tensor describe(const char *name, enum mf_storage storage, enum mf_dtype dtype, int rank) {
    assert(rank >= 1 && rank <= MF_RANK);
    return (struct mf_tensor){.view_of = -1,
                              .program = -1,
                              .slot = -1,
                              .storage = (uint8_t)storage,
                              .dtype = (uint8_t)dtype,
                              .rank = (uint8_t)rank,
                              .name = name};
}

/* Constant dimensions; a size that no dimension can hold becomes 0, which named_tensor refuses. */
static void set_sizes(struct mf_tensor *tensor, const int64_t *dim) {
    for (int i = 0; i < tensor->rank; i++)
        tensor->dim[i] = mf_dim_const(dim[i] > 0 && dim[i] <= INT32_MAX ? dim[i] : 0);
}

enum mf_status mf_graph_weight(struct mf_graph *graph, const char *name, enum mf_dtype dtype, int rank,
                               const int64_t *dim, int32_t *id, struct mf_error *error) {
    struct mf_tensor wanted = describe(name, MF_WEIGHT, dtype, rank);
    set_sizes(&wanted, dim);
    return named_tensor(graph, &wanted, id, error);
}

enum mf_status mf_graph_mark_quantized(struct mf_graph *graph, int32_t weight,
                                       enum mf_quantization quantization, bool nested, const int32_t *rows,
                                       int parts, struct mf_error *error) {
    struct mf_quantized_weight row = {.weight = weight, .codes = -1, .scales = -1, .scale_codes = -1};
    struct mf_tensor *tensor = &graph->tensor[weight];
    int64_t all = 0;
    assert(weight >= 0 && weight < graph->tensors && tensor->storage == MF_WEIGHT &&
           parts <= MF_QUANTIZED_PARTS);
    if (tensor->quantized_row)
        return MF_OK;
    for (int i = 0; i < parts; i++)
        all += row.rows[i] = rows[i];
    if (tensor->view_of >= 0 || tensor->rank != 2 || all != tensor->dim[0].multiplier)
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: is no matrix of %lld rows to be quantised",
                            tensor->name, (long long)all);
    tensor->quantization = (uint8_t)quantization;
    tensor->nested = nested;
    tensor->quantized_row = graph->quantizeds + 1;
    return APPEND(graph, quantized, quantizeds, quantized_capacity, &row, error);
}

/* The weight "<name> <part>" (elements) of a quantised one. */
static enum mf_status add_kept(struct mf_graph *graph, int32_t row, const char *part, enum mf_dtype dtype,
                               int64_t elements, int32_t *id, struct mf_error *error) {
    const struct mf_tensor *weight = mf_graph_tensor(graph, graph->quantized[row].weight);
    char name[512];
    (void)snprintf(name, sizeof name, "%s %s", weight->name, part);
    struct mf_tensor kept = describe(name, MF_WEIGHT, dtype, 1);
    if (elements == 0)
        return MF_OK;
    if (elements > INT32_MAX)
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: %lld elements are too many", name,
                            (long long)elements);
    kept.dim[0] = mf_dim_const(elements);
    kept.quantized_row = row + 1;
    return mf_graph_append_tensor(graph, &kept, id, error);
}

enum mf_status mf_graph_keep_quantized(struct mf_graph *graph, int32_t row, struct mf_error *error) {
    assert(row >= 0 && row < graph->quantizeds);
    struct mf_quantized_weight *quantized = &graph->quantized[row];
    const struct mf_tensor weight = *mf_graph_tensor(graph, quantized->weight);
    const struct mf_quantized_layout all =
        mf_quantized_layout_of_parts((enum mf_quantization)weight.quantization, weight.nested,
                                     quantized->rows, MF_QUANTIZED_PARTS, weight.dim[1].multiplier);
    if (quantized->codes >= 0)
        return MF_OK;
    enum mf_status status = add_kept(graph, row, "codes", MF_U8, all.codes, &quantized->codes, error);
    if (status == MF_OK)
        status = add_kept(graph, row, "scales", MF_F32, all.scales, &quantized->scales, error);
    if (status == MF_OK)
        status = add_kept(graph, row, "scale codes", MF_U8, all.scale_codes, &quantized->scale_codes, error);
    return status;
}

enum mf_status mf_graph_weight_rows(struct mf_graph *graph, const char *name, int32_t weight, int64_t first,
                                    int64_t rows, int32_t *id, struct mf_error *error) {
    struct mf_tensor view = *mf_graph_tensor(graph, weight);
    if (view.storage != MF_WEIGHT || view.view_of >= 0 || first < 0 || rows < 1 ||
        first + rows > view.dim[0].multiplier)
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: rows %lld .. %lld are not part of %s", name,
                            (long long)first, (long long)first + (long long)rows, view.name);
    view.view_of = weight;
    view.view_offset = first * view.stride[0];
    view.dim[0] = mf_dim_const(rows);
    enum mf_status status = keep_text(graph, name, &view.name, error);
    return status == MF_OK ? mf_graph_append_tensor(graph, &view, id, error) : status;
}

static enum mf_status symbolic(struct mf_graph *graph, struct mf_tensor wanted, const struct mf_dim *dim,
                               int32_t *id, struct mf_error *error) {
    memcpy(wanted.dim, dim, (size_t)wanted.rank * sizeof *dim);
    return named_tensor(graph, &wanted, id, error);
}

enum mf_status mf_graph_state(struct mf_graph *graph, const char *name, enum mf_dtype dtype, int rank,
                              const struct mf_dim *dim, int32_t *id, struct mf_error *error) {
    return symbolic(graph, describe(name, MF_STATE, dtype, rank), dim, id, error);
}

enum mf_status mf_graph_extra_input(struct mf_graph *graph, const char *name, enum mf_dtype dtype, int rank,
                                    const struct mf_dim *dim, int32_t *id, struct mf_error *error) {
    return symbolic(graph, describe(name, MF_INPUT, dtype, rank), dim, id, error);
}

enum mf_status mf_graph_parameter(struct mf_graph *graph, int16_t slot, const char *name, int rank,
                                  const int64_t *dim, uint8_t flags, int32_t *id, struct mf_error *error) {
    struct mf_tensor wanted = describe(name, MF_ADAPTER, MF_F32, rank);
    set_sizes(&wanted, dim);
    wanted.slot = slot;
    wanted.flags = (uint8_t)(flags | MF_TENSOR_TRAINABLE);
    if (slot < 0 || mf_graph_find_bucket(graph, slot) >= 0)
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: slot %d takes no more parameters", name,
                            (int)slot);
    for (int32_t i = 0; i < graph->tensors; i++)
        if (graph->tensor[i].slot == slot && graph->tensor[i].name && !strcmp(graph->tensor[i].name, name))
            return mf_error_set(error, MF_ERROR_INTERNAL, "slot %d has the parameter %s already", (int)slot,
                                name);
    for (int i = 0; i < rank; i++)
        if (wanted.dim[i].multiplier < 1)
            return mf_error_set(error, MF_ERROR_INTERNAL, "%s: dimension %d is %lld", name, i,
                                (long long)dim[i]);
    return mf_graph_append_tensor(graph, &wanted, id, error);
}

enum mf_status mf_graph_train_weight(struct mf_graph *graph, int16_t slot, const char *weight,
                                     const char *name, enum mf_dtype compute, int rank, const int64_t *dim,
                                     uint8_t flags, bool beside, struct mf_error *error) {
    struct mf_trained trained = {.slot = slot, .beside = beside};
    if (mf_graph_find_trained(graph, slot, weight))
        return mf_error_set(error, MF_ERROR_INTERNAL, "slot %d trains %s already", (int)slot, weight);
    enum mf_status status =
        mf_graph_parameter(graph, slot, name, rank, dim, flags, &trained.parameter, error);
    if (status == MF_OK)
        status = keep_text(graph, weight, &trained.weight, error);
    trained.computed = trained.parameter;
    if (status == MF_OK && compute != MF_F32) {
        struct mf_tensor copy = *mf_graph_tensor(graph, trained.parameter);
        copy.storage = MF_STATE;
        copy.dtype = (uint8_t)compute;
        copy.name = NULL;
        status = mf_graph_append_tensor(graph, &copy, &trained.computed, error);
    }
    return status == MF_OK ? APPEND(graph, trained, trains, trained_capacity, &trained, error) : status;
}

enum mf_status mf_graph_module(struct mf_graph *graph, const char *name, int32_t weight, int32_t bias,
                               int32_t *id, struct mf_error *error) {
    struct mf_module module = {
        .id = graph->modules, .weight = weight, .bias = bias, .random_stream = mf_random_stream(name)};
    const struct mf_tensor *matrix = mf_graph_tensor(graph, weight);
    enum mf_status status;
    *id = mf_graph_find_module(graph, name);
    if (*id >= 0) {
        if (graph->module[*id].weight == weight && graph->module[*id].bias == bias)
            return MF_OK;
        *id = -1;
        return mf_error_set(error, MF_ERROR_INTERNAL, "module %s has another weight or bias already", name);
    }
    if (matrix->rank != 2)
        return mf_error_set(error, MF_ERROR_INTERNAL, "module %s: its weight is no matrix", name);
    if (bias >= 0 && (mf_graph_tensor(graph, bias)->rank != 1 ||
                      !mf_dim_equal(mf_graph_tensor(graph, bias)->dim[0], matrix->dim[0])))
        return mf_error_set(error, MF_ERROR_INTERNAL,
                            "module %s: its bias is not as long as its weight has rows", name);
    status = keep_text(graph, name, &module.name, error);
    if (status == MF_OK)
        status = APPEND(graph, module, modules, module_capacity, &module, error);
    if (status == MF_OK)
        *id = module.id;
    return status;
}

/* "base_model.model.<module>.lora_<part>.weight" */
static enum mf_status lora_parameter(struct mf_graph *graph, int16_t slot, int32_t module, char part,
                                     int64_t rows, int64_t columns, int32_t *id, struct mf_error *error) {
    char name[512];
    const int64_t dim[2] = {rows, columns};
    int length =
        snprintf(name, sizeof name, "base_model.model.%s.lora_%c.weight", graph->module[module].name, part);
    if (length < 0 || (size_t)length >= sizeof name)
        return mf_error_set(error, MF_ERROR_INTERNAL, "module name is too long: %.64s...",
                            graph->module[module].name);
    return mf_graph_parameter(graph, slot, name, 2, dim, 0, id, error);
}

enum mf_status mf_graph_add_adapter(struct mf_graph *graph, int16_t slot, int32_t module, int32_t rank,
                                    float scale, float dropout, int32_t *id, struct mf_error *error) {
    struct mf_adapter adapter = {.slot = slot, .module = module, .scale = scale, .dropout = dropout};
    enum mf_status status;
    *id = -1;
    assert(module >= 0 && module < graph->modules);
    struct mf_tensor weight = *mf_graph_tensor(graph, graph->module[module].weight);
    if (rank < 1 || !(dropout >= 0 && dropout < 1))
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: adapter of rank %d, dropout %g",
                            graph->module[module].name, (int)rank, (double)dropout);
    status = lora_parameter(graph, slot, module, 'A', rank, weight.dim[1].multiplier, &adapter.a, error);
    if (status == MF_OK)
        status = lora_parameter(graph, slot, module, 'B', weight.dim[0].multiplier, rank, &adapter.b, error);
    if (status == MF_OK)
        status = APPEND(graph, adapter, adapters, adapter_capacity, &adapter, error);
    if (status == MF_OK)
        *id = graph->adapters - 1;
    return status;
}

static enum mf_bucket_part part_of(const struct mf_tensor *tensor) {
    const bool large =
        mf_tensor_elements(tensor, NULL) >= MF_BUCKET_LARGE && !(tensor->flags & MF_TENSOR_EXACT_MOMENTS);
    if (tensor->flags & MF_TENSOR_NO_DECAY)
        return large ? MF_LARGE_NOT_DECAYED : MF_SMALL_NOT_DECAYED;
    return large ? MF_LARGE_DECAYED : MF_SMALL_DECAYED;
}

static int64_t rounded_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

static void place_parameter(struct mf_tensor *tensor, struct mf_bucket *bucket, int part) {
    const bool large = part == MF_LARGE_DECAYED || part == MF_LARGE_NOT_DECAYED;
    if (tensor->view_of >= 0 || (int)part_of(tensor) != part)
        return;
    tensor->view_of = bucket->parameter;
    tensor->view_offset = bucket->elements;
    bucket->elements +=
        rounded_up(mf_tensor_elements(tensor, NULL), large ? MF_BUCKET_BLOCK : MF_BUCKET_ALIGNMENT);
}

/* Lays out the slot's parameters, part by part; in each the A matrices of adapters first, so that those of
 * neighbouring modules are one matrix. */
static void place_parameters(struct mf_graph *graph, struct mf_bucket *bucket) {
    for (int part = 0; part < MF_BUCKET_PARTS; part++) {
        for (int32_t i = 0; i < graph->adapters; i++)
            if (graph->adapter[i].slot == bucket->slot)
                place_parameter(&graph->tensor[graph->adapter[i].a], bucket, part);
        for (int32_t i = 0; i < graph->tensors; i++)
            if (graph->tensor[i].slot == bucket->slot && graph->tensor[i].storage == MF_ADAPTER &&
                i != bucket->parameter)
                place_parameter(&graph->tensor[i], bucket, part);
        bucket->elements = rounded_up(bucket->elements, MF_BUCKET_BLOCK);
        bucket->end[part] = bucket->elements;
    }
}

/* The gradient of each parameter, where the parameter lies. */
static enum mf_status add_gradients(struct mf_graph *graph, const struct mf_bucket *bucket,
                                    struct mf_error *error) {
    enum mf_status status = MF_OK;
    int32_t tensors = graph->tensors, id;
    for (int32_t i = 0; i < tensors && status == MF_OK; i++) {
        struct mf_tensor gradient = graph->tensor[i];
        if (gradient.view_of != bucket->parameter)
            continue;
        gradient.view_of = bucket->gradient;
        gradient.storage = MF_GRADIENT;
        gradient.flags = 0;
        gradient.name = NULL;
        status = mf_graph_append_tensor(graph, &gradient, &id, error);
    }
    return status;
}

/* Every copy lies in the bucket's as its parameter does in the bucket. */
static enum mf_status add_copies(struct mf_graph *graph, struct mf_bucket *bucket, struct mf_error *error) {
    enum mf_status status = MF_OK;
    for (int32_t i = 0; i < graph->trains && status == MF_OK; i++) {
        const struct mf_trained *trained = &graph->trained[i];
        if (trained->slot != bucket->slot || trained->computed == trained->parameter)
            continue;
        if (bucket->copy < 0) {
            struct mf_tensor flat = *mf_graph_tensor(graph, bucket->gradient);
            flat.storage = MF_STATE;
            flat.dtype = graph->tensor[trained->computed].dtype;
            status = mf_graph_append_tensor(graph, &flat, &bucket->copy, error);
        }
        graph->tensor[trained->computed].view_of = bucket->copy;
        graph->tensor[trained->computed].view_offset = graph->tensor[trained->parameter].view_offset;
    }
    return status;
}

enum mf_status mf_graph_bucket(struct mf_graph *graph, int16_t slot, int32_t *id, struct mf_error *error) {
    struct mf_bucket bucket = {.slot = slot, .gradient = -1, .copy = -1};
    struct mf_tensor flat = describe(NULL, MF_ADAPTER, MF_F32, 1);
    enum mf_status status;
    *id = mf_graph_find_bucket(graph, slot);
    if (*id >= 0)
        return MF_OK;
    flat.slot = slot;
    flat.dim[0] = mf_dim_const(1);
    status = mf_graph_append_tensor(graph, &flat, &bucket.parameter, error);
    if (status != MF_OK)
        return status;
    for (int i = 0; i < MF_OPTIMIZER_STATES; i++)
        bucket.state[i] = -1;
    place_parameters(graph, &bucket);
    if (bucket.elements > INT32_MAX)
        return mf_error_set(error, MF_ERROR_PLAN_TOO_LARGE,
                            "%lld parameters would be trained; this version trains at most %d of them",
                            (long long)bucket.elements, INT32_MAX);
    if (bucket.elements == 0)
        return mf_error_set(error, MF_ERROR_INTERNAL, "slot %d has nothing that is trained", (int)slot);
    graph->tensor[bucket.parameter].dim[0] = mf_dim_const(bucket.elements);
    flat.dim[0] = mf_dim_const(bucket.elements);
    flat.storage = MF_GRADIENT;
    status = mf_graph_append_tensor(graph, &flat, &bucket.gradient, error);
    if (status == MF_OK)
        status = add_gradients(graph, &bucket, error);
    if (status == MF_OK)
        status = add_copies(graph, &bucket, error);
    if (status == MF_OK)
        status = APPEND(graph, bucket, buckets, bucket_capacity, &bucket, error);
    if (status == MF_OK)
        *id = graph->buckets - 1;
    return status;
}

enum mf_status mf_graph_parameters_view(struct mf_graph *graph, const struct mf_tensor *wanted, int32_t *id,
                                        struct mf_error *error) {
    const int32_t row = mf_graph_find_bucket(graph, wanted->slot);
    assert(row >= 0);
    for (int32_t i = 0; i < graph->tensors; i++) {
        const struct mf_tensor *tensor = &graph->tensor[i];
        if (tensor->storage == MF_ADAPTER && tensor->view_of == wanted->view_of &&
            tensor->view_offset == wanted->view_offset && tensor->version == 0 &&
            mf_tensor_same_shape(tensor, wanted)) {
            *id = i;
            return MF_OK;
        }
    }
    struct mf_tensor view = *wanted;
    int32_t unused;
    view.name = NULL;
    enum mf_status status = mf_graph_append_tensor(graph, &view, id, error);
    view.view_of = graph->bucket[row].gradient;
    view.storage = MF_GRADIENT;
    view.flags = 0;
    return status == MF_OK ? mf_graph_append_tensor(graph, &view, &unused, error) : status;
}
