/* Writing rows into the inputs of a graph: the token stream of one run of a program. */
#ifndef MF_WORKER_TRAINER_FEED_H
#define MF_WORKER_TRAINER_FEED_H

#include "kernels/executor.h"
#include "kernels/graph.h"
#include "worker/trainer/template.h"

/* Lays the given samples one after another into TOKENS, POSITIONS, ROWS, OFFSETS, LABEL_ROWS and LABELS, each
 * label's `coefficient` into COEFFICIENTS, and the sizes into step->value. They must fit the program's
 * bounds. */
void mf_feed_samples(const struct mf_graph *graph, struct mf_executor *executor,
                     const struct mf_samples *samples, const size_t *sample, size_t rows, float coefficient,
                     struct mf_step *step);

/* One sequence for MF_PREFILL or MF_DECODE: `count` tokens that stand at positions first .. first + count - 1
 * of a row whose earlier keys and values are in the cache. */
void mf_feed_continuation(const struct mf_graph *graph, struct mf_executor *executor, const int32_t *token,
                          int32_t count, int32_t first, struct mf_step *step);

#endif
