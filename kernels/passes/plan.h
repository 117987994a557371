/* The plan: where every tensor lies, made before the first step, and the record of all that numbers depend
 * on.
 *
 * One arena: a persistent region (adapters, gradients, moments, state, inputs) that lives as long as the
 * executor, and a region that the programs share, as large as the largest of them. In it each tensor lives
 * from the node that makes it to its last use; offsets are found greedily, largest tensor first, best fit,
 * 64-byte aligned, so the same graph always gives the same plan. An op runs in place only here: where its
 * in_place input has its last use. What programs offload has a region of its own, in host memory. Weights are
 * bound from outside; those that programs read, and the copies that the backend will make of them, are
 * counted. */
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
    int64_t *offset; /* [tensors] bytes from the arena's start of the owner (of an offloaded one: from the
                        host region's); views and weights: -1; owners that share another's storage (in place)
                        have its offset */
    struct mf_lifetime *lifetime; /* [tensors] owners that are activations or workspaces; else {-1, -1} */
    int32_t *shares;              /* [tensors] owner whose storage this owner takes over in place; -1 */
    bool *read; /* [tensors] owners that are weights or hold one: some program reads it; no other weight is
                   given memory */
    int32_t tensors;
    int32_t persistent_bound[MF_SYMBOLS]; /* greatest bound over the programs: sizes of persistent tensors */
    size_t persistent_bytes, program_bytes, arena_bytes; /* arena = persistent + program */
    size_t host_bytes;                                   /* what is offloaded */
    bool host_apart;                                     /* to another memory than programs compute in */
    size_t weight_bytes;                                 /* bound from outside */
    size_t copy_bytes;                                   /* the backend's copies of weights */
    size_t storage_bytes[MF_STORAGES];                   /* persistent_bytes and weight_bytes by kind */
    char *record;           /* numeric plan: canonical JSON, one line, keys sorted */
    char record_sha256[65]; /* lower-case hexadecimal */
};

/* Plans all programs of `graph` for `backend` and closes the graph (graph->planned). Fails with
 * MF_ERROR_PLAN_TOO_LARGE naming the bytes needed when mf_plan_bytes > budget_bytes (0: no limit), and with
 * MF_ERROR_PROVIDER_UNSUPPORTED naming the first op that the backend has no kernel for. The graph and the
 * backend must outlive the plan. */
enum mf_status mf_plan_create(struct mf_graph *graph, const struct mf_backend *backend, size_t budget_bytes,
                              struct mf_plan **plan, struct mf_error *error);
void mf_plan_destroy(struct mf_plan *plan); /* NULL is allowed */

/* All bytes that the plan manages in the memory that programs compute in: weights, their copies, arena, and
 * what is offloaded unless host memory is another. */
size_t mf_plan_bytes(const struct mf_plan *plan);

/* "managed 1069.0 MiB = weights 257.0 + copies of weights 256.0 + adapters 18.6 + ... + programs 777.0 (train
 * 777.0, evaluate 120.0); numbers in MiB". */
void mf_plan_print(const struct mf_plan *plan, FILE *file);

#endif
