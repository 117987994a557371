#include "providers/builder.h"

#include "providers/host.h"
#include "providers/models/source.h"
#include "providers/registered.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- what a provider is told ---- */

static double field_value(const union mf_attributes *attributes, int field, bool whole) {
    int32_t number;
    float value;
    memcpy(&number, (const char *)attributes + 4 * field, sizeof number);
    memcpy(&value, (const char *)attributes + 4 * field, sizeof value);
    return whole ? number : (double)value;
}

void mf_tell_node(const struct mf_node *node, struct mf_told_node *told) {
    const struct mf_op_row *row = mf_op_row((enum mf_op)node->op);
    uint32_t inputs = 0, outputs = 0, attributes = 0;
    memcpy(told->in, node->in, sizeof told->in);
    memcpy(told->out, node->out, sizeof told->out);
    for (uint32_t i = 0; i < MF_NODE_INPUTS; i++)
        inputs = told->in[i] >= 0 ? i + 1 : inputs;
    for (uint32_t i = 0; i < MF_NODE_OUTPUTS; i++)
        outputs = told->out[i] >= 0 ? i + 1 : outputs;
    for (; row->attribute[attributes].name; attributes++)
        told->attribute[attributes] = (struct mf_op_attribute){
            row->attribute[attributes].name,
            field_value(&node->a, (int)attributes, row->attribute[attributes].whole)};
    told->node = (struct mf_op_node){.size = sizeof told->node,
                                     .layer = node->layer,
                                     .op = row->name,
                                     .inputs = inputs,
                                     .outputs = outputs,
                                     .attributes = attributes,
                                     .in = told->in,
                                     .out = told->out,
                                     .attribute = told->attribute};
}

void mf_tell_shape(const struct mf_tensor *tensor, struct mf_op_shape *out) {
    *out = (struct mf_op_shape){.number = tensor->dtype, .rank = tensor->rank, .rows_of = -1};
    for (int i = 0; i < MF_RANK; i++)
        out->dim[i] = i >= tensor->rank                   ? 1
                      : tensor->dim[i].symbol == MF_CONST ? tensor->dim[i].multiplier
                                                          : MF_ROWS_VARY;
}

void mf_builder_take_failure(struct mf_builder *builder, int status, const struct mf_error *error,
                             const char *what) {
    if (status == MF_PROVIDER_OK)
        return;
    mf_builder_fail(builder, error->status == MF_OK ? MF_ERROR_PROVIDER_UNAVAILABLE : error->status, "%s: %s",
                    what, *error->message ? error->message : "failed without saying why");
}

/* ---- nodes ---- */

/* Of the host's, what programs of a provider may be made of. */
static bool is_open(int32_t op) {
    static const enum mf_op ops[] = {MF_OP_EMBEDDING,
                                     MF_OP_RMS_NORM,
                                     MF_OP_LAYER_NORM,
                                     MF_OP_LINEAR,
                                     MF_OP_ADD,
                                     MF_OP_ROPE_TABLE,
                                     MF_OP_ROPE,
                                     MF_OP_ACTIVATION,
                                     MF_OP_GATED_ACTIVATION,
                                     MF_OP_ACTIVATION_GRADIENT,
                                     MF_OP_GATED_ACTIVATION_GRADIENT};
    if (op >= MF_OPS)
        return true;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if ((int32_t)ops[i] == op)
            return true;
    return false;
}

static bool set_field(union mf_attributes *attributes, const struct mf_attribute_name *field, int index,
                      double value) {
    const float real = (float)value;
    if (!isfinite(value) || (field->whole && (value != floor(value) || fabs(value) > INT32_MAX)))
        return false;
    const int32_t number = field->whole ? (int32_t)value : 0;
    memcpy((char *)attributes + 4 * index, field->whole ? (const void *)&number : (const void *)&real, 4);
    return true;
}

static void set_attributes(struct mf_builder *builder, int32_t op, const struct mf_op_attribute *given,
                           uint32_t count, union mf_attributes *attributes) {
    static const char *const ones[] = {"alpha", "scale", "factor"};
    const struct mf_attribute_name *field = mf_op_row((enum mf_op)op)->attribute;
    memset(attributes, 0, sizeof *attributes);
    for (int i = 0; field[i].name && op < MF_OPS; i++)
        for (size_t one = 0; one < sizeof ones / sizeof *ones; one++)
            if (!strcmp(field[i].name, ones[one]))
                (void)set_field(attributes, &field[i], i, 1);
    for (uint32_t g = 0; g < count && builder->status == MF_OK; g++) {
        const char *name = given[g].name ? given[g].name : "(NULL)";
        int i = 0;
        while (field[i].name && strcmp(field[i].name, name) != 0)
            i++;
        if (!field[i].name)
            mf_builder_fail(builder, MF_ERROR_PROVIDER_UNAVAILABLE, "the op %s has no attribute '%.64s'",
                            mf_op_name((enum mf_op)op), name);
        else if (!set_field(attributes, &field[i], i, given[g].value))
            mf_builder_fail(builder, MF_ERROR_PROVIDER_UNAVAILABLE, "%s of the op %s cannot be %g", name,
                            mf_op_name((enum mf_op)op), given[g].value);
    }
}

