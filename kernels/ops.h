/* What kernels/ops.def says, as C: the enum of ops, their attributes and the table's rows. */
#ifndef MF_KERNELS_OPS_H
#define MF_KERNELS_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "kernels/tensor.h"

enum mf_op {
#define MF_OP(NAME, ...) MF_OP_##NAME,
#include "kernels/ops.def"
#undef MF_OP
    MF_OPS
};

/* What a plug-in registers (registered_ops.h) has the numbers behind the table's. */
enum { MF_REGISTERED_OPS = 64, MF_ALL_OPS = MF_OPS + MF_REGISTERED_OPS };

enum mf_op_flag { MF_OP_WRITES_STATE = 1, MF_OP_CHEAP = 2, MF_OP_BY_ROWS = 4 };

enum { MF_NODE_INPUTS = 8, MF_NODE_OUTPUTS = 4, MF_NODE_WORKSPACES = 2 };

enum mf_norm_variant { MF_NORM_CAST_THEN_SCALE, MF_NORM_UNIT_OFFSET };
enum mf_activation { MF_ACTIVATION_SILU, MF_ACTIVATION_GELU_TANH };

/* Every field is 4 bytes wide, so that no attribute struct has padding and its bytes can be fingerprinted. */
struct mf_none_attributes {
    uint32_t zero;
};
struct mf_embedding_attributes {
    float scale; /* 1: as stored */
};
struct mf_norm_attributes {
    float epsilon;
    enum mf_norm_variant variant;
};
struct mf_layer_norm_attributes {
    float epsilon;
};
struct mf_linear_attributes {
    float alpha;   /* factor of the product */
    int32_t first; /* column of y where the product starts */
};
struct mf_adapted_linear_attributes {
    int32_t segment, segments; /* rows of the graph's segment table */
};
enum { MF_FOLDED = 4 };
struct mf_fold_attributes {
    int32_t first[MF_FOLDED]; /* row of the weight where the adapter's part starts */
    float scale[MF_FOLDED];
};
struct mf_dropout_attributes {
    float rate;      /* 0 < rate < 1 */
    uint32_t stream; /* of the module */
};
struct mf_columns_attributes {
    int32_t first, width; /* column of y where the part starts; columns of y */
};
struct mf_rows_attributes {
    int32_t first; /* row of y where the part starts */
};
enum { MF_QUANTIZED_PARTS = 3 };
struct mf_dequantize_attributes {
    uint32_t quantization, nested;    /* enum mf_quantization; 0 or 1 */
    int32_t rows[MF_QUANTIZED_PARTS]; /* of each module's weight, one behind the other; 0: no such part */
    int32_t columns;                  /* of all */
};
struct mf_rope_table_attributes {
    float factor; /* of cos and sin; 1: none */
};
struct mf_rope_attributes {
    uint32_t inverse; /* 0 or 1 */
};
struct mf_attention_attributes {
    float scale;
    float soft_cap;  /* 0: none */
    int32_t window;  /* keys a query sees, itself included; 0: all */
    uint32_t causal; /* 0 or 1 */
};
struct mf_gated_attributes { /* of ACTIVATION too */
    enum mf_activation activation;
};
struct mf_head_attributes {
    float logit_scale;      /* 1: none */
    float soft_cap;         /* 0: none */
    int32_t chunk_rows;     /* HEAD: rows whose logits are in memory at a time; LOGITS: 0 */
    uint32_t with_gradient; /* HEAD: 0 or 1; LOGITS: 0 */
};
struct mf_adamw_attributes {
    float beta1, beta2, epsilon, weight_decay;
};
struct mf_sgd_attributes {
    float weight_decay;
};

enum { MF_REGISTERED_VALUES = 4 };
struct mf_registered_attributes { /* of a registered op: in the order of its names */
    float value[MF_REGISTERED_VALUES];
};

union mf_attributes {
    struct mf_none_attributes none;
    struct mf_embedding_attributes embedding;
    struct mf_norm_attributes norm;
    struct mf_layer_norm_attributes layer_norm;
    struct mf_linear_attributes linear;
    struct mf_adapted_linear_attributes adapted_linear;
    struct mf_fold_attributes fold;
    struct mf_dropout_attributes dropout;
    struct mf_columns_attributes columns;
    struct mf_rows_attributes rows;
    struct mf_dequantize_attributes dequantize;
    struct mf_rope_table_attributes rope_table;
    struct mf_rope_attributes rope;
    struct mf_attention_attributes attention;
    struct mf_gated_attributes gated;
    struct mf_head_attributes head;
    struct mf_adamw_attributes adamw;
    struct mf_sgd_attributes sgd;
    struct mf_registered_attributes registered;
};

/* A field of an attribute struct; lists are in the order of the fields and end without a name. */
struct mf_attribute_name {
    const char *name;
    bool whole; /* an integer, else a float */
};

struct mf_graph;
struct mf_node;
struct mf_builder;
struct mf_gradient_context;

/* What a shape rule says about one output. */
struct mf_output_shape {
    uint8_t dtype, rank; /* rank 0: there is no such output */
    uint8_t flags;       /* enum mf_tensor_flag of a new activation */
    struct mf_dim dim[MF_RANK];
    int32_t writes; /* index of the persistent input whose next version this is; -1: a new activation */
};

struct mf_op_row {
    const char *name;
    uint8_t required, optional, outputs, flags;
    int in_place;            /* index of an input; -1: never */
    uint8_t attribute_bytes; /* of union mf_attributes that the op uses */
    const struct mf_attribute_name *attribute;
    /* Checks the node's inputs and attributes, fills `output` (zeroed, writes = -1). `dtype`: of activations.
     */
    enum mf_status (*shape)(const struct mf_graph *graph, const struct mf_node *node, enum mf_dtype dtype,
                            struct mf_output_shape output[MF_NODE_OUTPUTS], struct mf_error *error);
    void (*gradient)(struct mf_gradient_context *context, const struct mf_node *node);
    /* NULL: none. Fills `dim` of workspace[0] (f32) and returns its rank. */
    int (*workspace)(const struct mf_graph *graph, const struct mf_node *node, struct mf_dim dim[MF_RANK]);
    /* NULL: none. Emits primitive ops and returns the tensor that stands for out[0]. */
    int32_t (*expansion)(struct mf_builder *builder, const struct mf_node *node);
};

/* Of the table, or registered. */
const struct mf_op_row *mf_op_row(enum mf_op op);
/* By name; -1: there is none. */
int32_t mf_op_find(const char *name);
static inline const char *mf_op_name(enum mf_op op) {
    return mf_op_row(op)->name;
}

#endif
