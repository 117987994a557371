/* Gives memory back for some traffic: the wide activations of a feed-forward exist for a stretch of tokens at
 * a time. */
#ifndef MF_KERNELS_PASSES_CHUNK_H
#define MF_KERNELS_PASSES_CHUNK_H

#include "kernels/graph.h"

/* To be run on a training program whose bound of MF_TOKENS is set, after a recompute pass of at least
 * MF_RECOMPUTE_FEED_FORWARD (before it, backward would want the wide activations whole). In each layer, what
 * lies between the first and the last node that touches an activation as wide as the gated one's, forward and
 * backward, is repeated for stretches of tokens, each a multiple of MF_ROW_BLOCK; what the rest of the
 * program reads of it is put together by SET_ROWS. All ops in between must be MF_OP_BY_ROWS, so that no
 * result changes by a bit; where one is not, the stretch ends there. A bound of MF_ROW_BLOCK or less:
 * nothing. Seals the program. */
enum mf_status mf_pass_chunk(struct mf_graph *graph, int32_t program, struct mf_error *error);

#endif
