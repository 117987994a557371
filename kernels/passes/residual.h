/* Adds a residual where the product that is added to it is made. */
#ifndef MF_KERNELS_PASSES_RESIDUAL_H
#define MF_KERNELS_PASSES_RESIDUAL_H

#include "kernels/graph.h"

/* Where an ADD's one operand is a linear layer's output that nothing else reads, and the other is there
 * before that layer, the layer takes it as its addend and the ADD goes: the sum is rounded once instead of
 * twice. To be run on a program without gradients, before mf_pass_expand; changes the numeric plan. */
enum mf_status mf_pass_residual(struct mf_graph *graph, int32_t program, struct mf_error *error);

#endif
