#include "providers/models/source.h"

#include "kernels/passes/expand.h"
#include "providers/builder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONSTANT_PREFIX "constant."

/* A linear module, as the survey met it. */
struct module {
    char name[MF_DECODER_NAME_BYTES];
    int32_t layer;
    int64_t rows, columns;
    bool bias;
};

struct constant {
    char name[MF_DECODER_NAME_BYTES]; /* with its prefix */
    float *value;
    size_t count;
};

struct mf_source {
    struct mf_model_source own;
    char model_type[64];
    struct mf_decoder_weight *weight; /* of the survey */
    size_t weights;
    struct module *module;
    struct constant *constant;
    size_t modules, module_capacity, constants, constant_capacity;
};

struct mf_source_program {
    struct mf_source *source;
    struct mf_source_weights weights;
    struct mf_builder *builder;
    struct mf_model_program *out;
    bool surveying; /* modules are new */
    bool ended;     /* head() was called */
};

/* ---- life ---- */

static enum mf_status check(const struct mf_model_source *own, struct mf_error *error) {
    const char *lacks = NULL;
    if (!own->build && !own->rewrite)
        lacks = "neither build() nor rewrite()";
    else if (own->build && (!own->model_type || !*own->model_type))
        lacks = "build() and no model_type";
    else if (own->build &&
             (own->vocabulary < 1 || own->vocabulary > INT32_MAX || own->hidden < 1 ||
              own->hidden > INT32_MAX || own->layers < 1 || own->layers > MF_ARCHITECTURE_MAX_LAYERS ||
              own->max_positions < 1 || own->max_positions > INT32_MAX || own->end_token < -1 ||
              own->end_token >= own->vocabulary))
        lacks = "a vocabulary, hidden, layers, max_positions or end_token that cannot be";
    return lacks ? mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                                "the provider breaks the ABI: its struct mf_model_source has %s", lacks)
                 : MF_OK;
}

enum mf_status mf_source_create(const struct mf_model_source *own, struct mf_source **out,
                                struct mf_error *error) {
    *out = NULL;
    if (own->size < offsetof(struct mf_model_source, end_token) + sizeof own->end_token)
        return mf_error_set(
            error, MF_ERROR_PROVIDER_UNAVAILABLE,
            "the provider breaks the ABI: its struct mf_model_source has %u bytes, fewer than the "
            "%zu of the ABI",
            own->size, sizeof *own);
    enum mf_status status = check(own, error);
    struct mf_source *source = calloc(1, sizeof *source);
    if (status != MF_OK || !source) {
        free(source);
        if (own->close)
            own->close(own->state);
        return status ? status : mf_error_errno(error, ENOMEM, "a model of the provider");
    }
    source->own = *own;
    snprintf(source->model_type, sizeof source->model_type, "%s", own->model_type ? own->model_type : "");
    *out = source;
    return MF_OK;
}

void mf_source_destroy(struct mf_source *source) {
    if (!source)
        return;
    if (source->own.close)
        source->own.close(source->own.state);
    for (size_t i = 0; i < source->constants; i++)
        free(source->constant[i].value);
    free(source->constant);
    free(source->weight);
    free(source->module);
    free(source);
}

bool mf_source_builds(const struct mf_source *source) {
    return source && source->own.build;
}

void mf_source_describe(const struct mf_source *source, struct mf_architecture *out) {
    *out = (struct mf_architecture){.model_type = source->model_type,
                                    .vocabulary = (int32_t)source->own.vocabulary,
                                    .hidden = (int32_t)source->own.hidden,
                                    .layers = (int32_t)source->own.layers,
                                    .max_positions = (int32_t)source->own.max_positions,
                                    .bos = -1,
                                    .eos = {(int32_t)source->own.end_token},
                                    .eos_count = source->own.end_token >= 0};
}

/* ---- what build() is made of ---- */

static void fail(struct mf_source_program *program, const struct mf_error *error) {
    mf_builder_fail(program->builder, error->status, "%s", error->message);
}

void mf_source_set_layer(struct mf_source_program *program, int32_t layer) {
    if (layer < -1 || layer >= program->source->own.layers)
        mf_builder_fail(program->builder, MF_ERROR_PROVIDER_UNAVAILABLE,
                        "set_layer(%d): the model has %lld layers", (int)layer,
                        (long long)program->source->own.layers);
    else
        program->builder->layer = (int16_t)layer;
}

