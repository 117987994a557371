/* Gives memory back for work: what can be computed again from what backward keeps anyway is not kept. */
#ifndef MF_KERNELS_PASSES_RECOMPUTE_H
#define MF_KERNELS_PASSES_RECOMPUTE_H

#include "kernels/graph.h"

/* What is computed again, by class and cost: each level takes in those before it. */
enum mf_recompute {
    MF_RECOMPUTE_NONE,
    MF_RECOMPUTE_CHEAP,        /* ops that ops.def flags MF_OP_CHEAP: norms, activations, dropout */
    MF_RECOMPUTE_FEED_FORWARD, /* and the projections that a gated activation reads */
    MF_RECOMPUTE_PROJECTIONS,  /* and queries, keys and values */
    MF_RECOMPUTE_ATTENTION,    /* and what attention gives; its log-sum-exp is kept */
    MF_RECOMPUTE_LEVELS
};
const char *mf_recompute_name(enum mf_recompute level); /* "norms and activations" */

/* To be run on a training program after mf_gradient_build. For every chosen op inside a layer whose first
 * output backward reads, puts a twin (phase MF_RECOMPUTE) just before the first backward node that reads it;
 * backward then reads the twin's output. A twin has the forward node's op, attributes and inputs (or their
 * twins), so its bits are the same and so are all results. Seals the program. */
enum mf_status mf_pass_recompute(struct mf_graph *graph, int32_t program, enum mf_recompute level,
                                 struct mf_error *error);

#endif
