/* Rewrites fused ops into primitive ones by the `expansion` column of ops.def. The results keep their tensor
 * ids, so the rest of the program does not change. */
#ifndef MF_KERNELS_PASSES_EXPAND_H
#define MF_KERNELS_PASSES_EXPAND_H

#include "kernels/graph.h"

/* Expands every op of the program that has an expansion; of those that plug-ins registered, what has no
 * kernel, has no gradient of its own in a training program, or is to be (graph->expand_registered). For
 * ADAPTED_LINEAR, with adapters A, B on a module: y = LINEAR(x, W, bias);  h = LINEAR(DROPOUT(x), A);  y' =
 * LINEAR(h, B, addend = y, alpha = scale) DROPOUT only in a training program and with a rate above 0. */
enum mf_status mf_pass_expand(struct mf_graph *graph, int32_t program, struct mf_error *error);

/* Emits what stands in for a node and returns the first output of the node that it emitted last, of the same
 * shape and dtype as node->out[0]; -1: the node stays, and nothing was emitted. */
typedef int32_t mf_node_replacement(void *user, struct mf_builder *builder, const struct mf_node *node);

/* Asks `replacement` for every node of a program that was not expanded yet. Other outputs than the first of a
 * replaced node are gone, which is an error where they are read. */
enum mf_status mf_pass_replace(struct mf_graph *graph, int32_t program, mf_node_replacement *replacement,
                               void *user, struct mf_error *error);

#endif
