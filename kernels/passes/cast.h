/* Gives adapters the activations' dtype once a run, not once a product. */
#ifndef MF_KERNELS_PASSES_CAST_H
#define MF_KERNELS_PASSES_CAST_H

#include "kernels/graph.h"

/* Where linear layers of a program in another dtype than f32 read adapters, a CAST of their whole bucket is
 * put before the first node, and the layers read views of that. For backends whose products would else
 * convert the adapter each time; changes no bit. Seals the program. */
enum mf_status mf_pass_cast(struct mf_graph *graph, int32_t program, struct mf_error *error);

#endif
