/* The typed functions over mf_emit that models are written with, and the update program. */
#include <assert.h>

#include "kernels/graph.h"
#include "kernels/graph_rows.h"
#include "kernels/random.h"

int32_t mf_build_embedding(struct mf_builder *builder, int32_t table, int32_t tokens, float scale) {
    const int32_t in[] = {table, tokens};
    return mf_emit(builder, MF_OP_EMBEDDING, in, 2, &(union mf_attributes){.embedding = {.scale = scale}});
}

int32_t mf_build_rms_norm(struct mf_builder *builder, int32_t x, int32_t weight, float epsilon,
                          enum mf_norm_variant variant) {
    const int32_t in[] = {x, weight};
    return mf_emit(builder, MF_OP_RMS_NORM, in, 2,
                   &(union mf_attributes){.norm = {.epsilon = epsilon, .variant = variant}});
}

int32_t mf_build_layer_norm(struct mf_builder *builder, int32_t x, int32_t weight, int32_t bias,
                            float epsilon) {
    const int32_t in[] = {x, weight, bias};
    return mf_emit(builder, MF_OP_LAYER_NORM, in, 3,
                   &(union mf_attributes){.layer_norm = {.epsilon = epsilon}});
}

int32_t mf_build_dropout(struct mf_builder *builder, int32_t x, float rate, const char *name) {
    const int32_t in[] = {x, builder->graph->input[MF_INPUT_ROWS], builder->graph->input[MF_INPUT_POSITIONS]};
    return mf_emit(builder, MF_OP_DROPOUT, in, 3,
                   &(union mf_attributes){.dropout = {.rate = rate, .stream = mf_random_stream(name)}});
}

/* The one tensor whose rows the parts are, in order and without a gap; -1 and a failure when they are not.
 * `part` is the weight or the bias of each module. */
static int32_t fused_owner(struct mf_builder *builder, const int32_t *part, int count) {
    const struct mf_graph *graph = builder->graph;
    int32_t owner = mf_graph_owner(graph, part[0]);
    int64_t next = 0;
    for (int i = 0; i < count; i++) {
        const struct mf_tensor *row = mf_graph_tensor(graph, part[i]);
        if (row->view_of != owner || row->view_offset != next) {
            mf_builder_fail(builder, MF_ERROR_INTERNAL,
                            "module %d of a fused linear does not follow the one before", i);
            return -1;
        }
        next += mf_tensor_elements(row, NULL);
    }
    if (next != mf_tensor_elements(mf_graph_tensor(graph, owner), NULL)) {
        mf_builder_fail(builder, MF_ERROR_INTERNAL, "the modules of a fused linear do not fill its weight");
        return -1;
    }
    return owner;
}

enum { MF_FUSED_MODULES = 8 };

/* Weight and bias of the modules together. */
static void fused_weight(struct mf_builder *builder, const int32_t *modules, int count, int32_t *weight,
                         int32_t *bias) {
    int32_t weights[MF_FUSED_MODULES] = {0}, biases[MF_FUSED_MODULES] = {-1};
    for (int i = 0; i < count; i++) {
        const struct mf_module *module = &builder->graph->module[modules[i]];
        weights[i] = module->weight;
        biases[i] = module->bias;
        if ((module->bias < 0) != (biases[0] < 0))
            mf_builder_fail(builder, MF_ERROR_INTERNAL, "only some modules of a fused linear have a bias");
    }
    *weight = *bias = -1;
    if (builder->status != MF_OK)
        return;
    *weight = count == 1 ? weights[0] : fused_owner(builder, weights, count);
    if (biases[0] >= 0)
        *bias = count == 1 ? biases[0] : fused_owner(builder, biases, count);
}

/* Appends a segment a module; false when no module has an adapter in the program's slot (then nothing is
 * kept). */
static bool append_segments(struct mf_builder *builder, const int32_t *modules, int count) {
    struct mf_graph *graph = builder->graph;
    int16_t slot = graph->program[builder->program]->slot;
    int32_t first_segment = graph->segments, first = 0;
    bool adapted = false;
    for (int i = 0; i < count && builder->status == MF_OK; i++) {
        const struct mf_module *module = &graph->module[modules[i]];
        int32_t adapter = slot < 0 ? -1 : mf_graph_find_adapter(graph, slot, modules[i]);
        struct mf_segment segment = {.module = modules[i],
                                     .first = first,
                                     .width = mf_graph_tensor(graph, module->weight)->dim[0].multiplier,
                                     .lora_a = -1,
                                     .lora_b = -1,
                                     .random_stream = module->random_stream};
        if (adapter >= 0) {
            segment.lora_a = graph->adapter[adapter].a;
            segment.lora_b = graph->adapter[adapter].b;
            segment.scale = graph->adapter[adapter].scale;
            segment.dropout = graph->adapter[adapter].dropout;
            adapted = true;
        }
        first += segment.width;
        builder->status = mf_graph_append_segment(graph, &segment, &builder->error);
    }
    if (!adapted)
        graph->segments = first_segment;
    return adapted;
}

