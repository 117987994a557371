/* The gradient table's rules, one an op, named by the `gradient` column of ops.def. */
#include "kernels/gradient.h"
#include "kernels/gradient_context.h"
#include "kernels/op_rules.h"

/* The gradient of the node's output `index`; -1: none. */
static int32_t output_gradient(struct mf_gradient_context *context, const struct mf_node *node, int index) {
    return node->out[index] < 0 ? -1 : mf_gradient_get(context, node->out[index]);
}

void mf_gradient_refuse(struct mf_gradient_context *context, const struct mf_node *node) {
    mf_gradient_fail(context, node, "the op");
}

/* Never called: nothing above a stop is marked as needed by it. */
void mf_gradient_stop(struct mf_gradient_context *context, const struct mf_node *node) {
    mf_gradient_fail(context, node, "a stop");
}

/* The parameter's gradient so far, for an op that adds to it. -1 after a failure: what needs a gradient there
 * is no parameter. */
static int32_t accumulated(struct mf_gradient_context *context, const struct mf_node *node, int32_t weight) {
    if (!mf_gradient_is_parameter(context, weight)) {
        mf_gradient_fail(context, node, "a weight that is no parameter");
        return -1;
    }
    const int32_t so_far = mf_gradient_get(context, weight);
    return so_far < 0 ? mf_gradient_of_parameter(context->graph, weight) : so_far;
}

void mf_gradient_embedding(struct mf_gradient_context *context, const struct mf_node *node) {
    const int32_t table = node->in[0];
    if (!mf_gradient_needed(context, table))
        return;
    const int32_t in[] = {output_gradient(context, node, 0), node->in[1], accumulated(context, node, table)};
    mf_gradient_replace(context, table,
                        mf_emit(&context->builder, MF_OP_EMBEDDING_GRADIENT, in, 3, &node->a));
}

void mf_gradient_rms_norm(struct mf_gradient_context *context, const struct mf_node *node) {
    const int32_t x = node->in[0], weight = node->in[1];
    if (mf_gradient_needed(context, weight)) {
        const int32_t in[] = {x, node->out[1], output_gradient(context, node, 0),
                              accumulated(context, node, weight)};
        mf_gradient_replace(context, weight,
                            mf_emit(&context->builder, MF_OP_RMS_NORM_WEIGHT_GRADIENT, in, 4, &node->a));
    }
    if (!mf_gradient_needed(context, x))
        return;
    const int32_t in[] = {x, weight, node->out[1], output_gradient(context, node, 0),
                          mf_gradient_get(context, x)};
    mf_gradient_replace(context, x, mf_emit(&context->builder, MF_OP_RMS_NORM_GRADIENT, in, 5, &node->a));
}

void mf_gradient_layer_norm(struct mf_gradient_context *context, const struct mf_node *node) {
    const int32_t x = node->in[0], weight = node->in[1], bias = node->in[2],
                  dy = output_gradient(context, node, 0);
    if (mf_gradient_needed(context, weight)) {
        const int32_t in[] = {x, node->out[1], node->out[2], dy, accumulated(context, node, weight)};
        mf_gradient_replace(context, weight,
                            mf_emit(&context->builder, MF_OP_LAYER_NORM_WEIGHT_GRADIENT, in, 5, NULL));
    }
    if (mf_gradient_needed(context, bias)) {
        const int32_t in[] = {dy, accumulated(context, node, bias)};
        mf_gradient_replace(context, bias,
                            mf_emit(&context->builder, MF_OP_LINEAR_BIAS_GRADIENT, in, 2,
                                    &(union mf_attributes){.linear = {.alpha = 1}}));
    }
    if (!mf_gradient_needed(context, x))
        return;
    const int32_t in[] = {x, weight, node->out[1], node->out[2], dy, mf_gradient_get(context, x)};
    mf_gradient_replace(context, x, mf_emit(&context->builder, MF_OP_LAYER_NORM_GRADIENT, in, 6, NULL));
}

void mf_gradient_linear(struct mf_gradient_context *context, const struct mf_node *node) {
    const int32_t x = node->in[0], weight = node->in[1], bias = node->in[2],
                  dy = output_gradient(context, node, 0);
    if (mf_gradient_needed(context, bias)) {
        const int32_t in[] = {dy, accumulated(context, node, bias)};
        mf_gradient_replace(context, bias,
                            mf_emit(&context->builder, MF_OP_LINEAR_BIAS_GRADIENT, in, 2, &node->a));
    }
    if (mf_gradient_needed(context, weight)) {
        const int32_t in[] = {x, dy, accumulated(context, node, weight)};
        mf_gradient_replace(context, weight,
                            mf_emit(&context->builder, MF_OP_LINEAR_WEIGHT_GRADIENT, in, 3, &node->a));
    }
    if (mf_gradient_needed(context, x)) {
        const int32_t in[] = {dy, weight, mf_gradient_get(context, x)};
        mf_gradient_replace(context, x,
                            mf_emit(&context->builder, MF_OP_LINEAR_INPUT_GRADIENT, in, 3, &node->a));
    }
    if (node->in[3] >= 0)
        mf_gradient_add(context, node->in[3], dy);
}