static bool name_fits(struct mf_source_program *program, const char *name, size_t more) {
    if (name && *name && strlen(name) + more < MF_DECODER_NAME_BYTES && !strchr(name, MF_DECODER_FUSED[0]) &&
        strncmp(name, CONSTANT_PREFIX, sizeof CONSTANT_PREFIX - 1) != 0)
        return true;
    mf_builder_fail(program->builder, MF_ERROR_PROVIDER_UNAVAILABLE,
                    "'%.64s' cannot be the name of a weight, module or constant", name ? name : "(NULL)");
    return false;
}

static enum mf_status graph_weight(struct mf_graph *graph, struct mf_source_weights weights, const char *name,
                                   int rank, const int64_t *dim, int32_t *id, struct mf_error *error) {
    return mf_graph_weight(graph, name, weights.dtype(weights.owner, name), rank, dim, id, error);
}

/* What the program's slot computes with instead of the weight `name`; -1: with the model's. */
static int32_t trained_weight(const struct mf_source_program *program, const char *name) {
    const struct mf_graph *graph = program->builder->graph;
    const struct mf_trained *trained =
        mf_graph_find_trained(graph, graph->program[program->builder->program]->slot, name);
    return trained ? trained->computed : -1;
}

int32_t mf_source_weight(struct mf_source_program *program, const char *name, uint32_t rank,
                         const int64_t *dim) {
    struct mf_error error;
    int32_t id = MF_NO_TENSOR;
    if (!name_fits(program, name, 1))
        return MF_NO_TENSOR;
    if (rank < 1 || rank > 2 || dim[0] < 1 || dim[0] > INT32_MAX ||
        (rank == 2 && (dim[1] < 1 || dim[1] > INT32_MAX)))
        mf_builder_fail(program->builder, MF_ERROR_PROVIDER_UNAVAILABLE,
                        "the weight %s has a rank or size that cannot be", name);
    else if ((id = trained_weight(program, name)) < 0 &&
             graph_weight(program->builder->graph, program->weights, name, (int)rank, dim, &id, &error))
        fail(program, &error);
    return id;
}

static struct constant *find_constant(const struct mf_source *source, const char *name) {
    for (size_t i = 0; i < source->constants; i++)
        if (!strcmp(source->constant[i].name, name))
            return &source->constant[i];
    return NULL;
}

const float *mf_source_values(const struct mf_source *source, const char *name, size_t *bytes) {
    const struct constant *constant = source ? find_constant(source, name) : NULL;
    if (!constant)
        return NULL;
    *bytes = constant->count * sizeof *constant->value;
    return constant->value;
}

/* Room for one row more; NULL: there is none. */
static void *make_room(void *rows, size_t count, size_t *capacity, size_t row_bytes) {
    if (count < *capacity)
        return rows;
    const size_t wanted = *capacity ? 2 * *capacity : 16;
    void *grown = realloc(rows, wanted * row_bytes);
    if (grown)
        *capacity = wanted;
    return grown;
}

static bool keep_constant(struct mf_source *source, const char *name, const float *value, size_t count) {
    struct constant *rows =
        make_room(source->constant, source->constants, &source->constant_capacity, sizeof *rows);
    float *copy = malloc(count * sizeof *copy);
    if (rows)
        source->constant = rows;
    if (!rows || !copy) {
        free(copy);
        return false;
    }
    memcpy(copy, value, count * sizeof *copy);
    struct constant *row = &rows[source->constants++];
    *row = (struct constant){.value = copy, .count = count};
    snprintf(row->name, sizeof row->name, "%s", name);
    return true;
}

int32_t mf_source_constant(struct mf_source_program *program, const char *name, const float *value,
                           uint64_t count) {
    char full[MF_DECODER_NAME_BYTES];
    struct mf_error error;
    int32_t id = MF_NO_TENSOR;
    const int64_t dim = (int64_t)count;
    if (!name_fits(program, name, sizeof CONSTANT_PREFIX))
        return MF_NO_TENSOR;
    snprintf(full, sizeof full, CONSTANT_PREFIX "%s", name);
    const struct constant *before = find_constant(program->source, full);
    if (!count || count > INT32_MAX || !value)
        mf_builder_fail(program->builder, MF_ERROR_PROVIDER_UNAVAILABLE, "the constant %s has no values",
                        name);
    else if (before && (before->count != count || memcmp(before->value, value, count * sizeof *value) != 0))
        mf_builder_fail(program->builder, MF_ERROR_PROVIDER_UNAVAILABLE,
                        "the constant %s had other values before: build() is to build the same each time",
                        name);
    else if (!before && !keep_constant(program->source, full, value, (size_t)count))
        mf_builder_fail(program->builder, MF_ERROR_OUT_OF_MEMORY, "no memory for the constant %s", name);
    else if (mf_graph_weight(program->builder->graph, full, MF_F32, 1, &dim, &id, &error))
        fail(program, &error);
    return id;
}

