/* Shape and workspace rules of ops.def: what an op demands of its inputs and what its outputs are. */
#include "kernels/op_rules.h"
#include "kernels/quantize.h"

typedef const struct mf_tensor *tensor_pointer;

/* Input `index` of the node; NULL when absent. */
static tensor_pointer input(const struct mf_graph *graph, const struct mf_node *node, int index) {
    return node->in[index] < 0 ? NULL : mf_graph_tensor(graph, node->in[index]);
}

static enum mf_status refuse_input(const struct mf_graph *graph, const struct mf_node *node, int index,
                                   const char *expected, struct mf_error *error) {
    char text[96];
    return mf_error_set(error, MF_ERROR_INTERNAL, "%s: input %d is %s, expected %s", mf_op_name(node->op),
                        index, mf_tensor_describe(input(graph, node, index), text, sizeof text), expected);
}

static bool is_vector(tensor_pointer tensor, struct mf_dim dim, enum mf_dtype dtype) {
    return tensor->rank == 1 && mf_dim_equal(tensor->dim[0], dim) && tensor->dtype == dtype;
}
static bool is_float_vector(tensor_pointer tensor, struct mf_dim dim) {
    return tensor->rank == 1 && mf_dim_equal(tensor->dim[0], dim) && mf_dtype_is_float(tensor->dtype);
}
static bool is_same(tensor_pointer a, tensor_pointer b) {
    return a->dtype == b->dtype && mf_tensor_same_shape(a, b);
}

static void set(struct mf_output_shape *output, uint8_t dtype, uint8_t rank, struct mf_dim first,
                struct mf_dim second) {
    output->dtype = dtype;
    output->rank = rank;
    output->dim[0] = first;
    output->dim[1] = second;
}
static void set_vector(struct mf_output_shape *output, enum mf_dtype dtype, struct mf_dim dim) {
    set(output, (uint8_t)dtype, 1, dim, mf_dim_const(1));
}
static void set_like(struct mf_output_shape *output, tensor_pointer tensor) {
    output->dtype = tensor->dtype;
    output->rank = tensor->rank;
    for (int i = 0; i < MF_RANK; i++)
        output->dim[i] = tensor->dim[i];
}
static void set_next_version(struct mf_output_shape *output, tensor_pointer tensor, int index) {
    set_like(output, tensor);
    output->writes = index;
}

/* Every rule sees graph, node, dtype (of activations), output and error under these names. */
#define RULE(name)                                                                                      \
    enum mf_status mf_shape_##name(const struct mf_graph *graph, const struct mf_node *node,            \
                                   enum mf_dtype dtype, struct mf_output_shape output[MF_NODE_OUTPUTS], \
                                   struct mf_error *error)
#define IN(index) input(graph, node, index)
#define DEMAND(condition, index, expected)                            \
    do {                                                              \
        if (!(condition))                                             \
            return refuse_input(graph, node, index, expected, error); \
    } while (0)

/* An activation (rows, columns) of the program's dtype. */
static bool is_activation(tensor_pointer tensor, int rank, enum mf_dtype dtype) {
    return tensor->rank == rank && tensor->dtype == dtype;
}
static bool is_matrix(tensor_pointer tensor) {
    return tensor->rank == 2 && mf_dtype_is_float((enum mf_dtype)tensor->dtype);
}

RULE(embedding) {
    tensor_pointer table = IN(0), tokens = IN(1);
    DEMAND(is_matrix(table), 0, "a table (V, D)");
    DEMAND(tokens->rank == 1 && tokens->dtype == MF_I32, 1, "tokens (T) i32");
    set(&output[0], (uint8_t)dtype, 2, tokens->dim[0], table->dim[1]);
    return MF_OK;
}

RULE(embedding_gradient) {
    tensor_pointer dy = IN(0), gradient = IN(2);
    DEMAND(is_activation(dy, 2, dtype), 0, "dy (T, D)");
    DEMAND(is_vector(IN(1), dy->dim[0], MF_I32), 1, "tokens (T) i32");
    DEMAND(gradient->rank == 2 && gradient->dtype == MF_F32 && mf_dim_equal(gradient->dim[1], dy->dim[1]), 2,
           "a gradient (V, D) f32");
    set_next_version(&output[0], gradient, 2);
    return MF_OK;
}

