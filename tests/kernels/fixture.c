#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHTS = 64, HEADS = 2, HEAD_SIZE = 4, INNER = 10 };
static void *weight_data[WEIGHTS]; /* of the fixture in use; freed by fixture_end */
static int weights;

void require_ok(enum mf_status status, const struct mf_error *error) {
    if (status != MF_OK)
        fail_msg("%s: %s", mf_status_code(status), error->message);
}

struct mf_dim symbol_dim(enum mf_symbol symbol, int32_t multiplier) {
    return mf_dim_symbol(symbol, multiplier);
}

void fixture_begin(struct fixture *fixture) {
    struct mf_backend *backend;
    struct mf_error error;
    require_ok(mf_cpu_reference_create(&backend, &error), &error);
    fixture_begin_on(fixture, backend, MF_F32);
}

void fixture_begin_on(struct fixture *fixture, struct mf_backend *backend, enum mf_dtype dtype) {
    struct mf_error error;
    memset(fixture, 0, sizeof *fixture);
    fixture->random = 20251125;
    fixture->backend = backend;
    require_ok(mf_graph_create(&fixture->graph, &error), &error);
    require_ok(mf_program_create(fixture->graph, MF_TRAIN, 0, dtype, &fixture->program, &error), &error);
    mf_program_set_bound(fixture->graph, fixture->program, MF_TOKENS, TOKENS);
    mf_program_set_bound(fixture->graph, fixture->program, MF_SEQUENCES, SEQUENCES);
    mf_program_set_bound(fixture->graph, fixture->program, MF_LABELLED, LABELLED);
    mf_program_set_bound(fixture->graph, fixture->program, MF_CACHE, CACHE);
    fixture->builder = mf_builder_begin(fixture->graph, fixture->program);
    fixture->step = (struct mf_step){
        .learning_rate = 0.125f, .inverse_count = 0.25f, .step = 3, .optimizer_step = 1, .seed = 42};
    fixture->step.value[MF_TOKENS] = TOKENS;
    fixture->step.value[MF_SEQUENCES] = SEQUENCES;
    fixture->step.value[MF_OFFSETS] = SEQUENCES + 1;
    fixture->step.value[MF_LABELLED] = LABELLED;
    fixture->step.value[MF_CACHE] = CACHE;
}

float fixture_random(struct fixture *fixture) {
    fixture->random = fixture->random * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(fixture->random >> 32) / 2147483648.0f;
}

int64_t fixture_elements(const struct fixture *fixture, int32_t tensor) {
    return mf_tensor_elements(mf_graph_tensor(fixture->graph, tensor), fixture->step.value);
}

float *fixture_data(struct fixture *fixture, int32_t tensor) {
    return mf_executor_data(fixture->executor, tensor);
}

void fixture_fill(struct fixture *fixture, int32_t tensor) {
    float *data = fixture_data(fixture, tensor);
    for (int64_t i = 0; i < fixture_elements(fixture, tensor); i++)
        data[i] = fixture_random(fixture);
}

static void write_input(struct fixture *fixture, enum mf_graph_input input, const int32_t *values,
                        size_t count) {
    memcpy(mf_executor_data(fixture->executor, fixture->graph->input[input]), values, count * sizeof *values);
}

