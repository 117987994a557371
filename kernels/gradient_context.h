/* For gradient rules, those of the table and of registered ops: what one works with. A rule reads the
 * gradients of its node's outputs, emits backward nodes and gives gradients to the node's inputs. */
#ifndef MF_KERNELS_GRADIENT_CONTEXT_H
#define MF_KERNELS_GRADIENT_CONTEXT_H

#include "kernels/graph.h"

/* Stands for the gradient 1 of an output of LOSS. */
enum { MF_GRADIENT_ONE = -2 };

struct mf_gradient_context {
    struct mf_graph *graph;
    struct mf_builder builder;
    /* [tensors] of owners, in the owner's shape, and of parameters: the newest version; -1: none */
    int32_t *gradient;
    bool *needed;    /* [tensors] of owners */
    int32_t tensors; /* tensors of the forward program: size of both */
    int16_t slot;
    int32_t parameters; /* gradients of parameters emitted so far */
};

/* Does anything that is asked for lie at or below `tensor`? False for -1. */
bool mf_gradient_needed(const struct mf_gradient_context *context, int32_t tensor);
/* The gradient of `tensor` so far, in its shape; -1: none; MF_GRADIENT_ONE. -1 too for some of the columns of
 * a wider tensor: mf_gradient_replace then adds to those columns of the whole gradient. */
int32_t mf_gradient_get(struct mf_gradient_context *context, int32_t tensor);
/* Gives `tensor` a contribution: added to what is there. Nothing when it is not needed. */
void mf_gradient_add(struct mf_gradient_context *context, int32_t tensor, int32_t contribution);
/* Gives `tensor` a contribution that already holds what mf_gradient_get said (an op with an addend). */
void mf_gradient_replace(struct mf_gradient_context *context, int32_t tensor, int32_t gradient);
/* Is `tensor` a parameter of the slot that is trained, or the copy of one that programs compute with? */
bool mf_gradient_is_parameter(const struct mf_gradient_context *context, int32_t tensor);
/* Fails: the op of `node` has no gradient for `what`. */
void mf_gradient_fail(struct mf_gradient_context *context, const struct mf_node *node, const char *what);

#endif