RULE(rms_norm) {
    tensor_pointer x = IN(0), weight = IN(1);
    DEMAND(is_activation(x, 2, dtype), 0, "an activation (R, D)");
    DEMAND(is_float_vector(weight, x->dim[1]), 1, "a weight as wide as the activation");
    set_like(&output[0], x);
    set_vector(&output[1], MF_F32, x->dim[0]);
    return MF_OK;
}

RULE(rms_norm_gradient) {
    tensor_pointer x = IN(0), addend = IN(4);
    DEMAND(is_activation(x, 2, dtype), 0, "an activation (R, D)");
    DEMAND(is_float_vector(IN(1), x->dim[1]), 1, "a weight as wide as the activation");
    DEMAND(is_vector(IN(2), x->dim[0], MF_F32), 2, "rstd (R) f32");
    DEMAND(is_same(IN(3), x), 3, "dy shaped as x");
    DEMAND(!addend || is_same(addend, x), 4, "an addend shaped as x");
    set_like(&output[0], x);
    return MF_OK;
}

RULE(layer_norm) {
    tensor_pointer x = IN(0);
    DEMAND(is_activation(x, 2, dtype), 0, "an activation (R, D)");
    DEMAND(is_float_vector(IN(1), x->dim[1]), 1, "a weight as wide as the activation");
    DEMAND(is_float_vector(IN(2), x->dim[1]), 2, "a bias as wide as the activation");
    set_like(&output[0], x);
    set_vector(&output[1], MF_F32, x->dim[0]);
    set_vector(&output[2], MF_F32, x->dim[0]);
    return MF_OK;
}

RULE(layer_norm_gradient) {
    tensor_pointer x = IN(0), addend = IN(5);
    DEMAND(is_activation(x, 2, dtype), 0, "an activation (R, D)");
    DEMAND(is_float_vector(IN(1), x->dim[1]), 1, "a weight as wide as the activation");
    DEMAND(is_vector(IN(2), x->dim[0], MF_F32), 2, "mean (R) f32");
    DEMAND(is_vector(IN(3), x->dim[0], MF_F32), 3, "rstd (R) f32");
    DEMAND(is_same(IN(4), x), 4, "dy shaped as x");
    DEMAND(!addend || is_same(addend, x), 5, "an addend shaped as x");
    set_like(&output[0], x);
    return MF_OK;
}

RULE(rms_norm_weight_gradient) {
    tensor_pointer x = IN(0), gradient = IN(3);
    DEMAND(is_activation(x, 2, dtype), 0, "an activation (R, D)");
    DEMAND(is_vector(IN(1), x->dim[0], MF_F32), 1, "rstd (R) f32");
    DEMAND(is_same(IN(2), x), 2, "dy shaped as x");
    DEMAND(is_vector(gradient, x->dim[1], MF_F32), 3, "a gradient (D) f32");
    set_next_version(&output[0], gradient, 3);
    return MF_OK;
}

RULE(layer_norm_weight_gradient) {
    tensor_pointer x = IN(0), gradient = IN(4);
    DEMAND(is_activation(x, 2, dtype), 0, "an activation (R, D)");
    DEMAND(is_vector(IN(1), x->dim[0], MF_F32), 1, "mean (R) f32");
    DEMAND(is_vector(IN(2), x->dim[0], MF_F32), 2, "rstd (R) f32");
    DEMAND(is_same(IN(3), x), 3, "dy shaped as x");
    DEMAND(is_vector(gradient, x->dim[1], MF_F32), 4, "a gradient (D) f32");
    set_next_version(&output[0], gradient, 4);
    return MF_OK;
}

