#include "providers/models/decoder.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What modules and norms are called: those of a layer below "<tree>.layers.N.", the last norm below the tree.
 */
struct names {
    const char *tree;
    const char *role[MF_DECODER_ROLES];
    const char *final_norm;
};

#define LLAMA_ROLES                                                                               \
    {                                                                                             \
        [MF_DECODER_QUERY] = "self_attn.q_proj", [MF_DECODER_KEY] = "self_attn.k_proj",           \
        [MF_DECODER_VALUE] = "self_attn.v_proj", [MF_DECODER_OUTPUT] = "self_attn.o_proj",        \
        [MF_DECODER_GATE] = "mlp.gate_proj", [MF_DECODER_UP] = "mlp.up_proj",                     \
        [MF_DECODER_DOWN] = "mlp.down_proj", [MF_DECODER_QUERY_KEY_VALUE] = "self_attn.qkv_proj", \
        [MF_DECODER_GATE_UP] = "mlp.gate_up_proj",                                                \
    }

static const struct names all_names[] = {
    [MF_NAMES_LLAMA] = {.tree = "model", .role = LLAMA_ROLES, .final_norm = "norm"},
    [MF_NAMES_LANGUAGE_MODEL] = {.tree = "model.language_model", .role = LLAMA_ROLES, .final_norm = "norm"},
    [MF_NAMES_PHI] = {.tree = "model",
                      .role = {[MF_DECODER_QUERY] = "self_attn.q_proj",
                               [MF_DECODER_KEY] = "self_attn.k_proj",
                               [MF_DECODER_VALUE] = "self_attn.v_proj",
                               [MF_DECODER_OUTPUT] = "self_attn.dense",
                               [MF_DECODER_UP] = "mlp.fc1",
                               [MF_DECODER_DOWN] = "mlp.fc2"},
                      .final_norm = "final_layernorm"},
};

/* The modules of a layer. */
struct role_list {
    const enum mf_decoder_role *role;
    size_t count;
};

#define ROLE_LIST(list) ((struct role_list){list, sizeof(list) / sizeof *(list)})

static struct role_list roles_of(const struct mf_architecture *a) {
    static const enum mf_decoder_role single[] = {MF_DECODER_QUERY,  MF_DECODER_KEY,  MF_DECODER_VALUE,
                                                  MF_DECODER_OUTPUT, MF_DECODER_GATE, MF_DECODER_UP,
                                                  MF_DECODER_DOWN};
    static const enum mf_decoder_role fused[] = {MF_DECODER_QUERY_KEY_VALUE, MF_DECODER_OUTPUT,
                                                 MF_DECODER_GATE_UP, MF_DECODER_DOWN};
    static const enum mf_decoder_role plain[] = {MF_DECODER_QUERY,  MF_DECODER_KEY, MF_DECODER_VALUE,
                                                 MF_DECODER_OUTPUT, MF_DECODER_UP,  MF_DECODER_DOWN};
    if (!a->gated)
        return ROLE_LIST(plain);
    return a->fused_projections ? ROLE_LIST(fused) : ROLE_LIST(single);
}

static const char head_name[] = "lm_head";
/* Norms of a layer. Where there are output_norms, attention_norm stands behind attention; a parallel layer
 * has only the first. */
static const char input_norm[] = "input_layernorm";
static const char attention_norm[] = "post_attention_layernorm";
static const char feed_forward_norm[] = "pre_feedforward_layernorm";
static const char output_norm[] = "post_feedforward_layernorm";
static const char query_norm[] = "self_attn.q_norm";
static const char key_norm[] = "self_attn.k_norm";

static const char *tree_of(const struct mf_architecture *a) {
    return all_names[a->names].tree;
}

/* "model.norm". */
static const char *final_norm(const struct mf_architecture *a, char full[MF_DECODER_NAME_BYTES / 2]) {
    snprintf(full, MF_DECODER_NAME_BYTES / 2, "%s.%s", tree_of(a), all_names[a->names].final_norm);
    return full;
}

