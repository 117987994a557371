/* Lets what is put together of columns be written where it belongs. */
#ifndef MF_KERNELS_PASSES_COLUMNS_H
#define MF_KERNELS_PASSES_COLUMNS_H

#include "kernels/graph.h"

/* Where ADD_COLUMNS nodes, one upon the other, put an activation together of parts that fill it without
 * overlapping, the parts become views of it and the nodes go: what makes a part writes it there. Parts
 * whose views cross rows stay apart. Changes no bit, but that a zero keeps its
 * sign. To be run last before the plan. Seals the program. */
enum mf_status mf_pass_columns(struct mf_graph *graph, int32_t program, struct mf_error *error);

#endif