/* x (T, K), weight (N, K), bias (N): what every linear demands. */
static enum mf_status demand_linear(const struct mf_graph *graph, const struct mf_node *node,
                                    enum mf_dtype dtype, struct mf_error *error) {
    tensor_pointer x = IN(0), weight = IN(1), bias = IN(2);
    DEMAND(is_activation(x, 2, dtype), 0, "an activation (T, K)");
    DEMAND(is_matrix(weight) && mf_dim_equal(weight->dim[1], x->dim[1]), 1,
           "a weight (N, K) with K of the activation");
    DEMAND(!bias || is_float_vector(bias, weight->dim[0]), 2, "a bias (N)");
    return MF_OK;
}

static bool columns_fit(const struct mf_node *node, tensor_pointer wide, tensor_pointer weight) {
    int32_t first = node->a.linear.first;
    return first >= 0 && first <= wide->dim[1].multiplier - weight->dim[0].multiplier;
}

RULE(linear) {
    tensor_pointer x = IN(0), weight = IN(1), addend = IN(3);
    enum mf_status status = demand_linear(graph, node, dtype, error);
    if (status != MF_OK)
        return status;
    if (addend) {
        DEMAND(is_activation(addend, 2, dtype) && mf_dim_equal(addend->dim[0], x->dim[0]) &&
                   columns_fit(node, addend, weight),
               3, "an addend (T, M) that has columns first .. first + N");
        set_like(&output[0], addend);
        return MF_OK;
    }
    if (node->a.linear.first)
        return mf_error_set(error, MF_ERROR_INTERNAL, "linear: first is %d without an addend",
                            (int)node->a.linear.first);
    set(&output[0], (uint8_t)dtype, 2, x->dim[0], weight->dim[0]);
    return MF_OK;
}

RULE(adapted_linear) {
    enum mf_status status = demand_linear(graph, node, dtype, error);
    if (status == MF_OK)
        set(&output[0], (uint8_t)dtype, 2, IN(0)->dim[0], IN(1)->dim[0]);
    return status;
}

RULE(linear_input_gradient) {
    tensor_pointer dy = IN(0), weight = IN(1), addend = IN(2);
    DEMAND(is_activation(dy, 2, dtype), 0, "dy (T, M)");
    DEMAND(is_matrix(weight) && columns_fit(node, dy, weight), 1,
           "a weight (N, K) whose columns fit into dy");
    set(&output[0], (uint8_t)dtype, 2, dy->dim[0], weight->dim[1]);
    DEMAND(!addend || (is_activation(addend, 2, dtype) && mf_dim_equal(addend->dim[0], dy->dim[0]) &&
                       mf_dim_equal(addend->dim[1], weight->dim[1])),
           2, "an addend (T, K)");
    return MF_OK;
}

RULE(linear_weight_gradient) {
    tensor_pointer x = IN(0), dy = IN(1), gradient = IN(2);
    DEMAND(is_activation(x, 2, dtype), 0, "x (T, K)");
    DEMAND(is_activation(dy, 2, dtype) && mf_dim_equal(dy->dim[0], x->dim[0]), 1, "dy (T, M)");
    DEMAND(gradient->rank == 2 && gradient->dtype == MF_F32 && mf_dim_equal(gradient->dim[1], x->dim[1]) &&
               columns_fit(node, dy, gradient),
           2, "a gradient (N, K) f32 whose columns fit into dy");
    set_next_version(&output[0], gradient, 2);
    return MF_OK;
}

RULE(linear_bias_gradient) {
    tensor_pointer dy = IN(0), gradient = IN(1);
    DEMAND(is_activation(dy, 2, dtype), 0, "dy (T, M)");
    DEMAND(gradient->rank == 1 && gradient->dtype == MF_F32 && columns_fit(node, dy, gradient), 1,
           "a gradient (N) f32 whose columns fit into dy");
    set_next_version(&output[0], gradient, 1);
    return MF_OK;
}

