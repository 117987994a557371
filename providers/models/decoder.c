#include "providers/models/decoder.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const role_names[MF_DECODER_ROLES] = {
    [MF_DECODER_QUERY] = "self_attn.q_proj", [MF_DECODER_KEY] = "self_attn.k_proj",
    [MF_DECODER_VALUE] = "self_attn.v_proj", [MF_DECODER_OUTPUT] = "self_attn.o_proj",
    [MF_DECODER_GATE] = "mlp.gate_proj",     [MF_DECODER_UP] = "mlp.up_proj",
    [MF_DECODER_DOWN] = "mlp.down_proj",
};

static const char embedding_name[] = "model.embed_tokens.weight";
static const char head_name[] = "lm_head";
static const char final_norm_name[] = "model.norm.weight";

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
    return role <= MF_DECODER_OUTPUT ? a->attention_bias : a->mlp_bias;
}

/* ---- what is on disk ---- */

static struct mf_decoder_weight *add_weight(struct mf_decoder_weight *at, int32_t rank, int64_t rows,
                                            int64_t columns) {
    at->rank = rank;
    at->dim[0] = rows;
    at->dim[1] = columns;
    return at + 1;
}

static struct mf_decoder_weight *add_layer(const struct mf_architecture *a, int32_t layer,
                                           struct mf_decoder_weight *at) {
    snprintf(at->name, sizeof at->name, "model.layers.%d.input_layernorm.weight", layer);
    at = add_weight(at, 1, a->hidden, 1);
    for (enum mf_decoder_role role = 0; role < MF_DECODER_ROLES; role++) {
        int64_t output, input;
        if (role == MF_DECODER_GATE) {
            snprintf(at->name, sizeof at->name, "model.layers.%d.post_attention_layernorm.weight", layer);
            at = add_weight(at, 1, a->hidden, 1);
        }
        role_shape(a, role, &output, &input);
        snprintf(at->name, sizeof at->name, "model.layers.%d.%s.weight", layer, role_names[role]);
        at = add_weight(at, 2, output, input);
        if (role_has_bias(a, role)) {
            snprintf(at->name, sizeof at->name, "model.layers.%d.%s.bias", layer, role_names[role]);
            at = add_weight(at, 1, output, 1);
        }
    }
    return at;
}

enum mf_status mf_decoder_weights(const struct mf_architecture *architecture,
                                  struct mf_decoder_weight **weight, size_t *count, struct mf_error *error) {
    size_t most = 3 + (size_t)architecture->layers * (2 + 2 * MF_DECODER_ROLES);
    *weight = calloc(most, sizeof **weight);
    if (!*weight)
        return mf_error_errno(error, ENOMEM, "the list of weights");
    struct mf_decoder_weight *at = *weight;
    snprintf(at->name, sizeof at->name, "%s", embedding_name);
    at = add_weight(at, 2, architecture->vocabulary, architecture->hidden);
    for (int32_t layer = 0; layer < architecture->layers; layer++)
        at = add_layer(architecture, layer, at);
    snprintf(at->name, sizeof at->name, "%s", final_norm_name);
    at = add_weight(at, 1, architecture->hidden, 1);
    if (!architecture->tied_embeddings) {
        snprintf(at->name, sizeof at->name, "%s.weight", head_name);
        at = add_weight(at, 2, architecture->vocabulary, architecture->hidden);
    }
    *count = (size_t)(at - *weight);
    return MF_OK;
}

