/* The plan: where every tensor lies, made before the first step, and the record of all that numbers depend
 * on.
 *
 * One arena: a persistent region (adapters, gradients, moments, state, inputs) that lives as long as the
 * executor, and a region that the programs share, as large as the largest of them. In it each tensor lives
 * from the node that makes it to its last use; offsets are found greedily, largest tensor first, best fit,
 * 64-byte aligned, so the same graph always gives the same plan. An op runs in place only here: where its
 * in_place input has its last use. Weights are bound from outside and counted apart. */
#ifndef MF_KERNELS_PASSES_PLAN_H
#define MF_KERNELS_PASSES_PLAN_H

#include "kernels/graph.h"
#include "kernels/kernel.h"

enum { MF_PLAN_ALIGNMENT = 64 };

/* Life of an owner's storage in its program: node indices, inclusive. */
struct mf_lifetime {
    int32_t first, last;
};

struct mf_plan {
    const struct mf_graph *graph;
    int64_t *offset; /* [tensors] bytes from the arena's start of the owner; views and weights: -1;
                        owners that share another's storage (in place) have its offset */
    struct mf_lifetime *lifetime; /* [tensors] owners that are activations or workspaces; else {-1, -1} */
    int32_t *shares;              /* [tensors] owner whose storage this owner takes over in place; -1 */
    int32_t tensors;
    int32_t persistent_bound[MF_SYMBOLS]; /* greatest bound over the programs: sizes of persistent tensors */
    size_t persistent_bytes, program_bytes, arena_bytes; /* arena = persistent + program */
    size_t weight_bytes;                                 /* bound from outside */
    char *record;           /* numeric plan: canonical JSON, one line, keys sorted */
    char record_sha256[65]; /* lower-case hexadecimal */
};

/* Plans all programs of `graph` for `backend` and closes the graph (graph->planned). Fails with
 * MF_ERROR_PLAN_TOO_LARGE naming the bytes needed when arena_bytes > budget_bytes (0: no limit), and with
 * MF_ERROR_PROVIDER_UNSUPPORTED naming the first op that the backend has no kernel for. The graph and the
 * backend must outlive the plan. */
enum mf_status mf_plan_create(struct mf_graph *graph, const struct mf_backend *backend, size_t budget_bytes,
                              struct mf_plan **plan, struct mf_error *error);
void mf_plan_destroy(struct mf_plan *plan); /* NULL is allowed */

/* "managed 812 MiB = persistent 35 MiB + programs 777 MiB (train 777, evaluate 120, ...); weights 257 MiB".
 */
void mf_plan_print(const struct mf_plan *plan, FILE *file);

#endif