RULE(dropout) {
    tensor_pointer x = IN(0);
    float rate = node->a.dropout.rate;
    DEMAND(is_activation(x, 2, dtype), 0, "an activation (T, D)");
    DEMAND(is_vector(IN(1), x->dim[0], MF_I32), 1, "dataset rows (T) i32");
    DEMAND(is_vector(IN(2), x->dim[0], MF_I32), 2, "positions (T) i32");
    if (!(rate > 0 && rate < 1))
        return mf_error_set(error, MF_ERROR_INTERNAL, "dropout: rate %g is not in (0, 1)", (double)rate);
    set_like(&output[0], x);
    return MF_OK;
}

RULE(add) {
    DEMAND(IN(0)->dtype == dtype, 0, "an activation");
    DEMAND(is_same(IN(1), IN(0)), 1, "the shape and dtype of input 0");
    set_like(&output[0], IN(0));
    return MF_OK;
}

RULE(add_columns) {
    tensor_pointer part = IN(0), addend = IN(1);
    const struct mf_columns_attributes *a = &node->a.columns;
    DEMAND(is_activation(part, 2, dtype) && a->first >= 0 && a->first <= a->width - part->dim[1].multiplier,
           0, "an activation (T, W) that fits into the columns");
    set(&output[0], (uint8_t)dtype, 2, part->dim[0], mf_dim_const(a->width));
    DEMAND(!addend || (is_activation(addend, 2, dtype) && mf_dim_equal(addend->dim[0], part->dim[0]) &&
                       mf_dim_equal(addend->dim[1], output[0].dim[1])),
           1, "an addend (T, M)");
    return MF_OK;
}

/* The i-th B of a FOLD_ADAPTERS. */
static tensor_pointer folded_b(const struct mf_graph *graph, const struct mf_node *node, int i) {
    return IN(i == 0 ? 1 : i + 2);
}

RULE(fold_adapters) {
    tensor_pointer whole = IN(0), a = IN(2);
    int32_t rank = 0;
    DEMAND(is_matrix(whole) && whole->dtype == dtype, 0, "a weight and room beside it (N + R, K + R)");
    for (int i = 0; i < MF_FOLDED && folded_b(graph, node, i); i++)
        rank += folded_b(graph, node, i)->dim[1].multiplier;
    const int32_t N = whole->dim[0].multiplier - rank, K = whole->dim[1].multiplier - rank;
    for (int i = 0; i < MF_FOLDED && folded_b(graph, node, i); i++) {
        tensor_pointer b = folded_b(graph, node, i);
        const int32_t first = node->a.fold.first[i];
        DEMAND(b->rank == 2 && b->dtype == MF_F32 && first >= 0 && first <= N - b->dim[0].multiplier,
               i == 0 ? 1 : i + 2, "an adapter's B (N_i, r_i) f32 whose rows fit into the weight");
    }
    DEMAND(!a || (a->rank == 2 && a->dtype == MF_F32 && a->dim[0].multiplier == rank &&
                  a->dim[1].multiplier == K),
           2, "the adapters' A (R, K) f32");
    set_next_version(&output[0], whole, 0);
    return MF_OK;
}

RULE(set_rows) {
    tensor_pointer part = IN(0), addend = IN(1);
    (void)dtype;
    DEMAND(part->dim[0].most > 0 && node->a.rows.first == part->dim[0].multiplier * part->dim[0].first, 0,
           "a stretch of rows");
    set_like(&output[0], part);
    output[0].dim[0] = mf_dim_symbol((enum mf_symbol)part->dim[0].symbol, part->dim[0].multiplier);
    if (addend) {
        bool same = addend->dtype == part->dtype && addend->rank == part->rank;
        for (int i = 0; i < part->rank && same; i++)
            same = mf_dim_equal(addend->dim[i], output[0].dim[i]);
        DEMAND(same, 1, "an addend shaped as the whole");
    }
    return MF_OK;
}

RULE(offload) {
    (void)dtype;
    DEMAND(IN(0)->storage == MF_ACTIVATION && !(IN(0)->flags & MF_TENSOR_HOST), 0, "an activation");
    set_like(&output[0], IN(0));
    output[0].flags = MF_TENSOR_HOST;
    return MF_OK;
}

