/* Rewrites fused ops into primitive ones by the `expansion` column of ops.def. The results keep their tensor
 * ids, so the rest of the program does not change. */
#ifndef MF_KERNELS_PASSES_EXPAND_H
#define MF_KERNELS_PASSES_EXPAND_H

#include "kernels/graph.h"

/* Expands every op of the program that has an expansion. For ADAPTED_LINEAR, with adapters A, B on a module:
 *     y = LINEAR(x, W, bias);  h = LINEAR(DROPOUT(x), A);  y' = LINEAR(h, B, addend = y, alpha = scale)
 * DROPOUT only in a training program and with a rate above 0. */
enum mf_status mf_pass_expand(struct mf_graph *graph, int32_t program, struct mf_error *error);

#endif
