/* Gives memory back where host memory is another: what backward will want is kept there in between. */
#ifndef MF_KERNELS_PASSES_OFFLOAD_H
#define MF_KERNELS_PASSES_OFFLOAD_H

#include "kernels/graph.h"

/* To be run on a training program after mf_gradient_build and the other memory passes. Every activation with
 * a row for each token that a layer below the last keeps for backward is copied to host memory (OFFLOAD)
 * after its last use in forward, and back (FETCH) when backward begins with the layer above the one that
 * first wants it: a layer's work ahead, so that the copy can run beside it; AWAIT ends that. Copies change no
 * bit. Their nodes have the phase MF_OFFLOAD; what lies in host memory is a region of the plan. Seals the
 * program. */
enum mf_status mf_pass_offload(struct mf_graph *graph, int32_t program, struct mf_error *error);

#endif