void mf_decoder_embedding_name(const struct mf_architecture *architecture, char name[MF_DECODER_NAME_BYTES]) {
    snprintf(name, MF_DECODER_NAME_BYTES, "%s.embed_tokens.weight", tree_of(architecture));
}

/* (output, input) features of a role. */
static void role_shape(const struct mf_architecture *a, enum mf_decoder_role role, int64_t *output,
                       int64_t *input) {
    int64_t queries = (int64_t)a->heads * a->head_dim, keys = (int64_t)a->key_value_heads * a->head_dim;
    switch (role) {
    case MF_DECODER_QUERY:
        *output = queries;
        *input = a->hidden;
        break;
    case MF_DECODER_KEY:
    case MF_DECODER_VALUE:
        *output = keys;
        *input = a->hidden;
        break;
    case MF_DECODER_QUERY_KEY_VALUE:
        *output = queries + 2 * keys;
        *input = a->hidden;
        break;
    case MF_DECODER_GATE_UP:
        *output = 2 * (int64_t)a->intermediate;
        *input = a->hidden;
        break;
    case MF_DECODER_OUTPUT:
        *output = a->hidden;
        *input = queries;
        break;
    case MF_DECODER_DOWN:
        *output = a->hidden;
        *input = a->intermediate;
        break;
    default:
        *output = a->intermediate;
        *input = a->hidden;
    }
}

static bool role_has_bias(const struct mf_architecture *a, enum mf_decoder_role role) {
    if (role == MF_DECODER_OUTPUT)
        return a->output_bias;
    return role < MF_DECODER_OUTPUT ? a->attention_bias : a->mlp_bias;
}

/* ---- what is on disk ---- */

static struct mf_decoder_weight *add_weight(struct mf_decoder_weight *at, int32_t rank, int64_t rows,
                                            int64_t columns) {
    at->rank = rank;
    at->dim[0] = rows;
    at->dim[1] = columns;
    return at + 1;
}

/* The weight of the norm `name`, and its bias. */
static struct mf_decoder_weight *add_norm(const struct mf_architecture *a, struct mf_decoder_weight *at,
                                          const char *name, int32_t width) {
    snprintf(at->name, sizeof at->name, "%s.weight", name);
    at = add_weight(at, 1, width, 1);
    if (!a->layer_norm)
        return at;
    snprintf(at->name, sizeof at->name, "%s.bias", name);
    return add_weight(at, 1, width, 1);
}

static struct mf_decoder_weight *add_layer_norm(const struct mf_architecture *a, int32_t layer,
                                                struct mf_decoder_weight *at, const char *name,
                                                int32_t width) {
    char full[MF_DECODER_NAME_BYTES / 2];
    snprintf(full, sizeof full, "%s.layers.%d.%s", tree_of(a), layer, name);
    return add_norm(a, at, full, width);
}

static struct mf_decoder_weight *add_layer(const struct mf_architecture *a, int32_t layer,
                                           struct mf_decoder_weight *at) {
    const struct role_list roles = roles_of(a);
    at = add_layer_norm(a, layer, at, input_norm, a->hidden);
    for (size_t i = 0; i < roles.count; i++) {
        enum mf_decoder_role role = roles.role[i];
        const char *name = all_names[a->names].role[role];
        int64_t output, input;
        if (i > 0 && roles.role[i - 1] == MF_DECODER_OUTPUT && !a->parallel_layer) {
            at = add_layer_norm(a, layer, at, attention_norm, a->hidden);
            if (a->output_norms)
                at = add_layer_norm(a, layer, at, feed_forward_norm, a->hidden);
        }
        role_shape(a, role, &output, &input);
        snprintf(at->name, sizeof at->name, "%s.layers.%d.%s.weight", tree_of(a), layer, name);
        at = add_weight(at, 2, output, input);
        if (role_has_bias(a, role)) {
            snprintf(at->name, sizeof at->name, "%s.layers.%d.%s.bias", tree_of(a), layer, name);
            at = add_weight(at, 1, output, 1);
        }
        if (a->query_key_norm && (role == MF_DECODER_QUERY || role == MF_DECODER_KEY))
            at = add_layer_norm(a, layer, at, role == MF_DECODER_QUERY ? query_norm : key_norm, a->head_dim);
    }
    return a->output_norms ? add_layer_norm(a, layer, at, output_norm, a->hidden) : at;
}

