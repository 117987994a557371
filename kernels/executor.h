/* Runs planned programs on a backend. All memory is allocated when it is created; a run allocates nothing.
 *
 *     mf_executor_create -> mf_executor_bind_weight for each weight -> mf_executor_prepare
 *     each step: write inputs through mf_executor_data, mf_executor_run, read outputs through
 * mf_executor_data
 *
 * One thread at a time. */
#ifndef MF_KERNELS_EXECUTOR_H
#define MF_KERNELS_EXECUTOR_H

#include "kernels/graph.h"
#include "kernels/kernel.h"
#include "kernels/passes/plan.h"

struct mf_executor;

struct mf_executor_options {
    bool allow_nondeterministic; /* else a kernel that is declared so is refused by name */
    bool poison;                 /* tests: fills everything a program does not own with NaN before each run */
};

/* Called after each node with the step's sizes and the node's wall time. */
typedef void mf_executor_trace(void *user, const struct mf_graph *graph, int32_t program, int32_t node,
                               const int32_t *value, double seconds);

/* Allocates the arena (zeroed) and checks every op of every program against the backend:
 * MF_ERROR_PROVIDER_UNSUPPORTED names the op. `options` NULL: all off. Graph, plan and backend must outlive
 * it. */
enum mf_status mf_executor_create(const struct mf_graph *graph, const struct mf_plan *plan,
                                  struct mf_backend *backend, const struct mf_executor_options *options,
                                  struct mf_executor **executor, struct mf_error *error);
void mf_executor_destroy(struct mf_executor *executor); /* NULL is allowed */

/* Does some program read this weight? Any other one needs no binding. */
bool mf_executor_reads(const struct mf_executor *executor, int32_t weight);
/* Are weights copied when they are bound? Else their data must stay. */
bool mf_executor_copies_weights(const struct mf_executor *executor);

/* `data` (unless copied, as is a weight that is a part of state, readable and unchanged as long as the
 * executor lives) has exactly the tensor's bytes, else MF_ERROR_WEIGHT_MISMATCH. A view of a weight needs no
 * binding of its own. */
enum mf_status mf_executor_bind_weight(struct mf_executor *executor, int32_t tensor, const void *data,
                                       size_t bytes, struct mf_error *error);
/* The same for bytes first .. first + bytes - 1 of it, always copied. The caller binds all parts. */
enum mf_status mf_executor_bind_weight_part(struct mf_executor *executor, int32_t tensor, size_t first,
                                            const void *data, size_t bytes, struct mf_error *error);
/* Checks that every weight that a program reads is bound (MF_ERROR_WEIGHT_MISMATCH names the first that is
 * not) and lets the backend repack. Needed once before the first run; call it again after binding another
 * weight. */
enum mf_status mf_executor_prepare(struct mf_executor *executor, struct mf_error *error);
/* Bytes of the copies that the backend made then. */
size_t mf_executor_prepared_bytes(const struct mf_executor *executor);

/* Host address of a tensor: inputs, adapters, gradients, moments and state at any time; an output of a
 * program after its run and until the next run. Sizes are those of the step (outputs) or the plan's bounds
 * (inputs, state). Good until the next run, before which what the host wrote there reaches the device: ask
 * again after each run. A weight's is what was bound; NULL where it was copied to a device. */
void *mf_executor_data(struct mf_executor *executor, int32_t tensor);
/* Bytes of a persistent tensor at the plan's bounds. */
size_t mf_executor_bytes(const struct mf_executor *executor, int32_t tensor);

/* Rounds every trained weight's master to the copy that programs compute with (graph.h): after the host wrote
 * masters, before the next run that reads them. */
void mf_executor_round_copies(struct mf_executor *executor);

/* From the next run on; NULL: none, as at first. */
void mf_executor_set_trace(struct mf_executor *executor, mf_executor_trace *trace, void *user);

/* Runs all nodes of a program in order. step->value must lie within the program's bounds (MF_ERROR_INTERNAL).
 * A kernel's error comes back prefixed by program, node, layer and op. */
enum mf_status mf_executor_run(struct mf_executor *executor, int32_t program, const struct mf_step *step,
                               struct mf_error *error);

#endif