static void write_batch(struct fixture *fixture) {
    const int32_t tokens[TOKENS] = {1, 12, 0, 5, 5, 7, 3}, positions[TOKENS] = {0, 1, 2, 3, 0, 0, 1},
                  rows[TOKENS] = {40, 40, 40, 40, 7, 9, 9}, offsets[SEQUENCES + 1] = {0, 4, 5, 7},
                  label_rows[LABELLED] = {1, 4, 6}, labels[LABELLED] = {0, 12, 5},
                  last_rows[SEQUENCES] = {3, 4, 6}, slots[TOKENS] = {0, 1, 2, 3, 5, 8, 9},
                  cache_offsets[SEQUENCES + 1] = {0, 5, 8, 11}, cache_lengths[SEQUENCES] = {4, 1, 2};
    float *coefficients = fixture_data(fixture, fixture->graph->input[MF_INPUT_COEFFICIENTS]);
    write_input(fixture, MF_INPUT_TOKENS, tokens, TOKENS);
    write_input(fixture, MF_INPUT_POSITIONS, positions, TOKENS);
    write_input(fixture, MF_INPUT_ROWS, rows, TOKENS);
    write_input(fixture, MF_INPUT_OFFSETS, offsets, SEQUENCES + 1);
    write_input(fixture, MF_INPUT_LABEL_ROWS, label_rows, LABELLED);
    write_input(fixture, MF_INPUT_LABELS, labels, LABELLED);
    write_input(fixture, MF_INPUT_LAST_ROWS, last_rows, SEQUENCES);
    write_input(fixture, MF_INPUT_CACHE_SLOTS, slots, TOKENS);
    write_input(fixture, MF_INPUT_CACHE_OFFSETS, cache_offsets, SEQUENCES + 1);
    write_input(fixture, MF_INPUT_CACHE_LENGTHS, cache_lengths, SEQUENCES);
    for (int i = 0; i < LABELLED; i++)
        coefficients[i] = 1 + (float)i / 2;
}

static void bind_weights(struct fixture *fixture) {
    struct mf_error error;
    for (int32_t i = 0; i < fixture->graph->tensors; i++) {
        const struct mf_tensor *tensor = mf_graph_tensor(fixture->graph, i);
        if (!mf_tensor_is_bound(tensor))
            continue;
        int64_t elements = mf_tensor_elements(tensor, NULL);
        float *data = malloc((size_t)elements * sizeof *data);
        assert_non_null(data);
        assert_true(weights < WEIGHTS);
        weight_data[weights++] = data;
        for (int64_t e = 0; e < elements; e++)
            data[e] = fixture_random(fixture);
        require_ok(
            mf_executor_bind_weight(fixture->executor, i, data, (size_t)elements * sizeof *data, &error),
            &error);
    }
}

void fixture_realize(struct fixture *fixture, const struct mf_executor_options *options) {
    struct mf_error error;
    require_ok(mf_builder_finish(&fixture->builder, &error), &error);
    require_ok(mf_plan_create(fixture->graph, fixture->backend, 0, &fixture->plan, &error), &error);
    require_ok(mf_executor_create(fixture->graph, fixture->plan, fixture->backend, options,
                                  &fixture->executor, &error),
               &error);
    bind_weights(fixture);
    write_batch(fixture);
    require_ok(mf_executor_prepare(fixture->executor, &error), &error);
}

void fixture_run(struct fixture *fixture) {
    struct mf_error error;
    require_ok(mf_executor_run(fixture->executor, fixture->program, &fixture->step, &error), &error);
}

void fixture_end(struct fixture *fixture) {
    mf_executor_destroy(fixture->executor);
    mf_plan_destroy(fixture->plan);
    mf_graph_destroy(fixture->graph);
    mf_backend_destroy(fixture->backend);
    while (weights > 0)
        free(weight_data[--weights]);
}

int32_t fixture_input(struct fixture *fixture, const char *name, int rank, struct mf_dim d0, struct mf_dim d1,
                      struct mf_dim d2) {
    const struct mf_dim dim[3] = {d0, d1, d2};
    struct mf_error error;
    int32_t id;
    require_ok(mf_graph_extra_input(fixture->graph, name, MF_F32, rank, dim, &id, &error), &error);
    return id;
}

int32_t fixture_matrix(struct fixture *fixture, const char *name) {
    return fixture_input(fixture, name, 2, symbol_dim(MF_TOKENS, 1), mf_dim_const(WIDTH), mf_dim_const(1));
}

int32_t fixture_weight(struct fixture *fixture, const char *name, int64_t rows, int64_t columns) {
    const int64_t dim[2] = {rows, columns};
    struct mf_error error;
    int32_t id;
    require_ok(mf_graph_weight(fixture->graph, name, MF_F32, columns ? 2 : 1, dim, &id, &error), &error);
    return id;
}