enum { LAYER_NORMS = 6 };

enum mf_status mf_decoder_weights(const struct mf_architecture *architecture,
                                  struct mf_decoder_weight **weight, size_t *count, struct mf_error *error) {
    size_t most = 5 + (size_t)architecture->layers * (2 * LAYER_NORMS + 2 * MF_DECODER_ROLES);
    *weight = calloc(most, sizeof **weight);
    if (!*weight)
        return mf_error_errno(error, ENOMEM, "the list of weights");
    struct mf_decoder_weight *at = *weight;
    char name[MF_DECODER_NAME_BYTES / 2];
    mf_decoder_embedding_name(architecture, at->name);
    at = add_weight(at, 2, architecture->vocabulary, architecture->hidden);
    for (int32_t layer = 0; layer < architecture->layers; layer++)
        at = add_layer(architecture, layer, at);
    at = add_norm(architecture, at, final_norm(architecture, name), architecture->hidden);
    if (!architecture->tied_embeddings) {
        snprintf(at->name, sizeof at->name, "%s.weight", head_name);
        at = add_weight(at, 2, architecture->vocabulary, architecture->hidden);
    }
    if (architecture->head_bias) {
        snprintf(at->name, sizeof at->name, "%s.bias", head_name);
        at = add_weight(at, 1, architecture->vocabulary, 1);
    }
    *count = (size_t)(at - *weight);
    return MF_OK;
}

static bool set_module(struct mf_model_module *module, const char *tree, int32_t layer, const char *name) {
    char text[MF_DECODER_NAME_BYTES];
    if (layer < 0)
        snprintf(text, sizeof text, "%s", name);
    else
        snprintf(text, sizeof text, "%s.layers.%d.%s", tree, layer, name);
    char *copy = strdup(text);
    if (!copy)
        return false;
    const char *dot = strrchr(copy, '.');
    module->name = copy;
    module->suffix = dot ? dot + 1 : copy;
    module->layer = layer;
    module->head = layer < 0;
    return true;
}

enum mf_status mf_decoder_modules(const struct mf_architecture *architecture, struct mf_model_module **module,
                                  size_t *count, struct mf_error *error) {
    const struct role_list roles = roles_of(architecture);
    size_t total = (size_t)architecture->layers * roles.count + !architecture->tied_embeddings;
    struct mf_model_module *rows = calloc(total, sizeof *rows);
    bool whole = rows != NULL;
    size_t at = 0;
    for (int32_t layer = 0; layer < architecture->layers && whole; layer++)
        for (size_t i = 0; i < roles.count && whole; i++, at++) {
            role_shape(architecture, roles.role[i], &rows[at].output_features, &rows[at].input_features);
            whole = set_module(&rows[at], tree_of(architecture), layer,
                               all_names[architecture->names].role[roles.role[i]]);
        }
    if (whole && !architecture->tied_embeddings) {
        rows[at].output_features = architecture->vocabulary;
        rows[at].input_features = architecture->hidden;
        whole = set_module(&rows[at], "", -1, head_name);
    }
    if (!whole) {
        mf_decoder_modules_free(rows, total);
        return mf_error_errno(error, ENOMEM, "the list of modules");
    }
    *module = rows;
    *count = total;
    return MF_OK;
}

void mf_decoder_modules_free(struct mf_model_module *module, size_t count) {
    for (size_t i = 0; module && i < count; i++)
        free((char *)module[i].name);
    free(module);
}

/* ---- the forward pass ---- */

static enum mf_status graph_weight(const struct mf_decoder *decoder, struct mf_graph *graph, const char *name,
                                   int rank, int64_t rows, int64_t columns, int32_t *id,
                                   struct mf_error *error) {
    int64_t dim[2] = {rows, columns};
    return mf_graph_weight(graph, name, decoder->weight_dtype(decoder->owner, name), rank, dim, id, error);
}

