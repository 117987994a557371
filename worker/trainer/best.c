#include "worker/trainer/best.h"

#include <stdlib.h>
#include <string.h>

static double metric(const struct mf_request *request, const struct mf_evaluation_record *evaluation) {
    const bool perplexity =
        request->metric_for_best_model && !strcmp(request->metric_for_best_model, "eval_perplexity");
    return perplexity ? evaluation->perplexity : evaluation->loss;
}

const struct mf_evaluation_record *mf_best_evaluation(const struct mf_request *request,
                                                      const struct mf_history *history) {
    const struct mf_evaluation_record *best = NULL;
    for (int64_t i = 0; i < history->evaluations; i++)
        if (!best || metric(request, &history->evaluation[i]) < metric(request, best))
            best = &history->evaluation[i];
    return best;
}

bool mf_best_stops(const struct mf_request *request, const struct mf_history *history) {
    const struct mf_evaluation_record *best = mf_best_evaluation(request, history);
    return request->early_stopping_patience.set && best &&
           history->evaluation + history->evaluations - 1 - best >= request->early_stopping_patience.value;
}

/* The policy's parameters as one run of floats. */
static float *parameters(const struct mf_job *job, int64_t *elements) {
    const struct mf_graph *graph = job->runtime.graph;
    for (int32_t i = 0; i < graph->buckets; i++)
        if (graph->bucket[i].slot == MF_POLICY_SLOT) {
            *elements = graph->bucket[i].elements;
            return job->runtime.executor ? mf_executor_data(job->runtime.executor, graph->bucket[i].parameter)
                                         : NULL;
        }
    *elements = 0;
    return NULL;
}

size_t mf_best_bytes(const struct mf_job *job) {
    int64_t elements = 0;
    (void)parameters(job, &elements);
    return job->request.load_best_model_at_end ? (size_t)elements * sizeof(float) : 0;
}

enum mf_status mf_best_keep(const struct mf_job *job, struct mf_history *history, struct mf_error *error) {
    const size_t bytes = mf_best_bytes(job);
    const struct mf_evaluation_record *best = mf_best_evaluation(&job->request, history);
    int64_t elements;
    if (!bytes || !best || best != &history->evaluation[history->evaluations - 1])
        return MF_OK;
    if (!history->best && !(history->best = malloc(bytes)))
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to keep the best model");
    memcpy(history->best, parameters(job, &elements), bytes);
    return MF_OK;
}

void mf_best_restore(const struct mf_job *job, struct mf_history *history) {
    const struct mf_evaluation_record *best = mf_best_evaluation(&job->request, history);
    int64_t elements;
    history->kept_step = history->steps;
    if (!history->best || !best || best->step == history->steps)
        return;
    memcpy(parameters(job, &elements), history->best, mf_best_bytes(job));
    mf_executor_round_copies(job->runtime.executor);
    history->kept_step = best->step;
}