int32_t fixture_parameter(struct fixture *fixture, const char *name, int64_t rows, int64_t columns) {
    const int64_t dim[2] = {rows, columns};
    struct mf_error error;
    int32_t id;
    require_ok(mf_graph_parameter(fixture->graph, 0, name, columns ? 2 : 1, dim, 0, &id, &error), &error);
    return id;
}

/* The weight `name` of a graph, which may be the fixture's or not; or what `slot` trains in its place. */
static int32_t named_weight(struct mf_graph *graph, int16_t slot, const char *name, int64_t rows,
                            int64_t columns) {
    const int64_t dim[2] = {rows, columns};
    const struct mf_trained *trained = mf_graph_find_trained(graph, slot, name);
    struct mf_error error;
    int32_t id;
    if (trained)
        return trained->computed;
    require_ok(mf_graph_weight(graph, name, MF_F32, columns ? 2 : 1, dim, &id, &error), &error);
    return id;
}

static const struct {
    const char *name;
    int rows, columns;
} modules[] = {{"q", HEADS *HEAD_SIZE, WIDTH}, {"k", HEAD_SIZE, WIDTH}, {"v", HEAD_SIZE, WIDTH},
               {"o", WIDTH, HEADS *HEAD_SIZE}, {"gate", INNER, WIDTH},  {"up", INNER, WIDTH},
               {"down", WIDTH, INNER}};
enum { Q, K, V, O, GATE, UP, DOWN, MODULES };

static int32_t module(struct mf_graph *graph, int layer, int index) {
    char name[64], weight[80];
    struct mf_error error;
    int32_t id;
    snprintf(name, sizeof name, "layers.%d.%s", layer, modules[index].name);
    snprintf(weight, sizeof weight, "%s.weight", name);
    require_ok(mf_graph_module(graph, name,
                               named_weight(graph, -1, weight, modules[index].rows, modules[index].columns),
                               -1, &id, &error),
               &error);
    return id;
}

static int16_t slot_of(const struct mf_builder *builder) {
    return builder->graph->program[builder->program]->slot;
}

static int32_t linear(struct mf_builder *builder, int32_t x, int layer, int index) {
    char weight[80], bias[80];
    snprintf(weight, sizeof weight, "layers.%d.%s.weight", layer, modules[index].name);
    snprintf(bias, sizeof bias, "layers.%d.%s.bias", layer, modules[index].name);
    if (mf_graph_find_trained(builder->graph, slot_of(builder), weight)) {
        const int32_t in[] = {x, named_weight(builder->graph, slot_of(builder), weight, 0, 0),
                              named_weight(builder->graph, slot_of(builder), bias, 0, 0)};
        return mf_emit(builder, MF_OP_LINEAR, in, 3, &(union mf_attributes){.linear = {.alpha = 1}});
    }
    int32_t id = module(builder->graph, layer, index);
    return mf_build_linear(builder, x, &id, 1);
}

static int32_t norm(struct mf_builder *builder, int32_t x, int layer, const char *part) {
    char name[64];
    snprintf(name, sizeof name, "layers.%d.%s", layer, part);
    return mf_build_rms_norm(builder, x, named_weight(builder->graph, slot_of(builder), name, WIDTH, 0),
                             1e-5f, MF_NORM_CAST_THEN_SCALE);
}

static int32_t rotated(struct mf_builder *builder, int32_t x, int32_t heads, int32_t table) {
    return mf_build_rope(builder, mf_build_heads(builder, x, heads), table);
}

static int32_t decoder_layer(struct mf_builder *builder, int32_t hidden, int32_t table, int layer) {
    const int32_t offsets = builder->graph->input[MF_INPUT_OFFSETS];
    builder->layer = (int16_t)layer;
    int32_t x = norm(builder, hidden, layer, "input_norm");
    int32_t q = rotated(builder, linear(builder, x, layer, Q), HEADS, table);
    int32_t k = rotated(builder, linear(builder, x, layer, K), 1, table);
    int32_t v = mf_build_heads(builder, linear(builder, x, layer, V), 1);
    int32_t y = mf_build_attention(builder, q, k, v, offsets, offsets, -1,
                                   (struct mf_attention_attributes){.scale = 0.5f, .causal = 1});
    hidden =
        mf_build_add(builder, hidden, linear(builder, mf_build_merge_heads(builder, y, HEADS), layer, O));
    x = norm(builder, hidden, layer, "post_norm");
    int32_t inner = mf_build_gated_activation(builder, linear(builder, x, layer, GATE),
                                              linear(builder, x, layer, UP), MF_ACTIVATION_SILU);
    return mf_build_add(builder, hidden, linear(builder, inner, layer, DOWN));
}

