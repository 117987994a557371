/* Private to kernels/: from a node to the call that its kernel gets. */
#ifndef MF_KERNELS_KERNEL_CALL_H
#define MF_KERNELS_KERNEL_CALL_H

#include "kernels/kernel.h"

/* Fills `call` (all but backend, step and data) with the arrays of `node` when the symbols have `value`. */
void mf_kernel_call_fill(const struct mf_graph *graph, const struct mf_node *node, const int32_t *value,
                         struct mf_kernel_call *call);

/* Applies `visit` to the arrays of the call that stand for a tensor. */
typedef void mf_array_visitor(void *user, struct mf_array *array);
void mf_kernel_call_visit(struct mf_kernel_call *call, mf_array_visitor *visit, void *user);

#endif