/* The modules that a fusing decoder multiplies by in one product: `count` from `first` on, `index` among
 * them; one, where it fuses none. */
struct group {
    size_t first, count;
};

/* Heads that are normed one by one must lie one behind the other: their projections stay apart. */
static bool fuses_attention(const struct mf_decoder *decoder) {
    return decoder->fuse && !decoder->architecture->query_key_norm;
}

static struct group group_of(const struct mf_decoder *decoder, size_t index) {
    const struct role_list roles = roles_of(decoder->architecture);
    const size_t at = index % roles.count, layer = index - at;
    if (decoder->fuse && !decoder->module[index].head && !decoder->architecture->fused_projections) {
        const enum mf_decoder_role role = roles.role[at];
        if (role <= MF_DECODER_VALUE && fuses_attention(decoder))
            return (struct group){layer, 3};
        if (decoder->architecture->gated && (role == MF_DECODER_GATE || role == MF_DECODER_UP))
            return (struct group){layer + at - (role == MF_DECODER_UP), 2};
    }
    return (struct group){index, 1};
}

/* Weight or bias of a module that is fused with others: rows of one tensor, named by them all. */
static enum mf_status graph_rows(const struct mf_decoder *decoder, struct mf_graph *graph, struct group group,
                                 size_t index, const char *part, int rank, int32_t *id,
                                 struct mf_error *error) {
    char name[MF_DECODER_NAME_BYTES], whole[MF_DECODER_FUSED_BYTES] = "";
    int64_t rows = 0, first = 0;
    int32_t owner = -1;
    for (size_t i = group.first; i < group.first + group.count; i++) {
        const struct mf_model_module *module = &decoder->module[i];
        const size_t length = strlen(whole);
        first = i == index ? rows : first;
        rows += module->output_features;
        (void)snprintf(whole + length, sizeof whole - length, "%s%s.%s", length ? MF_DECODER_FUSED : "",
                       module->name, part);
    }
    (void)snprintf(name, sizeof name, "%s.%s", decoder->module[index].name, part);
    *id = mf_graph_find_shared(graph, name);
    if (*id >= 0)
        return MF_OK;
    const int64_t dim[2] = {rows, decoder->module[index].input_features};
    enum mf_status status =
        mf_graph_weight(graph, whole, decoder->weight_dtype(decoder->owner, name), rank, dim, &owner, error);
    return status ? status
                  : mf_graph_weight_rows(graph, name, owner, first, decoder->module[index].output_features,
                                         id, error);
}

/* Weight (rank 2) or bias (rank 1) of module `index`. */
static enum mf_status module_part(const struct mf_decoder *decoder, struct mf_graph *graph, size_t index,
                                  const char *part, int rank, int32_t *id, struct mf_error *error) {
    const struct mf_model_module *module = &decoder->module[index];
    const struct group group = group_of(decoder, index);
    char name[MF_DECODER_NAME_BYTES];
    if (group.count > 1)
        return graph_rows(decoder, graph, group, index, part, rank, id, error);
    snprintf(name, sizeof name, "%s.%s", module->name, part);
    return graph_weight(decoder, graph, name, rank, module->output_features,
                        rank == 2 ? module->input_features : 1, id, error);
}

enum mf_status mf_decoder_graph_module(const struct mf_decoder *decoder, struct mf_graph *graph, size_t index,
                                       int32_t *id, struct mf_error *error) {
    const struct mf_model_module *module = &decoder->module[index];
    int32_t weight, bias = -1;
    enum mf_status status = module_part(decoder, graph, index, "weight", 2, &weight, error);
    const struct role_list roles = roles_of(decoder->architecture);
    enum mf_decoder_role role = roles.role[index % roles.count];
    if (status == MF_OK && !module->head && role_has_bias(decoder->architecture, role))
        status = module_part(decoder, graph, index, "bias", 1, &bias, error);
    return status ? status : mf_graph_module(graph, module->name, weight, bias, id, error);
}