static int32_t emit(struct mf_program_builder *own, const char *name, const int32_t *in, uint32_t inputs,
                    const struct mf_op_attribute *attribute, uint32_t attributes) {
    struct mf_builder *builder = own->builder;
    union mf_attributes set;
    const int32_t op = name ? mf_op_find(name) : -1;
    if (builder->status != MF_OK)
        return MF_NO_TENSOR;
    if (op < 0 || !is_open(op) || inputs > MF_OP_INPUTS) {
        mf_builder_fail(
            builder, MF_ERROR_PROVIDER_UNAVAILABLE,
            "a program cannot be made with '%.64s' of %u inputs: the provider ABI has no such op, and "
            "none of this name was registered",
            name ? name : "(NULL)", inputs);
        return MF_NO_TENSOR;
    }
    set_attributes(builder, op, attribute, attributes, &set);
    return mf_emit(builder, (enum mf_op)op, in, (int)inputs, &set);
}

static int32_t output(struct mf_program_builder *own, uint32_t index) {
    return index < MF_OP_OUTPUTS ? mf_builder_output(own->builder, (int)index) : MF_NO_TENSOR;
}

static void shape_of(struct mf_program_builder *own, int32_t tensor, struct mf_op_shape *out) {
    memset(out, 0, sizeof *out);
    if (own->builder->status != MF_OK)
        return;
    if (tensor < 0 || tensor >= own->builder->graph->tensors)
        mf_builder_fail(own->builder, MF_ERROR_PROVIDER_UNAVAILABLE, "the shape of no tensor (%d)",
                        (int)tensor);
    else
        mf_tell_shape(mf_graph_tensor(own->builder->graph, tensor), out);
}

static int32_t input(struct mf_program_builder *own, uint32_t which) {
    if (which > MF_PROGRAM_POSITIONS) {
        mf_builder_fail(own->builder, MF_ERROR_PROVIDER_UNAVAILABLE, "a program has no input %u", which);
        return MF_NO_TENSOR;
    }
    return own->builder->graph->input[which == MF_PROGRAM_TOKENS ? MF_INPUT_TOKENS : MF_INPUT_POSITIONS];
}

static int32_t columns(struct mf_program_builder *own, int32_t x, int32_t first, int32_t width) {
    return mf_build_columns(own->builder, x, first, width);
}

static int32_t heads(struct mf_program_builder *own, int32_t x, int32_t count) {
    return mf_build_heads(own->builder, x, count);
}

static int32_t head_rows(struct mf_program_builder *own, int32_t x, int32_t count) {
    return mf_build_head_rows(own->builder, x, count);
}

static int32_t merge_heads(struct mf_program_builder *own, int32_t x, int32_t count) {
    return mf_build_merge_heads(own->builder, x, count);
}

/* ---- in build() alone ---- */

/* The program that is built; NULL, and a failure, elsewhere. */
static struct mf_source_program *program_of(struct mf_program_builder *own, const char *function) {
    if (!own->program)
        mf_builder_fail(own->builder, MF_ERROR_PROVIDER_UNAVAILABLE, "%s() is for build() alone", function);
    return own->builder->status == MF_OK ? own->program : NULL;
}

static void set_layer(struct mf_program_builder *own, int32_t layer) {
    if (program_of(own, "set_layer"))
        mf_source_set_layer(own->program, layer);
}

static int32_t weight(struct mf_program_builder *own, const char *name, uint32_t rank, const int64_t *dim) {
    return program_of(own, "weight") ? mf_source_weight(own->program, name, rank, dim) : MF_NO_TENSOR;
}

static int32_t constant(struct mf_program_builder *own, const char *name, const float *value,
                        uint64_t count) {
    return program_of(own, "constant") ? mf_source_constant(own->program, name, value, count) : MF_NO_TENSOR;
}

static int32_t linear(struct mf_program_builder *own, int32_t x, const char *name, int64_t width,
                      uint32_t bias) {
    return program_of(own, "linear") ? mf_source_linear(own->program, x, name, width, bias != 0)
                                     : MF_NO_TENSOR;
}

static int32_t attention(struct mf_program_builder *own, int32_t q, int32_t k, int32_t v, float scale,
                         float soft_cap, int32_t window) {
    const struct mf_attention_attributes attributes = {
        .scale = scale, .soft_cap = soft_cap, .window = window, .causal = 1};
    return program_of(own, "attention") ? mf_source_attention(own->program, q, k, v, attributes)
                                        : MF_NO_TENSOR;
}

static int32_t dropout(struct mf_program_builder *own, int32_t x, float rate, const char *name) {
    if (!program_of(own, "dropout"))
        return MF_NO_TENSOR;
    const bool training = own->builder->graph->program[own->builder->program]->purpose == MF_TRAIN;
    return training && rate != 0 ? mf_build_dropout(own->builder, x, rate, name) : x;
}

static int head(struct mf_program_builder *own, int32_t hidden, int32_t table, int32_t bias,
                float logit_scale, float soft_cap) {
    if (program_of(own, "head"))
        mf_source_head(own->program, hidden, table, bias,
                       (struct mf_head_attributes){.logit_scale = logit_scale, .soft_cap = soft_cap});
    return (int)own->builder->status;
}

static int register_op(const struct mf_op_definition *definition, struct mf_error *error) {
    return (int)mf_registered_add(definition, error);
}

const struct mf_graph_api mf_graph_table = {
    .size = sizeof mf_graph_table,
    .register_op = register_op,
    .open_source = mf_host_open_source,
    .emit = emit,
    .output = output,
    .shape_of = shape_of,
    .input = input,
    .columns = columns,
    .heads = heads,
    .head_rows = head_rows,
    .merge_heads = merge_heads,
    .set_layer = set_layer,
    .weight = weight,
    .constant = constant,
    .linear = linear,
    .attention = attention,
    .dropout = dropout,
    .head = head,
};
