/* Backward from forward: one rule an op (the `gradient` column of ops.def).
 *
 * Only what is needed is emitted: nothing below the lowest trainable tensor, no gradient that nobody reads.
 * Gradients of parameters are added into their persistent part of the slot's bucket, so micro-batches
 * accumulate until the update program zeroes them. Where a tensor has several consumers their gradients are
 * added in the order in which backward meets them (the last consumer first), through an op's `addend` where
 * it has one and ADD elsewhere. */
#ifndef MF_KERNELS_GRADIENT_H
#define MF_KERNELS_GRADIENT_H

#include "kernels/graph.h"

/* Appends the backward nodes of `loss` (an output of LOSS) to its program, for the parameters of the
 * program's slot. Fused ops must have been expanded (passes/expand.h). MF_ERROR_PROVIDER_UNSUPPORTED names an
 * op that has no gradient and would need one; a loss that depends on no parameter is MF_ERROR_INTERNAL. */
enum mf_status mf_gradient_build(struct mf_graph *graph, int32_t program, int32_t loss,
                                 struct mf_error *error);

/* The general form. */
struct mf_gradient_request {
    const int32_t *output; /* tensors to differentiate */
    const int32_t
        *output_gradient; /* their gradients: tensors of the same shape; -1 for an output of LOSS: 1 */
    int outputs;
    const int32_t
        *wanted; /* tensors (inputs, activations) whose gradient is asked for, beside the parameters */
    int wanted_count;
    int32_t *wanted_gradient; /* out: tensor ids; -1: the outputs do not depend on it */
};
enum mf_status mf_gradient_build_request(struct mf_graph *graph, int32_t program,
                                         const struct mf_gradient_request *request, struct mf_error *error);

/* The part of the slot's bucket that holds the gradient of a parameter, or of what a copy is rounded from; -1
 * before its bucket exists. */
int32_t mf_gradient_of_parameter(const struct mf_graph *graph, int32_t parameter);

#endif