/* One program in the making. */
struct pass {
    const struct mf_decoder *decoder;
    const struct mf_architecture *a;
    struct mf_builder builder;
    bool cached;   /* keys and values go through the cache */
    bool training; /* with dropout */
    int32_t rope_table, window_rope_table;
};

/* What the program's slot computes with instead of the weight `name`; -1: with the model's. */
static int32_t trained_weight(const struct pass *pass, const char *name) {
    const struct mf_graph *graph = pass->builder.graph;
    const struct mf_trained *trained =
        mf_graph_find_trained(graph, graph->program[pass->builder.program]->slot, name);
    return trained ? trained->computed : -1;
}

static int32_t frozen_weight(struct pass *pass, const char *name, int rank, int64_t rows, int64_t columns) {
    struct mf_error error;
    int32_t id = -1;
    if (graph_weight(pass->decoder, pass->builder.graph, name, rank, rows, columns, &id, &error))
        mf_builder_fail(&pass->builder, error.status, "%s", error.message);
    return id;
}

static int32_t weight(struct pass *pass, const char *name, int rank, int64_t rows, int64_t columns) {
    const int32_t trained = trained_weight(pass, name);
    return trained >= 0 ? trained : frozen_weight(pass, name, rank, rows, columns);
}

/* The norm `name`, of rows of `width` elements. */
static int32_t norm(struct pass *pass, int32_t x, const char *name, int32_t width) {
    char full[MF_DECODER_NAME_BYTES];
    snprintf(full, sizeof full, "%s.weight", name);
    int32_t scale = weight(pass, full, 1, width, 1);
    if (!pass->a->layer_norm)
        return mf_build_rms_norm(&pass->builder, x, scale, pass->a->norm_epsilon, pass->a->norm);
    snprintf(full, sizeof full, "%s.bias", name);
    return mf_build_layer_norm(&pass->builder, x, scale, weight(pass, full, 1, width, 1),
                               pass->a->norm_epsilon);
}

static int32_t named_norm(struct pass *pass, int32_t x, const char *name, int32_t width) {
    char full[MF_DECODER_NAME_BYTES / 2];
    snprintf(full, sizeof full, "%s.layers.%d.%s", tree_of(pass->a), pass->builder.layer, name);
    return norm(pass, x, full, width);
}

static int32_t layer_norm(struct pass *pass, int32_t x, const char *name) {
    return named_norm(pass, x, name, pass->a->hidden);
}

/* The index of this layer's module of a role. */
static size_t module_index(const struct pass *pass, enum mf_decoder_role role) {
    const struct role_list roles = roles_of(pass->a);
    size_t index = (size_t)pass->builder.layer * roles.count;
    for (size_t i = 0; i < roles.count && roles.role[i] != role; i++)
        index++;
    return index;
}

/* `count` modules from `role` on, which are one module or fused. */
static int32_t linears(struct pass *pass, int32_t x, enum mf_decoder_role role, int count) {
    struct mf_error error;
    int32_t id[3] = {-1, -1, -1};
    const size_t index = module_index(pass, role);
    for (int i = 0; i < count; i++)
        if (mf_decoder_graph_module(pass->decoder, pass->builder.graph, index + (size_t)i, &id[i], &error))
            mf_builder_fail(&pass->builder, error.status, "%s", error.message);
    return mf_build_linear(&pass->builder, x, id, count);
}

/* A module that is trained as a whole is a weight, with no frozen one beside it and no adapter on it. */
static int32_t linear(struct pass *pass, int32_t x, enum mf_decoder_role role) {
    const struct mf_model_module *module = &pass->decoder->module[module_index(pass, role)];
    char name[MF_DECODER_NAME_BYTES];
    snprintf(name, sizeof name, "%s.weight", module->name);
    const int32_t trained = trained_weight(pass, name);
    if (trained < 0)
        return linears(pass, x, role, 1);
    int32_t in[] = {x, trained, -1};
    snprintf(name, sizeof name, "%s.bias", module->name);
    if (role_has_bias(pass->a, role))
        in[2] = weight(pass, name, 1, module->output_features, 1);
    return mf_emit(&pass->builder, MF_OP_LINEAR, in, 3, &(union mf_attributes){.linear = {.alpha = 1}});
}