int32_t mf_build_linear(struct mf_builder *builder, int32_t x, const int32_t *modules, int count) {
    int32_t weight, bias, first_segment = builder->graph->segments;
    if (builder->status != MF_OK)
        return -1;
    assert(count >= 1 && count <= MF_FUSED_MODULES);
    for (int i = 0; i < count; i++)
        assert(modules[i] >= 0 && modules[i] < builder->graph->modules);
    fused_weight(builder, modules, count, &weight, &bias);
    if (builder->status != MF_OK)
        return -1;
    const int32_t in[] = {x, weight, bias};
    if (append_segments(builder, modules, count))
        return mf_emit(
            builder, MF_OP_ADAPTED_LINEAR, in, 3,
            &(union mf_attributes){.adapted_linear = {.segment = first_segment, .segments = count}});
    return mf_emit(builder, MF_OP_LINEAR, in, 3, &(union mf_attributes){.linear = {.alpha = 1}});
}

int32_t mf_build_add(struct mf_builder *builder, int32_t a, int32_t b) {
    const int32_t in[] = {a, b};
    return mf_emit(builder, MF_OP_ADD, in, 2, NULL);
}

int32_t mf_build_rope_table(struct mf_builder *builder, int32_t inverse_frequency, int32_t positions,
                            float factor) {
    const int32_t in[] = {inverse_frequency, positions};
    return mf_emit(builder, MF_OP_ROPE_TABLE, in, 2,
                   &(union mf_attributes){.rope_table = {.factor = factor}});
}

int32_t mf_build_rope(struct mf_builder *builder, int32_t x, int32_t table) {
    const int32_t in[] = {x, table};
    return mf_emit(builder, MF_OP_ROPE, in, 2, &(union mf_attributes){.rope = {.inverse = 0}});
}

int32_t mf_build_attention(struct mf_builder *builder, int32_t q, int32_t k, int32_t v, int32_t query_offsets,
                           int32_t key_offsets, int32_t key_lengths,
                           struct mf_attention_attributes attributes) {
    const int32_t in[] = {q, k, v, query_offsets, key_offsets, key_lengths};
    return mf_emit(builder, MF_OP_ATTENTION, in, 6, &(union mf_attributes){.attention = attributes});
}

int32_t mf_build_cache_write(struct mf_builder *builder, int32_t cache, int32_t rows, int32_t slots) {
    const int32_t in[] = {cache, rows, slots};
    return mf_emit(builder, MF_OP_CACHE_WRITE, in, 3, NULL);
}

int32_t mf_build_gated_activation(struct mf_builder *builder, int32_t gate, int32_t up,
                                  enum mf_activation activation) {
    const int32_t in[] = {gate, up};
    return mf_emit(builder, MF_OP_GATED_ACTIVATION, in, 2,
                   &(union mf_attributes){.gated = {.activation = activation}});
}

int32_t mf_build_activation(struct mf_builder *builder, int32_t x, enum mf_activation activation) {
    return mf_emit(builder, MF_OP_ACTIVATION, &x, 1,
                   &(union mf_attributes){.gated = {.activation = activation}});
}

struct mf_head_outputs mf_build_head(struct mf_builder *builder, int32_t hidden, int32_t weight, int32_t bias,
                                     struct mf_head_attributes attributes) {
    const int32_t *input = builder->graph->input;
    const int32_t in[] = {hidden, weight, input[MF_INPUT_LABEL_ROWS], input[MF_INPUT_LABELS], bias};
    struct mf_head_outputs outputs;
    if (attributes.chunk_rows == 0)
        attributes.chunk_rows =
            builder->graph->head_chunk_rows ? builder->graph->head_chunk_rows : MF_HEAD_CHUNK_ROWS;
    attributes.with_gradient = builder->graph->program[builder->program]->purpose == MF_TRAIN;
    outputs.log_probability = mf_emit(builder, MF_OP_HEAD, in, 5, &(union mf_attributes){.head = attributes});
    outputs.lse = mf_builder_output(builder, 1);
    outputs.gradient = mf_builder_output(builder, 2);
    return outputs;
}

int32_t mf_build_loss(struct mf_builder *builder, int32_t log_probability) {
    const int32_t in[] = {log_probability, builder->graph->input[MF_INPUT_COEFFICIENTS]};
    return mf_build_output(builder, mf_emit(builder, MF_OP_LOSS, in, 2, NULL));
}

int32_t mf_build_logits(struct mf_builder *builder, int32_t hidden, int32_t weight, int32_t bias,
                        int32_t rows, struct mf_head_attributes attributes) {
    const int32_t in[] = {hidden, weight, rows, bias};
    attributes.chunk_rows = 0;
    attributes.with_gradient = 0;
    return mf_emit(builder, MF_OP_LOGITS, in, 4, &(union mf_attributes){.head = attributes});
}

int32_t mf_build_argmax(struct mf_builder *builder, int32_t logits) {
    return mf_emit(builder, MF_OP_ARGMAX, &logits, 1, NULL);
}

int32_t mf_build_output(struct mf_builder *builder, int32_t tensor) {
    if (builder->status != MF_OK)
        return -1;
    if (tensor < 0 || tensor >= builder->graph->tensors) {
        mf_builder_fail(builder, MF_ERROR_INTERNAL, "an output that is no tensor");
        return -1;
    }
    builder->graph->tensor[mf_graph_owner(builder->graph, tensor)].flags |= MF_TENSOR_OUTPUT;
    return tensor;
}