static bool set_module(struct mf_model_module *module, int32_t layer, const char *name) {
    char text[MF_DECODER_NAME_BYTES];
    if (layer < 0)
        snprintf(text, sizeof text, "%s", name);
    else
        snprintf(text, sizeof text, "model.layers.%d.%s", layer, name);
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
    size_t total = (size_t)architecture->layers * MF_DECODER_ROLES + !architecture->tied_embeddings;
    struct mf_model_module *rows = calloc(total, sizeof *rows);
    bool whole = rows != NULL;
    size_t at = 0;
    for (int32_t layer = 0; layer < architecture->layers && whole; layer++)
        for (enum mf_decoder_role role = 0; role < MF_DECODER_ROLES && whole; role++, at++) {
            role_shape(architecture, role, &rows[at].output_features, &rows[at].input_features);
            whole = set_module(&rows[at], layer, role_names[role]);
        }
    if (whole && !architecture->tied_embeddings) {
        rows[at].output_features = architecture->vocabulary;
        rows[at].input_features = architecture->hidden;
        whole = set_module(&rows[at], -1, head_name);
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

enum mf_status mf_decoder_graph_module(const struct mf_decoder *decoder, struct mf_graph *graph, size_t index,
                                       int32_t *id, struct mf_error *error) {
    const struct mf_model_module *module = &decoder->module[index];
    char name[MF_DECODER_NAME_BYTES];
    int32_t weight, bias = -1;
    snprintf(name, sizeof name, "%s.weight", module->name);
    enum mf_status status = graph_weight(decoder, graph, name, 2, module->output_features,
                                         module->input_features, &weight, error);
    enum mf_decoder_role role = (enum mf_decoder_role)(index % MF_DECODER_ROLES);
    if (status == MF_OK && !module->head && role_has_bias(decoder->architecture, role)) {
        snprintf(name, sizeof name, "%s.bias", module->name);
        status = graph_weight(decoder, graph, name, 1, module->output_features, 1, &bias, error);
    }
    return status ? status : mf_graph_module(graph, module->name, weight, bias, id, error);
}

/* One program in the making. */
struct pass {
    const struct mf_decoder *decoder;
    const struct mf_architecture *a;
    struct mf_builder builder;
    bool cached; /* keys and values go through the cache */
    int32_t rope_table;
};

static int32_t weight(struct pass *pass, const char *name, int rank, int64_t rows, int64_t columns) {
    struct mf_error error;
    int32_t id = -1;
    if (graph_weight(pass->decoder, pass->builder.graph, name, rank, rows, columns, &id, &error))
        mf_builder_fail(&pass->builder, error.status, "%s", error.message);
    return id;
}

static int32_t norm(struct pass *pass, int32_t x, const char *name) {
    return mf_build_rms_norm(&pass->builder, x, weight(pass, name, 1, pass->a->hidden, 1),
                             pass->a->norm_epsilon, MF_NORM_CAST_THEN_SCALE);
}

static int32_t layer_norm(struct pass *pass, int32_t x, const char *name) {
    char full[MF_DECODER_NAME_BYTES];
    snprintf(full, sizeof full, "model.layers.%d.%s.weight", pass->builder.layer, name);
    return norm(pass, x, full);
}

static int32_t linear(struct pass *pass, int32_t x, enum mf_decoder_role role) {
    struct mf_error error;
    int32_t id = -1;
    size_t index = (size_t)pass->builder.layer * MF_DECODER_ROLES + role;
    if (mf_decoder_graph_module(pass->decoder, pass->builder.graph, index, &id, &error))
        mf_builder_fail(&pass->builder, error.status, "%s", error.message);
    return mf_build_linear(&pass->builder, x, &id, 1);
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

/* x (T, D) -> (T, D): q, k, v, rotary positions, attention, output projection. */
static int32_t attention(struct pass *pass, int32_t x) {
    struct mf_builder *builder = &pass->builder;
    const int32_t *input = builder->graph->input;
    struct mf_attention_attributes attributes = {.scale = 1.0f / sqrtf((float)pass->a->head_dim),
                                                 .causal = 1};
    int32_t q = mf_build_heads(builder, linear(pass, x, MF_DECODER_QUERY), pass->a->heads);
    int32_t k = mf_build_heads(builder, linear(pass, x, MF_DECODER_KEY), pass->a->key_value_heads);
    int32_t v = mf_build_heads(builder, linear(pass, x, MF_DECODER_VALUE), pass->a->key_value_heads);
    int32_t y;
    q = mf_build_rope(builder, q, pass->rope_table);
    k = mf_build_rope(builder, k, pass->rope_table);
    if (pass->cached) {
        k = through_cache(pass, "key", k);
        v = through_cache(pass, "value", v);
        y = mf_build_attention(builder, q, k, v, input[MF_INPUT_OFFSETS], input[MF_INPUT_CACHE_OFFSETS],
                               input[MF_INPUT_CACHE_LENGTHS], attributes);
    } else {
        y = mf_build_attention(builder, q, k, v, input[MF_INPUT_OFFSETS], input[MF_INPUT_OFFSETS], -1,
                               attributes);
    }
    return linear(pass, mf_build_merge_heads(builder, y, pass->a->heads), MF_DECODER_OUTPUT);
}

/* x (T, D) -> (T, D) through (T, F). */
static int32_t feed_forward(struct pass *pass, int32_t x) {
    int32_t gate = linear(pass, x, MF_DECODER_GATE), up = linear(pass, x, MF_DECODER_UP);
    int32_t h = mf_build_gated_activation(&pass->builder, gate, up, pass->a->activation);
    return linear(pass, h, MF_DECODER_DOWN);
}

/* The head: its outputs depend on the program's purpose. */
static void head(struct pass *pass, int32_t hidden, int32_t embedding, enum mf_purpose purpose,
                 struct mf_model_program *out) {
    struct mf_builder *builder = &pass->builder;
    struct mf_head_attributes attributes = {.logit_scale = 1};
    int32_t table = embedding;
    if (!pass->a->tied_embeddings) {
        char name[MF_DECODER_NAME_BYTES];
        snprintf(name, sizeof name, "%s.weight", head_name);
        table = weight(pass, name, 2, pass->a->vocabulary, pass->a->hidden);
    }
    if (pass->cached) {
        out->logits =
            mf_build_logits(builder, hidden, table, builder->graph->input[MF_INPUT_LAST_ROWS], attributes);
        out->next_token = mf_build_output(builder, mf_build_argmax(builder, out->logits));
        mf_build_output(builder, out->logits);
        return;
    }
    out->log_probability = mf_build_head(builder, hidden, table, attributes).log_probability;
    mf_build_output(builder, out->log_probability);
    if (purpose != MF_SCORE)
        out->loss = mf_build_loss(builder, out->log_probability);
}

enum mf_status mf_decoder_build(const struct mf_decoder *decoder, struct mf_graph *graph,
                                struct mf_model_program *out, struct mf_error *error) {
    const struct mf_architecture *a = decoder->architecture;
    enum mf_purpose purpose = (enum mf_purpose)graph->program[out->program]->purpose;
    struct pass pass = {.decoder = decoder,
                        .a = a,
                        .builder = mf_builder_begin(graph, out->program),
                        .cached = purpose == MF_PREFILL || purpose == MF_DECODE};
    struct mf_builder *builder = &pass.builder;
    int32_t embedding = weight(&pass, embedding_name, 2, a->vocabulary, a->hidden);
    int32_t frequency = -1;
    struct mf_error cause;
    const int64_t half = a->head_dim / 2;
    if (mf_graph_weight(graph, MF_DECODER_ROPE_NAME, MF_F32, 1, &half, &frequency, &cause))
        mf_builder_fail(builder, cause.status, "%s", cause.message);
    pass.rope_table = mf_build_rope_table(builder, frequency, graph->input[MF_INPUT_POSITIONS], 1);
    int32_t x = mf_build_embedding(builder, embedding, graph->input[MF_INPUT_TOKENS], 1);
    for (int32_t layer = 0; layer < a->layers; layer++) {
        builder->layer = (int16_t)layer;
        x = mf_build_add(builder, x, attention(&pass, layer_norm(&pass, x, "input_layernorm")));
        x = mf_build_add(builder, x, feed_forward(&pass, layer_norm(&pass, x, "post_attention_layernorm")));
    }
    builder->layer = -1;
    head(&pass, norm(&pass, x, final_norm_name), embedding, purpose, out);
    return mf_builder_finish(builder, error);
}