/* The next version of this layer's cache of keys or values with `rows` (T, G, d) written into it. */
static int32_t through_cache(struct pass *pass, const char *kind, int32_t rows) {
    struct mf_graph *graph = pass->builder.graph;
    struct mf_error error;
    char name[MF_DECODER_NAME_BYTES];
    int32_t cache = -1;
    const struct mf_dim dim[3] = {mf_dim_symbol(MF_CACHE, 1), mf_dim_const(pass->a->key_value_heads),
                                  mf_dim_const(pass->a->head_dim)};
    snprintf(name, sizeof name, "cache.%d.%s", pass->builder.layer, kind);
    enum mf_dtype dtype = (enum mf_dtype)graph->program[pass->builder.program]->dtype;
    if (mf_graph_state(graph, name, dtype, 3, dim, &cache, &error))
        mf_builder_fail(&pass->builder, error.status, "%s", error.message);
    return mf_build_cache_write(&pass->builder, cache, rows, graph->input[MF_INPUT_CACHE_SLOTS]);
}

/* x (T, D) -> q (T, H * d), k and v (T, G * d). */
static void project(struct pass *pass, int32_t x, int32_t *q, int32_t *k, int32_t *v) {
    const int32_t queries = pass->a->heads * pass->a->head_dim;
    const int32_t keys = pass->a->key_value_heads * pass->a->head_dim;
    if (!pass->a->fused_projections && !fuses_attention(pass->decoder)) {
        *q = linear(pass, x, MF_DECODER_QUERY);
        *k = linear(pass, x, MF_DECODER_KEY);
        *v = linear(pass, x, MF_DECODER_VALUE);
        return;
    }
    const int32_t all = pass->a->fused_projections ? linear(pass, x, MF_DECODER_QUERY_KEY_VALUE)
                                                   : linears(pass, x, MF_DECODER_QUERY, 3);
    *q = mf_build_columns(&pass->builder, all, 0, queries);
    *k = mf_build_columns(&pass->builder, all, queries, keys);
    *v = mf_build_columns(&pass->builder, all, queries + keys, keys);
}

/* q or k, y (T, heads * d) -> (T, heads, d): normed head by head, rotated. */
static int32_t rotated(struct pass *pass, int32_t y, const char *norm_name, int32_t heads) {
    struct mf_builder *builder = &pass->builder;
    const struct mf_architecture *a = pass->a;
    if (a->query_key_norm) {
        y = named_norm(pass, mf_build_head_rows(builder, y, heads), norm_name, a->head_dim);
        y = mf_build_merge_heads(builder, y, heads);
    }
    bool own = a->window_has_rope && a->windowed[builder->layer];
    return mf_build_rope(builder, mf_build_heads(builder, y, heads),
                         own ? pass->window_rope_table : pass->rope_table);
}

/* x (T, D) -> (T, D): q, k, v, rotary positions, attention, output projection. */
static int32_t attention(struct pass *pass, int32_t x) {
    struct mf_builder *builder = &pass->builder;
    const struct mf_architecture *a = pass->a;
    const int32_t *input = builder->graph->input;
    struct mf_attention_attributes attributes = {.scale = a->attention_scale,
                                                 .soft_cap = a->attention_soft_cap,
                                                 .window = a->windowed[builder->layer] ? a->window : 0,
                                                 .causal = 1};
    int32_t q, k, v, y;
    project(pass, x, &q, &k, &v);
    q = rotated(pass, q, query_norm, a->heads);
    k = rotated(pass, k, key_norm, a->key_value_heads);
    v = mf_build_heads(builder, v, a->key_value_heads);
    if (pass->cached) {
        k = through_cache(pass, "key", k);
        v = through_cache(pass, "value", v);
        y = mf_build_attention(builder, q, k, v, input[MF_INPUT_OFFSETS], input[MF_INPUT_CACHE_OFFSETS],
                               input[MF_INPUT_CACHE_LENGTHS], attributes);
    } else {
        y = mf_build_attention(builder, q, k, v, input[MF_INPUT_OFFSETS], input[MF_INPUT_OFFSETS], -1,
                               attributes);
    }
    return linear(pass, mf_build_merge_heads(builder, y, a->heads), MF_DECODER_OUTPUT);
}

