/* Strategies: what is learned from a row. A strategy builds its loss on a model's programs and writes rows
 * into their inputs; the loop, the optimiser and the model do not know which one runs. */
#ifndef MF_WORKER_TRAINER_STRATEGIES_STRATEGY_H
#define MF_WORKER_TRAINER_STRATEGIES_STRATEGY_H

#include "common/error.h"
#include "kernels/executor.h"
#include "kernels/graph.h"
#include "providers/models/model.h"
#include "worker/trainer/template.h"

struct mf_strategy_programs {
    struct mf_model_program train; /* adds the gradients of `slot`'s parameters to their bucket; gives loss */
    struct mf_model_program evaluate; /* log-probabilities of the labels */
};

struct mf_strategy {
    const char *name; /* the request's strategy */
    /* Builds the programs; adapters of `slot` are in the graph already. */
    enum mf_status (*build)(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                            struct mf_strategy_programs *out, struct mf_error *error);
    /* Writes rows into the inputs of either program, and their sizes into step->value. */
    void (*feed)(const struct mf_graph *graph, struct mf_executor *executor, const struct mf_samples *samples,
                 const size_t *sample, size_t rows, struct mf_step *step);
};

/* MF_ERROR_UNSUPPORTED_FIELD names those that there are. *out is static. */
enum mf_status mf_strategy_find(const char *name, const struct mf_strategy **out, struct mf_error *error);

extern const struct mf_strategy mf_strategy_sft, mf_strategy_qlora;

#endif