static const struct module *find_module(const struct mf_source *source, const char *name) {
    for (size_t i = 0; i < source->modules; i++)
        if (!strcmp(source->module[i].name, name))
            return &source->module[i];
    return NULL;
}

static enum mf_status graph_module(const struct module *module, struct mf_source_weights weights,
                                   struct mf_graph *graph, int32_t *id, struct mf_error *error) {
    char name[MF_DECODER_NAME_BYTES];
    const int64_t dim[2] = {module->rows, module->columns};
    int32_t weight, bias = -1;
    const int32_t known = mf_graph_find_module(graph, module->name);
    if (known >= 0) {
        *id = known;
        return MF_OK;
    }
    snprintf(name, sizeof name, "%.*s.weight", MF_DECODER_NAME_BYTES - 8, module->name);
    enum mf_status status = graph_weight(graph, weights, name, 2, dim, &weight, error);
    snprintf(name, sizeof name, "%.*s.bias", MF_DECODER_NAME_BYTES - 8, module->name);
    if (status == MF_OK && module->bias)
        status = graph_weight(graph, weights, name, 1, dim, &bias, error);
    return status ? status : mf_graph_module(graph, module->name, weight, bias, id, error);
}

/* The module of this name: of the survey, or a new one of it. */
static const struct module *module_of(struct mf_source_program *program, const struct module *wanted) {
    struct mf_source *source = program->source;
    const struct module *module = find_module(source, wanted->name);
    if (!module && program->surveying) {
        struct module *rows =
            make_room(source->module, source->modules, &source->module_capacity, sizeof *rows);
        if (!rows) {
            mf_builder_fail(program->builder, MF_ERROR_OUT_OF_MEMORY, "no memory for the module %s",
                            wanted->name);
            return NULL;
        }
        source->module = rows;
        rows[source->modules] = *wanted;
        return &rows[source->modules++];
    }
    if (!module || module->rows != wanted->rows || module->columns != wanted->columns ||
        module->bias != wanted->bias) {
        mf_builder_fail(
            program->builder, MF_ERROR_PROVIDER_UNAVAILABLE,
            "the module %s was not there before, or had another shape: build() is to build the same "
            "each time",
            wanted->name);
        return NULL;
    }
    return module;
}

/* A module that is trained as a whole: a weight, with no frozen one beside it and no adapter on it. */
static int32_t trained_linear(struct mf_source_program *program, int32_t x, const struct module *module,
                              int32_t weight) {
    char name[MF_DECODER_NAME_BYTES];
    int32_t in[] = {x, weight, -1};
    snprintf(name, sizeof name, "%.*s.bias", MF_DECODER_NAME_BYTES - 8, module->name);
    if (module->bias)
        in[2] = mf_source_weight(program, name, 1, &module->rows);
    return mf_emit(program->builder, MF_OP_LINEAR, in, 3, &(union mf_attributes){.linear = {.alpha = 1}});
}

int32_t mf_source_linear(struct mf_source_program *program, int32_t x, const char *name, int64_t columns,
                         bool bias) {
    struct mf_builder *builder = program->builder;
    struct mf_error error;
    int32_t id;
    if (!name_fits(program, name, 8))
        return MF_NO_TENSOR;
    if (x < 0 || x >= builder->graph->tensors || mf_graph_tensor(builder->graph, x)->rank != 2 ||
        columns < 1 || columns > INT32_MAX) {
        mf_builder_fail(builder, MF_ERROR_PROVIDER_UNAVAILABLE,
                        "linear(%s) takes a tensor (T, K) and gives 1 or more columns", name);
        return MF_NO_TENSOR;
    }
    struct module wanted = {.layer = builder->layer,
                            .rows = columns,
                            .columns = mf_graph_tensor(builder->graph, x)->dim[1].multiplier,
                            .bias = bias};
    snprintf(wanted.name, sizeof wanted.name, "%s", name);
    const struct module *module = module_of(program, &wanted);
    if (!module)
        return MF_NO_TENSOR;
    char whole[MF_DECODER_NAME_BYTES];
    snprintf(whole, sizeof whole, "%.*s.weight", MF_DECODER_NAME_BYTES - 8, name);
    if (trained_weight(program, whole) >= 0)
        return trained_linear(program, x, module, trained_weight(program, whole));
    if (graph_module(module, program->weights, builder->graph, &id, &error)) {
        fail(program, &error);
        return MF_NO_TENSOR;
    }
    return mf_build_linear(builder, x, &id, 1);
}

