/* What the provider ABI calls a builder, and the tensors and nodes of programs as the ABI tells them. Private
 * to providers/; builder.c fills struct mf_graph_api. */
#ifndef MF_PROVIDERS_BUILDER_H
#define MF_PROVIDERS_BUILDER_H

#include "kernels/graph.h"
#include "providers/provider.h"

struct mf_source_program;

struct mf_program_builder {
    struct mf_builder *builder;
    struct mf_source_program *program; /* in a source's build() (models/source.h), else NULL */
};

extern const struct mf_graph_api mf_graph_table;

/* A node for one call of a provider's function. */
struct mf_told_node {
    struct mf_op_node node;
    int32_t in[MF_NODE_INPUTS], out[MF_NODE_OUTPUTS];
    struct mf_op_attribute attribute[sizeof(union mf_attributes) / 4];
};
void mf_tell_node(const struct mf_node *node, struct mf_told_node *told);

void mf_tell_shape(const struct mf_tensor *tensor, struct mf_op_shape *out);

/* What a provider's function returned, `status` and `error` of the ABI, as the failure of the builder,
 * prefixed by `what`; nothing when the status is MF_PROVIDER_OK. */
void mf_builder_take_failure(struct mf_builder *builder, int status, const struct mf_error *error,
                             const char *what);

#endif
