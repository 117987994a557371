/* Makes one product of a linear layer and the adapters on it. */
#ifndef MF_KERNELS_PASSES_FOLD_H
#define MF_KERNELS_PASSES_FOLD_H

#include "kernels/graph.h"

/* What MF_OP_ADAPTED_LINEAR was expanded to reads and writes y once for the weight and once for each adapter:
 *     y = x Wᵀ;  y += scale * h Bᵀ,  h = x Aᵀ        and in backward        dx = dh A;  dx += dy W
 * With the adapters beside and below the weight in one matrix (FOLD_ADAPTERS) it is
 *     y = [x h] [W sB]ᵀ                                                    dx = [dy dh] [W; A]
 * where [x h] and [dy dh] are ADD_COLUMNS that mf_pass_columns takes away. Sums are rounded once instead of
 * twice: another numeric plan, so the program must not be sealed yet.
 *
 * The weight of each layer that is folded becomes a part of persistent state, for all programs of the graph,
 * and is bound there (MF_TENSOR_PLACED): no program may be built on it afterwards. Layers stay as they are
 * whose weight has another dtype than the program or is quantised, whose ranks or sizes are no multiples of
 * 8, or whose input another folded layer reads too. Where a layer has dropout, its backward stays. */
enum mf_status mf_pass_fold(struct mf_graph *graph, int32_t program, int32_t granule, struct mf_error *error);

#endif
