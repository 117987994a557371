/* The two copies of a graph's memory when a backend computes in memory of its own: the device's arena and
 * weights, and the host's shadow of the arena, page for page, of which only what the host touches is ever
 * made. Which copy is the newer one is known for each tensor that owns storage, so that callers see one
 * address.
 *
 * Private to the executor; one thread. Errors of a copy to the host are kept and returned by the next
 * mf_residency_begin; until then the host reads NaN. */
#ifndef MF_KERNELS_RESIDENCY_H
#define MF_KERNELS_RESIDENCY_H

#include "kernels/graph.h"
#include "kernels/kernel.h"
#include "kernels/passes/plan.h"

struct mf_residency;

/* Allocates arena (zeroed) and weights on the device, and room for what is offloaded on the host. Graph, plan
 * and backend must outlive *residency. */
enum mf_status mf_residency_create(const struct mf_graph *graph, const struct mf_plan *plan,
                                   struct mf_backend *backend, struct mf_residency **residency,
                                   struct mf_error *error);
void mf_residency_destroy(struct mf_residency *residency); /* NULL is allowed */

/* Where kernels find an owner: on the device, or in pinned host memory what is offloaded; NULL: a weight that
 * was not written, or nothing. */
void *mf_residency_device(const struct mf_residency *residency, int32_t owner);
/* Copies a weight, or a part of it from byte `first` on, to the device. */
enum mf_status mf_residency_write_weight(struct mf_residency *residency, int32_t owner, size_t first,
                                         const void *data, size_t bytes, struct mf_error *error);
/* Copies rows of a weight that lies in state to the device, which is then the newer copy: `rows` of `bytes`
 * bytes from byte `first` of the owner on, `row` bytes apart. */
enum mf_status mf_residency_write_rows(struct mf_residency *residency, int32_t owner, size_t first,
                                       size_t row, const void *data, size_t bytes, size_t rows,
                                       struct mf_error *error);
/* The host's copy of an owner that is no weight, made new; taken to be written by the host until the next
 * run. */
void *mf_residency_host(struct mf_residency *residency, int32_t owner);

/* Before a run of a program: what the host may have written goes to the device. */
enum mf_status mf_residency_begin(struct mf_residency *residency, const struct mf_step *step, bool poison,
                                  struct mf_error *error);
/* After the last node: waits, and takes the device's copies for the newer ones. */
enum mf_status mf_residency_finish(struct mf_residency *residency, struct mf_error *error);

#endif