static enum mf_purpose purpose_of(const struct mf_source_program *program) {
    return (enum mf_purpose)program->builder->graph->program[program->builder->program]->purpose;
}

static bool is_cached(const struct mf_source_program *program) {
    return purpose_of(program) == MF_PREFILL || purpose_of(program) == MF_DECODE;
}

/* This layer's cache of keys or values with `rows` (T, G, d) written into it. */
static int32_t through_cache(struct mf_source_program *program, const char *kind, int32_t rows) {
    struct mf_builder *builder = program->builder;
    struct mf_error error;
    char name[MF_DECODER_NAME_BYTES];
    int32_t cache = -1;
    const struct mf_tensor *tensor = mf_graph_tensor(builder->graph, rows);
    const struct mf_dim dim[3] = {mf_dim_symbol(MF_CACHE, 1), tensor->dim[1], tensor->dim[2]};
    snprintf(name, sizeof name, "cache.%d.%s", builder->layer, kind);
    if (mf_graph_state(builder->graph, name, (enum mf_dtype)tensor->dtype, 3, dim, &cache, &error)) {
        fail(program, &error);
        return -1;
    }
    return mf_build_cache_write(builder, cache, rows, builder->graph->input[MF_INPUT_CACHE_SLOTS]);
}

int32_t mf_source_attention(struct mf_source_program *program, int32_t q, int32_t k, int32_t v,
                            struct mf_attention_attributes attributes) {
    struct mf_builder *builder = program->builder;
    const int32_t *input = builder->graph->input, part[] = {q, k, v};
    for (int i = 0; i < 3; i++)
        if (part[i] < 0 || part[i] >= builder->graph->tensors ||
            mf_graph_tensor(builder->graph, part[i])->rank != 3) {
            mf_builder_fail(builder, MF_ERROR_PROVIDER_UNAVAILABLE,
                            "attention() takes q (T, H, d), k and v (T, G, d): see heads()");
            return MF_NO_TENSOR;
        }
    if (!is_cached(program))
        return mf_build_attention(builder, q, k, v, input[MF_INPUT_OFFSETS], input[MF_INPUT_OFFSETS], -1,
                                  attributes);
    const int32_t keys = through_cache(program, "key", k), values = through_cache(program, "value", v);
    return mf_build_attention(builder, q, keys, values, input[MF_INPUT_OFFSETS],
                              input[MF_INPUT_CACHE_OFFSETS], input[MF_INPUT_CACHE_LENGTHS], attributes);
}

void mf_source_head(struct mf_source_program *program, int32_t hidden, int32_t table, int32_t bias,
                    struct mf_head_attributes attributes) {
    struct mf_builder *builder = program->builder;
    struct mf_model_program *out = program->out;
    builder->layer = -1;
    if (program->ended)
        mf_builder_fail(builder, MF_ERROR_PROVIDER_UNAVAILABLE, "head() was called twice");
    program->ended = true;
    if (is_cached(program)) {
        out->logits = mf_build_logits(builder, hidden, table, bias, builder->graph->input[MF_INPUT_LAST_ROWS],
                                      attributes);
        out->next_token = mf_build_output(builder, mf_build_argmax(builder, out->logits));
        mf_build_output(builder, out->logits);
        return;
    }
    out->log_probability = mf_build_head(builder, hidden, table, bias, attributes).log_probability;
    mf_build_output(builder, out->log_probability);
    if (purpose_of(program) != MF_SCORE)
        out->loss = mf_build_loss(builder, out->log_probability);
}

/* ---- programs ---- */

static enum mf_status build(struct mf_source *source, struct mf_source_weights weights,
                            struct mf_graph *graph, bool surveying, struct mf_model_program *out,
                            struct mf_error *error) {
    struct mf_builder builder = mf_builder_begin(graph, out->program);
    struct mf_source_program program = {
        .source = source, .weights = weights, .builder = &builder, .out = out, .surveying = surveying};
    struct mf_program_builder own = {.builder = &builder, .program = &program};
    struct mf_error why = {0};
    const int status = source->own.build(source->own.state, &own, &why);
    mf_builder_take_failure(&builder, status, &why, "build()");
    if (!program.ended)
        mf_builder_fail(&builder, MF_ERROR_PROVIDER_UNAVAILABLE, "build() did not call head()");
    return mf_builder_finish(&builder, error);
}

enum mf_status mf_source_build(struct mf_source *source, struct mf_source_weights weights,
                               struct mf_graph *graph, struct mf_model_program *out, struct mf_error *error) {
    return build(source, weights, graph, false, out, error);
}