int32_t fixture_decoder(struct mf_builder *builder, int layers) {
    struct mf_graph *graph = builder->graph;
    uint8_t purpose = graph->program[builder->program]->purpose;
    int32_t table =
        mf_build_rope_table(builder, named_weight(graph, -1, "inverse_frequency", HEAD_SIZE / 2, 0),
                            graph->input[MF_INPUT_POSITIONS], 1);
    int32_t embedding = named_weight(graph, slot_of(builder), "embedding", VOCABULARY, WIDTH);
    int32_t hidden = mf_build_embedding(builder, embedding, graph->input[MF_INPUT_TOKENS], 1);
    for (int layer = 0; layer < layers; layer++)
        hidden = decoder_layer(builder, hidden, table, layer);
    builder->layer = -1;
    hidden = norm(builder, hidden, layers, "norm");
    if (purpose != MF_TRAIN && purpose != MF_EVALUATE)
        return hidden;
    struct mf_head_outputs head = mf_build_head(
        builder, hidden, embedding, -1, (struct mf_head_attributes){.logit_scale = 1, .chunk_rows = 2});
    return mf_build_loss(builder, head.log_probability);
}

void fixture_adapters_on_all(struct fixture *fixture, int layers, float dropout) {
    struct mf_error error;
    int32_t id;
    for (int layer = 0; layer < layers; layer++)
        for (int index = 0; index < MODULES; index++)
            require_ok(mf_graph_add_adapter(fixture->graph, 0, module(fixture->graph, layer, index), 2, 1.5f,
                                            dropout, &id, &error),
                       &error);
}

void fixture_adapters(struct fixture *fixture, int first, int layers, float dropout) {
    static const int adapted[] = {Q, V, DOWN};
    struct mf_error error;
    int32_t id;
    for (int layer = first; layer < layers; layer++)
        for (size_t i = 0; i < sizeof adapted / sizeof *adapted; i++)
            require_ok(mf_graph_add_adapter(fixture->graph, 0, module(fixture->graph, layer, adapted[i]), 2,
                                            1.5f, dropout, &id, &error),
                       &error);
}

static void train_weight(struct fixture *fixture, const char *name, int rows, int columns) {
    const int64_t dim[2] = {rows, columns};
    const enum mf_dtype dtype = (enum mf_dtype)fixture->graph->program[fixture->program]->dtype;
    struct mf_error error;
    require_ok(mf_graph_train_weight(fixture->graph, 0, name, name, dtype, columns ? 2 : 1, dim,
                                     columns ? 0 : MF_TENSOR_NO_DECAY, false, &error),
               &error);
}

void fixture_train_all(struct fixture *fixture, int layers) {
    char name[80];
    train_weight(fixture, "embedding", VOCABULARY, WIDTH);
    for (int layer = 0; layer <= layers; layer++) {
        static const char *const norms[] = {"input_norm", "post_norm"};
        for (int index = 0; index < MODULES && layer < layers; index++) {
            snprintf(name, sizeof name, "layers.%d.%s.weight", layer, modules[index].name);
            train_weight(fixture, name, modules[index].rows, modules[index].columns);
            snprintf(name, sizeof name, "layers.%d.%s.bias", layer, modules[index].name);
            train_weight(fixture, name, modules[index].rows, 0);
        }
        for (int i = 0; i < 2 && layer < layers; i++) {
            snprintf(name, sizeof name, "layers.%d.%s", layer, norms[i]);
            train_weight(fixture, name, WIDTH, 0);
        }
    }
    snprintf(name, sizeof name, "layers.%d.norm", layers);
    train_weight(fixture, name, WIDTH, 0);
}