void mf_gradient_dropout(struct mf_gradient_context *context, const struct mf_node *node) {
    const int32_t in[] = {output_gradient(context, node, 0), node->in[1], node->in[2]};
    mf_gradient_add(context, node->in[0], mf_emit(&context->builder, MF_OP_DROPOUT, in, 3, &node->a));
}

void mf_gradient_add_rule(struct mf_gradient_context *context, const struct mf_node *node) {
    int32_t dy = output_gradient(context, node, 0);
    mf_gradient_add(context, node->in[0], dy);
    mf_gradient_add(context, node->in[1], dy);
}

void mf_gradient_rope(struct mf_gradient_context *context, const struct mf_node *node) {
    const int32_t in[] = {output_gradient(context, node, 0), node->in[1]};
    union mf_attributes attributes = {.rope = {.inverse = !node->a.rope.inverse}};
    mf_gradient_add(context, node->in[0], mf_emit(&context->builder, MF_OP_ROPE, in, 2, &attributes));
}

void mf_gradient_attention(struct mf_gradient_context *context, const struct mf_node *node) {
    int32_t gradient[3];
    if (node->in[5] >= 0 || output_gradient(context, node, 1) >= 0) {
        mf_gradient_fail(context, node, node->in[5] >= 0 ? "attention over a cache" : "lse");
        return;
    }
    const int32_t in[] = {node->in[0],  node->in[1],  node->in[2],
                          node->out[0], node->out[1], output_gradient(context, node, 0),
                          node->in[3],  node->in[4]};
    mf_emit(&context->builder, MF_OP_ATTENTION_GRADIENT, in, 8, &node->a);
    for (int i = 0; i < 3; i++)
        gradient[i] = mf_builder_output(&context->builder, i);
    for (int i = 0; i < 3; i++)
        mf_gradient_add(context, node->in[i], gradient[i]);
}

void mf_gradient_gated_activation(struct mf_gradient_context *context, const struct mf_node *node) {
    const int32_t in[] = {node->in[0], node->in[1], output_gradient(context, node, 0)};
    int32_t gate = mf_emit(&context->builder, MF_OP_GATED_ACTIVATION_GRADIENT, in, 3, &node->a);
    int32_t up = mf_builder_output(&context->builder, 1);
    mf_gradient_add(context, node->in[0], gate);
    mf_gradient_add(context, node->in[1], up);
}

void mf_gradient_activation(struct mf_gradient_context *context, const struct mf_node *node) {
    const int32_t in[] = {node->in[0], output_gradient(context, node, 0)};
    mf_gradient_add(context, node->in[0],
                    mf_emit(&context->builder, MF_OP_ACTIVATION_GRADIENT, in, 2, &node->a));
}

void mf_gradient_head(struct mf_gradient_context *context, const struct mf_node *node) {
    const int32_t dlog_probability = output_gradient(context, node, 0), weight = node->in[1];
    if (output_gradient(context, node, 1) >= 0)
        mf_gradient_fail(context, node, "lse");
    if (node->out[2] < 0)
        mf_gradient_fail(context, node, "a head outside a training program");
    const int32_t trained[] = {weight, node->in[4]};
    for (int i = 0; i < 2; i++) {
        if (!mf_gradient_needed(context, trained[i]))
            continue;
        const int32_t in[] = {node->in[0],
                              weight,
                              node->in[2],
                              node->in[3],
                              node->out[1],
                              dlog_probability,
                              accumulated(context, node, trained[i]),
                              node->in[4]};
        mf_gradient_replace(context, trained[i],
                            mf_emit(&context->builder,
                                    i ? MF_OP_HEAD_BIAS_GRADIENT : MF_OP_HEAD_WEIGHT_GRADIENT, in, 8,
                                    &node->a));
    }
    if (!mf_gradient_needed(context, node->in[0]))
        return;
    const int32_t in[] = {node->out[2], node->in[2], dlog_probability, node->in[0]};
    mf_gradient_add(context, node->in[0], mf_emit(&context->builder, MF_OP_HEAD_GRADIENT, in, 4, NULL));
}

void mf_gradient_loss(struct mf_gradient_context *context, const struct mf_node *node) {
    if (output_gradient(context, node, 0) != MF_GRADIENT_ONE) {
        mf_gradient_fail(context, node, "a loss that is not the end");
        return;
    }
    mf_gradient_add(context, node->in[0],
                    mf_emit(&context->builder, MF_OP_LOSS_GRADIENT, &node->in[1], 1, NULL));
}