static enum mf_status keep_weights(struct mf_source *source, const struct mf_graph *graph,
                                   struct mf_error *error) {
    struct mf_decoder_weight *list = calloc((size_t)graph->tensors, sizeof *list);
    if (!list)
        return mf_error_errno(error, ENOMEM, "the list of weights");
    source->weight = list;
    for (int32_t id = 0; id < graph->tensors; id++) {
        const struct mf_tensor *tensor = mf_graph_tensor(graph, id);
        if (tensor->storage != MF_WEIGHT || tensor->view_of >= 0 || !tensor->name ||
            !strncmp(tensor->name, CONSTANT_PREFIX, sizeof CONSTANT_PREFIX - 1))
            continue;
        struct mf_decoder_weight *row = &list[source->weights++];
        snprintf(row->name, sizeof row->name, "%s", tensor->name);
        row->rank = tensor->rank;
        row->dim[0] = tensor->dim[0].multiplier;
        row->dim[1] = tensor->rank > 1 ? tensor->dim[1].multiplier : 1;
    }
    return MF_OK;
}

enum mf_status mf_source_list_weights(const struct mf_source *source, struct mf_decoder_weight **weight,
                                      size_t *count, struct mf_error *error) {
    *weight = malloc((source->weights + 1) * sizeof **weight);
    if (!*weight)
        return mf_error_errno(error, ENOMEM, "the list of weights");
    memcpy(*weight, source->weight, source->weights * sizeof **weight);
    *count = source->weights;
    return MF_OK;
}

static enum mf_status list_modules(const struct mf_source *source, struct mf_model_module **module,
                                   size_t *modules, struct mf_error *error) {
    struct mf_model_module *list = calloc(source->modules + 1, sizeof *list);
    bool whole = list != NULL;
    for (size_t i = 0; whole && i < source->modules; i++) {
        const struct module *own = &source->module[i];
        char *name = strdup(own->name);
        const char *dot = name ? strrchr(name, '.') : NULL;
        whole = name != NULL;
        list[i] = (struct mf_model_module){.name = name,
                                           .suffix = dot ? dot + 1 : name,
                                           .layer = own->layer,
                                           .input_features = own->columns,
                                           .output_features = own->rows};
    }
    if (!whole) {
        mf_decoder_modules_free(list, source->modules);
        return mf_error_errno(error, ENOMEM, "the list of modules");
    }
    *module = list;
    *modules = source->modules;
    return MF_OK;
}

enum mf_status mf_source_survey(struct mf_source *source, struct mf_source_weights weights,
                                enum mf_dtype compute, struct mf_decoder_weight **weight, size_t *count,
                                struct mf_model_module **module, size_t *modules, struct mf_error *error) {
    struct mf_model_program out = {-1, -1, -1, -1, -1};
    struct mf_graph *graph = NULL;
    *weight = NULL;
    enum mf_status status = mf_graph_create(&graph, error);
    if (status == MF_OK)
        status = mf_program_create(graph, MF_EVALUATE, -1, compute, &out.program, error);
    if (status == MF_OK)
        status = build(source, weights, graph, true, &out, error);
    if (status == MF_OK)
        status = keep_weights(source, graph, error);
    if (status == MF_OK)
        status = mf_source_list_weights(source, weight, count, error);
    if (status == MF_OK)
        status = list_modules(source, module, modules, error);
    if (status != MF_OK) {
        free(*weight);
        *weight = NULL;
    }
    mf_graph_destroy(graph);
    return status;
}

enum mf_status mf_source_graph_module(const struct mf_source *source, struct mf_source_weights weights,
                                      struct mf_graph *graph, size_t index, int32_t *id,
                                      struct mf_error *error) {
    return graph_module(&source->module[index], weights, graph, id, error);
}

/* ---- rewriting ---- */

static int32_t replacement(void *user, struct mf_builder *builder, const struct mf_node *node) {
    struct mf_source *source = user;
    struct mf_program_builder own = {.builder = builder};
    struct mf_told_node told;
    struct mf_error why = {0};
    mf_tell_node(node, &told);
    const int32_t result = source->own.rewrite(source->own.state, &own, &told.node, &why);
    if (result < 0 && why.status != MF_OK)
        mf_builder_take_failure(builder, (int)why.status, &why, "rewrite()");
    return result;
}

enum mf_status mf_source_rewrite(struct mf_source *source, struct mf_graph *graph, int32_t program,
                                 struct mf_error *error) {
    return source && source->own.rewrite ? mf_pass_replace(graph, program, replacement, source, error)
                                         : MF_OK;
}