RULE(fetch) {
    (void)dtype;
    DEMAND(IN(0)->flags & MF_TENSOR_HOST, 0, "an activation in host memory");
    set_like(&output[0], IN(0));
    return MF_OK;
}

RULE(await) {
    (void)dtype;
    (void)output;
    for (int i = 0; i < MF_NODE_INPUTS; i++)
        DEMAND(!IN(i) || IN(i)->storage == MF_ACTIVATION, i, "an activation");
    return MF_OK;
}

RULE(cast) {
    DEMAND(IN(0)->rank == 1 && IN(0)->dtype == MF_F32, 0, "parameters (n) f32");
    set_vector(&output[0], dtype, IN(0)->dim[0]);
    return MF_OK;
}

RULE(dequantize) {
    const struct mf_dequantize_attributes *a = &node->a.dequantize;
    const struct mf_quantized_layout all = mf_quantized_layout_of_parts(
        (enum mf_quantization)a->quantization, a->nested, a->rows, MF_QUANTIZED_PARTS, a->columns);
    int64_t rows = 0;
    for (int i = 0; i < MF_QUANTIZED_PARTS; i++)
        rows += a->rows[i];
    DEMAND(rows > 0 && is_vector(IN(0), mf_dim_const(all.codes), MF_U8), 0, "the codes of its parts, u8");
    DEMAND(is_vector(IN(1), mf_dim_const(all.scales), MF_F32), 1, "the scales of its parts, f32");
    DEMAND(a->nested ? IN(2) && is_vector(IN(2), mf_dim_const(all.scale_codes), MF_U8) : !IN(2), 2,
           "the codes of nested scales, u8");
    set(&output[0], (uint8_t)dtype, 2, mf_dim_const(rows), mf_dim_const(a->columns));
    return MF_OK;
}

RULE(rope_table) {
    tensor_pointer frequency = IN(0), positions = IN(1);
    DEMAND(frequency->rank == 1 && frequency->dtype == MF_F32 && frequency->dim[0].symbol == MF_CONST, 0,
           "inverse frequencies (R / 2) f32");
    DEMAND(positions->rank == 1 && positions->dtype == MF_I32, 1, "positions (T) i32");
    set(&output[0], (uint8_t)dtype, 2, positions->dim[0],
        mf_dim_const(2 * (int64_t)frequency->dim[0].multiplier));
    return MF_OK;
}

RULE(rope) {
    tensor_pointer x = IN(0), table = IN(1);
    DEMAND(is_activation(x, 3, dtype), 0, "an activation (T, H, d)");
    DEMAND(is_activation(table, 2, dtype) && mf_dim_equal(table->dim[0], x->dim[0]) &&
               table->dim[1].multiplier <= x->dim[2].multiplier,
           1, "a table (T, R) with R <= d");
    set_like(&output[0], x);
    return MF_OK;
}

/* Inputs 0, 1, 2 are q, k, v; `offsets` is the index of query_offsets, key_offsets follow. */
static enum mf_status demand_attention(const struct mf_graph *graph, const struct mf_node *node,
                                       enum mf_dtype dtype, int offsets, struct mf_error *error) {
    tensor_pointer q = IN(0), k = IN(1);
    struct mf_dim sequences = mf_dim_symbol(MF_OFFSETS, 1);
    DEMAND(is_activation(q, 3, dtype), 0, "queries (T, H, d)");
    DEMAND(is_activation(k, 3, dtype) && mf_dim_equal(k->dim[2], q->dim[2]) && k->dim[1].multiplier > 0 &&
               q->dim[1].multiplier % k->dim[1].multiplier == 0,
           1, "keys (C, G, d) with G a divisor of H");
    DEMAND(is_same(IN(2), k), 2, "values shaped as the keys");
    DEMAND(is_vector(IN(offsets), sequences, MF_I32), offsets, "query offsets (S + 1) i32");
    DEMAND(is_vector(IN(offsets + 1), sequences, MF_I32), offsets + 1, "key offsets (S + 1) i32");
    if (node->a.attention.window < 0)
        return mf_error_set(error, MF_ERROR_INTERNAL, "attention: window %d is negative",
                            (int)node->a.attention.window);
    return MF_OK;
}

