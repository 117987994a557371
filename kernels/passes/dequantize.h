/* Gives memory back where weights are quantised: they are kept so, and dequantised where they are used. */
#ifndef MF_KERNELS_PASSES_DEQUANTIZE_H
#define MF_KERNELS_PASSES_DEQUANTIZE_H

#include "kernels/graph.h"

/* To be run on every program that reads quantised weights, after all passes that move nodes. A DEQUANTIZE
 * before the first node of forward that reads such a weight, and another before the first node after forward,
 * give all of them the weight: recompute and backward share one. It lives in the arena until its last use.
 * The values are those that the weight would be bound with, so no bit of a result changes; the weight itself
 * is no longer read, and what it is quantised to (mf_graph_keep_quantized) is. Seals the program. */
enum mf_status mf_pass_dequantize(struct mf_graph *graph, int32_t program, struct mf_error *error);

#endif