/* x (T, D) -> (T, D) through (T, F). */
static int32_t feed_forward(struct pass *pass, int32_t x) {
    int32_t gate, up;
    if (!pass->a->gated) {
        up = linear(pass, x, MF_DECODER_UP);
        return linear(pass, mf_build_activation(&pass->builder, up, pass->a->activation), MF_DECODER_DOWN);
    }
    if (pass->a->fused_projections || pass->decoder->fuse) {
        const int32_t both = pass->a->fused_projections ? linear(pass, x, MF_DECODER_GATE_UP)
                                                        : linears(pass, x, MF_DECODER_GATE, 2);
        gate = mf_build_columns(&pass->builder, both, 0, pass->a->intermediate);
        up = mf_build_columns(&pass->builder, both, pass->a->intermediate, pass->a->intermediate);
    } else {
        gate = linear(pass, x, MF_DECODER_GATE);
        up = linear(pass, x, MF_DECODER_UP);
    }
    int32_t h = mf_build_gated_activation(&pass->builder, gate, up, pass->a->activation);
    return linear(pass, h, MF_DECODER_DOWN);
}

/* What the head multiplies by. A tied one has the table of tokens, the model's own where only the copy that
 * tokens are read from is trained, unless it is trained alone. */
static int32_t head_table(struct pass *pass, int32_t embedding) {
    const struct mf_graph *graph = pass->builder.graph;
    char name[MF_DECODER_NAME_BYTES], embedding_name[MF_DECODER_NAME_BYTES];
    snprintf(name, sizeof name, "%s.weight", head_name);
    mf_decoder_embedding_name(pass->a, embedding_name);
    if (!pass->a->tied_embeddings)
        return weight(pass, name, 2, pass->a->vocabulary, pass->a->hidden);
    const int32_t trained = trained_weight(pass, name);
    const struct mf_trained *table =
        mf_graph_find_trained(graph, graph->program[pass->builder.program]->slot, embedding_name);
    if (trained >= 0)
        return trained;
    return table && table->beside
               ? frozen_weight(pass, embedding_name, 2, pass->a->vocabulary, pass->a->hidden)
               : embedding;
}

/* The head: its outputs depend on the program's purpose. */
static void head(struct pass *pass, int32_t hidden, int32_t embedding, enum mf_purpose purpose,
                 struct mf_model_program *out) {
    struct mf_builder *builder = &pass->builder;
    struct mf_head_attributes attributes = {.logit_scale = 1, .soft_cap = pass->a->final_soft_cap};
    char name[MF_DECODER_NAME_BYTES];
    const int32_t table = head_table(pass, embedding);
    int32_t bias = -1;
    if (pass->a->head_bias) {
        snprintf(name, sizeof name, "%s.bias", head_name);
        bias = weight(pass, name, 1, pass->a->vocabulary, 1);
    }
    if (pass->cached) {
        out->logits = mf_build_logits(builder, hidden, table, bias, builder->graph->input[MF_INPUT_LAST_ROWS],
                                      attributes);
        out->next_token = mf_build_output(builder, mf_build_argmax(builder, out->logits));
        mf_build_output(builder, out->logits);
        return;
    }
    out->log_probability = mf_build_head(builder, hidden, table, bias, attributes).log_probability;
    mf_build_output(builder, out->log_probability);
    if (purpose != MF_SCORE)
        out->loss = mf_build_loss(builder, out->log_probability);
}

/* Cosines and sines of the positions for the frequencies in the weight `name`. */
static int32_t rope_table(struct pass *pass, const char *name, const struct mf_rope *rope) {
    struct mf_builder *builder = &pass->builder;
    const int64_t pairs = rope->columns / 2;
    struct mf_error cause;
    int32_t frequency = -1;
    if (mf_graph_weight(builder->graph, name, MF_F32, 1, &pairs, &frequency, &cause))
        mf_builder_fail(builder, cause.status, "%s", cause.message);
    return mf_build_rope_table(builder, frequency, builder->graph->input[MF_INPUT_POSITIONS],
                               (float)rope->attention_factor);
}