RULE(attention) {
    tensor_pointer q = IN(0);
    enum mf_status status = demand_attention(graph, node, dtype, 3, error);
    if (status != MF_OK)
        return status;
    DEMAND(!IN(5) || is_vector(IN(5), mf_dim_symbol(MF_SEQUENCES, 1), MF_I32), 5, "key lengths (S) i32");
    set_like(&output[0], q);
    set(&output[1], MF_F32, 2, q->dim[0], q->dim[1]);
    return MF_OK;
}

RULE(attention_gradient) {
    tensor_pointer q = IN(0), lse = IN(4);
    enum mf_status status = demand_attention(graph, node, dtype, 6, error);
    if (status != MF_OK)
        return status;
    DEMAND(is_same(IN(3), q), 3, "y shaped as the queries");
    DEMAND(lse->rank == 2 && lse->dtype == MF_F32 && mf_dim_equal(lse->dim[0], q->dim[0]) &&
               mf_dim_equal(lse->dim[1], q->dim[1]),
           4, "lse (T, H) f32");
    DEMAND(is_same(IN(5), q), 5, "dy shaped as the queries");
    set_like(&output[0], q);
    set_like(&output[1], IN(1));
    set_like(&output[2], IN(2));
    return MF_OK;
}

int mf_workspace_attention_gradient(const struct mf_graph *graph, const struct mf_node *node,
                                    struct mf_dim dim[MF_RANK]) {
    dim[0] = IN(0)->dim[0];
    dim[1] = IN(0)->dim[1];
    return 2;
}

RULE(gated_activation) {
    DEMAND(is_activation(IN(0), 2, dtype), 0, "an activation (T, F)");
    DEMAND(is_same(IN(1), IN(0)), 1, "the shape and dtype of input 0");
    set_like(&output[0], IN(0));
    return MF_OK;
}

RULE(gated_activation_gradient) {
    DEMAND(is_activation(IN(0), 2, dtype), 0, "an activation (T, F)");
    DEMAND(is_same(IN(1), IN(0)), 1, "the shape and dtype of input 0");
    DEMAND(is_same(IN(2), IN(0)), 2, "the shape and dtype of input 0");
    set_like(&output[0], IN(0));
    set_like(&output[1], IN(0));
    return MF_OK;
}

RULE(activation) {
    DEMAND(is_activation(IN(0), 2, dtype), 0, "an activation (T, F)");
    set_like(&output[0], IN(0));
    return MF_OK;
}

RULE(activation_gradient) {
    DEMAND(is_activation(IN(0), 2, dtype), 0, "an activation (T, F)");
    DEMAND(is_same(IN(1), IN(0)), 1, "the shape and dtype of input 0");
    set_like(&output[0], IN(0));
    return MF_OK;
}

/* hidden (T, D), weight (V, D), rows i32, input `bias` (V) or none: what HEAD and LOGITS demand. */
static enum mf_status demand_head(const struct mf_graph *graph, const struct mf_node *node,
                                  enum mf_dtype dtype, int bias, struct mf_error *error) {
    tensor_pointer hidden = IN(0), weight = IN(1);
    DEMAND(!IN(bias) || is_float_vector(IN(bias), weight->dim[0]), bias, "a bias (V)");
    DEMAND(is_activation(hidden, 2, dtype), 0, "hidden states (T, D)");
    DEMAND(is_matrix(weight) && mf_dim_equal(weight->dim[1], hidden->dim[1]), 1, "a weight (V, D)");
    DEMAND(IN(2)->rank == 1 && IN(2)->dtype == MF_I32, 2, "row numbers i32");
    return MF_OK;
}

