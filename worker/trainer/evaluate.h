/* Evaluation: how well the labels of held-out rows are predicted. */
#ifndef MF_WORKER_TRAINER_EVALUATE_H
#define MF_WORKER_TRAINER_EVALUATE_H

#include "worker/trainer/report.h"
#include "worker/trainer/runtime.h"
#include "worker/trainer/strategies/strategy.h"

struct mf_evaluation {
    double loss;       /* mean negative log-likelihood of a labelled token, natural logarithm */
    double perplexity; /* e^loss */
    int64_t labelled;  /* tokens */
};

struct mf_evaluation_options {
    int32_t batch_size;       /* rows of a pass; whole batches are merged while they fit into pass_tokens */
    int32_t pass_tokens;      /* the program's bound */
    struct mf_report *report; /* progress and cancellation; NULL: neither */
};

/* Over samples index[0 .. count - 1], in this order, sums in double. */
enum mf_status mf_evaluate(struct mf_runtime *runtime, const struct mf_strategy *strategy,
                           const struct mf_model_program *program, const struct mf_samples *samples,
                           const size_t *index, size_t count, const struct mf_evaluation_options *options,
                           struct mf_evaluation *result, struct mf_error *error);

#endif