/* Transformers holds the factor in the dtype of the weights. */
static float embedding_scale(const struct mf_architecture *a, enum mf_dtype dtype) {
    float scale = a->scaled_embeddings ? (float)sqrt((double)a->hidden) : 1.0f;
    return dtype == MF_BF16 ? mf_bf16_to_f32(mf_f32_to_bf16(scale)) : scale;
}

/* What a part of a layer adds, in training with elements left out at random. */
static int32_t dropped(struct pass *pass, int32_t x, const char *part) {
    char name[MF_DECODER_NAME_BYTES];
    if (!pass->training || !(pass->a->layer_dropout > 0))
        return x;
    snprintf(name, sizeof name, "%s.layers.%d.%s.dropout", tree_of(pass->a), pass->builder.layer, part);
    return mf_build_dropout(&pass->builder, x, pass->a->layer_dropout, name);
}

/* x (T, D) -> (T, D): one layer whose parts stand side by side. */
static int32_t parallel_layer(struct pass *pass, int32_t x) {
    int32_t normed = layer_norm(pass, x, input_norm);
    int32_t y = dropped(pass, attention(pass, normed), "self_attn");
    y = mf_build_add(&pass->builder, y, dropped(pass, feed_forward(pass, normed), "mlp"));
    return mf_build_add(&pass->builder, x, y);
}

/* x (T, D) -> (T, D): one layer. */
static int32_t layer(struct pass *pass, int32_t x) {
    if (pass->a->parallel_layer)
        return parallel_layer(pass, x);
    const bool output_norms = pass->a->output_norms;
    int32_t y = attention(pass, layer_norm(pass, x, input_norm));
    if (output_norms)
        y = layer_norm(pass, y, attention_norm);
    y = dropped(pass, y, "self_attn");
    x = mf_build_add(&pass->builder, x, y);
    y = feed_forward(pass, layer_norm(pass, x, output_norms ? feed_forward_norm : attention_norm));
    if (output_norms)
        y = layer_norm(pass, y, output_norm);
    y = dropped(pass, y, "mlp");
    return mf_build_add(&pass->builder, x, y);
}

enum mf_status mf_decoder_build(const struct mf_decoder *decoder, struct mf_graph *graph,
                                struct mf_model_program *out, struct mf_error *error) {
    const struct mf_architecture *a = decoder->architecture;
    const struct mf_program *program = graph->program[out->program];
    enum mf_purpose purpose = (enum mf_purpose)program->purpose;
    float scale = embedding_scale(a, (enum mf_dtype)program->dtype);
    struct pass pass = {.decoder = decoder,
                        .a = a,
                        .builder = mf_builder_begin(graph, out->program),
                        .cached = purpose == MF_PREFILL || purpose == MF_DECODE,
                        .training = purpose == MF_TRAIN};
    struct mf_builder *builder = &pass.builder;
    char name[MF_DECODER_NAME_BYTES], norm_name[MF_DECODER_NAME_BYTES / 2];
    mf_decoder_embedding_name(a, name);
    int32_t embedding = weight(&pass, name, 2, a->vocabulary, a->hidden);
    pass.rope_table = rope_table(&pass, MF_DECODER_ROPE_NAME, &a->rope);
    if (a->window_has_rope)
        pass.window_rope_table = rope_table(&pass, MF_DECODER_WINDOW_ROPE_NAME, &a->window_rope);
    int32_t x = mf_build_embedding(builder, embedding, graph->input[MF_INPUT_TOKENS], scale);
    for (int32_t i = 0; i < a->layers; i++) {
        builder->layer = (int16_t)i;
        x = layer(&pass, x);
    }
    builder->layer = -1;
    x = norm(&pass, x, final_norm(a, norm_name), a->hidden);
    head(&pass, x, embedding, purpose, out);
    return mf_builder_finish(builder, error);
}