RULE(head) {
    struct mf_dim labelled = IN(2)->dim[0];
    enum mf_status status = demand_head(graph, node, dtype, 4, error);
    if (status != MF_OK)
        return status;
    DEMAND(is_vector(IN(3), labelled, MF_I32), 3, "labels (L) i32");
    if (node->a.head.chunk_rows < 1)
        return mf_error_set(error, MF_ERROR_INTERNAL, "head: chunk_rows is %d", (int)node->a.head.chunk_rows);
    set_vector(&output[0], MF_F32, labelled);
    set_vector(&output[1], MF_F32, labelled);
    if (node->a.head.with_gradient)
        set(&output[2], (uint8_t)dtype, 2, labelled, IN(0)->dim[1]);
    return MF_OK;
}

int mf_workspace_head(const struct mf_graph *graph, const struct mf_node *node, struct mf_dim dim[MF_RANK]) {
    dim[0] = mf_dim_const(node->a.head.chunk_rows);
    dim[1] = IN(1)->dim[0];
    return 2;
}

RULE(head_gradient) {
    tensor_pointer gradient = IN(0), hidden = IN(3);
    DEMAND(is_activation(gradient, 2, dtype), 0, "gradient rows (L, D)");
    DEMAND(is_vector(IN(1), gradient->dim[0], MF_I32), 1, "label rows (L) i32");
    DEMAND(is_vector(IN(2), gradient->dim[0], MF_F32), 2, "dlog_probability (L) f32");
    DEMAND(is_activation(hidden, 2, dtype) && mf_dim_equal(hidden->dim[1], gradient->dim[1]), 3,
           "hidden states (T, D)");
    set_like(&output[0], hidden);
    return MF_OK;
}

/* All that the second passes of a trained output layer demand but the gradient. */
static enum mf_status demand_second_pass(const struct mf_graph *graph, const struct mf_node *node,
                                         enum mf_dtype dtype, struct mf_error *error) {
    struct mf_dim labelled = IN(2)->dim[0];
    enum mf_status status = demand_head(graph, node, dtype, 7, error);
    if (status != MF_OK)
        return status;
    DEMAND(is_vector(IN(3), labelled, MF_I32), 3, "labels (L) i32");
    DEMAND(is_vector(IN(4), labelled, MF_F32), 4, "lse (L) f32");
    DEMAND(is_vector(IN(5), labelled, MF_F32), 5, "dlog_probability (L) f32");
    return MF_OK;
}

RULE(head_bias_gradient) {
    tensor_pointer gradient = IN(6);
    enum mf_status status = demand_second_pass(graph, node, dtype, error);
    if (status != MF_OK)
        return status;
    DEMAND(is_vector(gradient, IN(1)->dim[0], MF_F32), 6, "a gradient (V) f32");
    set_next_version(&output[0], gradient, 6);
    return MF_OK;
}

RULE(head_weight_gradient) {
    tensor_pointer gradient = IN(6);
    enum mf_status status = demand_second_pass(graph, node, dtype, error);
    if (status != MF_OK)
        return status;
    DEMAND(gradient->dtype == MF_F32 && mf_tensor_same_shape(gradient, IN(1)), 6,
           "a gradient (V, D) f32 shaped as the weight");
    set_next_version(&output[0], gradient, 6);
    return MF_OK;
}

RULE(loss) {
    (void)dtype;
    DEMAND(IN(0)->rank == 1 && IN(0)->dtype == MF_F32, 0, "log probabilities (L) f32");
    DEMAND(is_same(IN(1), IN(0)), 1, "coefficients (L) f32");
    set_vector(&output[0], MF_F32, mf_dim_const(1));
    return MF_OK;
}

RULE(loss_gradient) {
    (void)dtype;
    DEMAND(IN(0)->rank == 1 && IN(0)->dtype == MF_F32, 0, "coefficients (L) f32");
    set_like(&output[0], IN(0));
    return MF_OK;
}

RULE(logits) {
    enum mf_status status = demand_head(graph, node, dtype, 3, error);
    if (status == MF_OK)
        set(&output[0], MF_F32, 2, IN(2)->dim[0], IN(1)->dim[0]);
    return status;
}

