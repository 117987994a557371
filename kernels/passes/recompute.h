/* Gives memory back for a little work: what is cheap to compute again from what backward keeps anyway is not
 * kept. */
#ifndef MF_KERNELS_PASSES_RECOMPUTE_H
#define MF_KERNELS_PASSES_RECOMPUTE_H

#include "kernels/graph.h"

/* To be run on a training program after mf_gradient_build. For every op inside a layer that ops.def flags
 * MF_OP_CHEAP (norm, gated activation, dropout) and whose first output backward reads, puts a twin (phase
 * MF_RECOMPUTE) just before the first backward node that reads it; backward then reads the twin's output. A
 * twin has the forward node's op, attributes and inputs (or their twins), so its bits are the same and so are
 * all results. */
enum mf_status mf_pass_recompute(struct mf_graph *graph, int32_t program, struct mf_error *error);

#endif
