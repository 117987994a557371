/* What a node costs, told by its shapes: for the choice of memory passes and for the ledger of a step. */
#ifndef MF_KERNELS_COST_H
#define MF_KERNELS_COST_H

#include "kernels/graph.h"

struct mf_cost {
    double flop;  /* of matrix products, a multiplication and an addition being two; 0 for all other ops */
    double bytes; /* of inputs read and outputs written once */
};

/* When the symbols have `value`. Attention is counted for value[MF_SEQUENCES] sequences of equal length. */
struct mf_cost mf_node_cost(const struct mf_graph *graph, const struct mf_node *node, const int32_t *value);

/* Bytes from memory that take as long: products and traffic overlap, the longer counts. */
double mf_cost_in_bytes(struct mf_cost cost, double flop_per_byte);

#endif