RULE(argmax) {
    (void)dtype;
    DEMAND(IN(0)->rank == 2 && IN(0)->dtype == MF_F32, 0, "logits (S, V) f32");
    set_vector(&output[0], MF_I32, IN(0)->dim[0]);
    return MF_OK;
}

RULE(cache_write) {
    tensor_pointer cache = IN(0), rows = IN(1);
    DEMAND(is_activation(cache, 3, dtype), 0, "a cache (C, G, d)");
    DEMAND(is_activation(rows, 3, dtype) && mf_dim_equal(rows->dim[1], cache->dim[1]) &&
               mf_dim_equal(rows->dim[2], cache->dim[2]),
           1, "rows (T, G, d)");
    DEMAND(is_vector(IN(2), rows->dim[0], MF_I32), 2, "slots (T) i32");
    set_next_version(&output[0], cache, 0);
    return MF_OK;
}

RULE(gradient_norm) {
    (void)dtype;
    DEMAND(IN(0)->rank == 1 && IN(0)->dtype == MF_F32, 0, "a gradient (n) f32");
    set_vector(&output[0], MF_F32, mf_dim_const(1));
    set_vector(&output[1], MF_F32, mf_dim_const(1));
    return MF_OK;
}

RULE(adamw) {
    (void)dtype;
    DEMAND(IN(0)->rank == 1 && IN(0)->dtype == MF_F32, 0, "a parameter (n) f32");
    for (int i = 1; i <= 3; i++)
        DEMAND(is_same(IN(i), IN(0)), i, "the shape and dtype of the parameter");
    DEMAND(is_vector(IN(4), mf_dim_const(1), MF_F32), 4, "a coefficient (1) f32");
    for (int i = 0; i < 3; i++)
        set_next_version(&output[i], IN(i), i);
    return MF_OK;
}

RULE(adamw_8bit) {
    const struct mf_dim elements = IN(0)->dim[0];
    (void)dtype;
    DEMAND(IN(0)->rank == 1 && IN(0)->dtype == MF_F32 && elements.multiplier % MF_BUCKET_BLOCK == 0, 0,
           "a parameter (n) f32 of whole blocks");
    DEMAND(is_vector(IN(1), elements, MF_U8), 1, "codes (n) u8");
    DEMAND(is_vector(IN(2), elements, MF_U8), 2, "codes (n) u8");
    DEMAND(IN(3)->rank == 2 && IN(3)->dtype == MF_F32 &&
               mf_dim_equal(IN(3)->dim[0], mf_dim_const(elements.multiplier / MF_BUCKET_BLOCK)) &&
               mf_dim_equal(IN(3)->dim[1], mf_dim_const(2)),
           3, "scales (blocks, 2) f32");
    DEMAND(is_same(IN(4), IN(0)), 4, "the shape and dtype of the parameter");
    DEMAND(is_vector(IN(5), mf_dim_const(1), MF_F32), 5, "a coefficient (1) f32");
    for (int i = 0; i < 4; i++)
        set_next_version(&output[i], IN(i), i);
    return MF_OK;
}

RULE(sgd) {
    (void)dtype;
    DEMAND(IN(0)->rank == 1 && IN(0)->dtype == MF_F32, 0, "a parameter (n) f32");
    DEMAND(is_same(IN(1), IN(0)), 1, "the shape and dtype of the parameter");
    DEMAND(is_vector(IN(2), mf_dim_const(1), MF_F32), 2, "a coefficient (1) f32");
    set_next_version(&output[0], IN(0), 0);
    return MF_OK;
}

RULE(round_copy) {
    (void)dtype;
    DEMAND(IN(0)->rank == 1 && IN(0)->dtype == MF_F32, 0, "a parameter (n) f32");
    DEMAND(mf_tensor_same_shape(IN(1), IN(0)) && mf_dtype_is_float((enum mf_dtype)IN(1)->dtype), 1,
           "a copy (n) of the parameter");
    set_next_version(&output[0], IN(1), 1);
    return MF_OK;
}

RULE(zero) {
    (void)dtype;
    (void)error;
    set_next_version(&output[0], IN(0), 0);
    return MF_OK;
}
