/* The memory plan's choice for a training program: what is given up of speed for memory. No choice changes a
 * bit of any result, so none is in the numeric plan. */
#ifndef MF_KERNELS_PASSES_MEMORY_H
#define MF_KERNELS_PASSES_MEMORY_H

#include "kernels/graph.h"
#include "kernels/kernel.h"
#include "kernels/passes/recompute.h"

struct mf_memory_choice {
    enum mf_recompute recompute;
    bool chunk;     /* the feed-forward by stretches of tokens; only from MF_RECOMPUTE_FEED_FORWARD on */
    bool offload;   /* what is kept waits in host memory; only where that is another memory */
    bool quantized; /* quantised weights stay so and are dequantised where they are used */
};

/* Seals the program and runs the chosen passes, in the order in which they build on each other. After
 * mf_gradient_build and mf_program_set_bound, before the plan. Every program that reads the same weights must
 * be given the same `quantized`, or they are kept twice. */
enum mf_status mf_pass_memory(struct mf_graph *graph, int32_t program, const struct mf_memory_choice *choice,
                              struct mf_error *error);

/* What one run of the program costs at its bounds: bytes from memory that take as long. */
double mf_memory_cost(const struct mf_graph *graph, int32_t program, const struct mf_backend *backend);

/* "recompute norms and activations"; "keep all"; returns `text`. */
char *mf_memory_describe(const struct mf_memory_choice *choice, char *text, size_t bytes);

#endif
