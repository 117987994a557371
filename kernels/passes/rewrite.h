/* Private to kernels/: making a program anew from its old nodes, in order, with other tensors in the place of
 * some. */
#ifndef MF_KERNELS_PASSES_REWRITE_H
#define MF_KERNELS_PASSES_REWRITE_H

#include "kernels/graph.h"

struct mf_rewrite {
    struct mf_builder builder; /* appends to the new program */
    struct mf_node *node;      /* the program before; owned */
    int32_t nodes, tensors;    /* of the program and the graph before */
    int32_t *place;            /* [nodes] where an old node is now; -1: it is not, as it was */
    int32_t *stand_in; /* [tensors] what later nodes read instead, of owners and of versions of state; -1:
                          itself */
};

/* Seals the program and takes its nodes. After MF_OK, mf_rewrite_end must follow. */
enum mf_status mf_rewrite_begin(struct mf_graph *graph, int32_t program, struct mf_rewrite *rewrite,
                                struct mf_error *error);
/* The same for a pass that changes results: the program must not be sealed yet, else MF_ERROR_INTERNAL. */
enum mf_status mf_rewrite_begin_numeric(struct mf_graph *graph, int32_t program, struct mf_rewrite *rewrite,
                                        struct mf_error *error);
/* The builder's sticky error, or mf_program_check of the new program. */
enum mf_status mf_rewrite_end(struct mf_rewrite *rewrite, struct mf_error *error);

/* Appends *view, made by changing a copy of an old row, as a view of `owner`; -1 after a failure. */
int32_t mf_rewrite_view(struct mf_rewrite *rewrite, struct mf_tensor *view, int32_t owner);
/* What stands for an old tensor, in its shape; -1 for -1. */
int32_t mf_rewrite_input(struct mf_rewrite *rewrite, int32_t tensor);
/* Appends old node `n` with the inputs that stand for its own. */
void mf_rewrite_copy(struct mf_rewrite *rewrite, int32_t n);

#endif
