/* Supervised fine-tuning: minus the mean log-probability of the labelled tokens, the mean taken over the
 * whole accumulation window (the step's inverse_count), so every label weighs the same whatever its row's
 * length. QLoRA is the same over base weights in 4 bits, which are the model's matter (provider.h). */
#include "kernels/gradient.h"
#include "worker/trainer/feed.h"
#include "worker/trainer/strategies/strategy.h"

static enum mf_status build(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                            struct mf_strategy_programs *out, struct mf_error *error) {
    enum mf_status status = mf_model_build(model, graph, MF_TRAIN, slot, &out->train, error);
    if (status == MF_OK)
        status = mf_gradient_build(graph, out->train.program, out->train.loss, error);
    if (status == MF_OK)
        status = mf_model_build(model, graph, MF_EVALUATE, slot, &out->evaluate, error);
    return status;
}

static void feed(const struct mf_graph *graph, struct mf_executor *executor, const struct mf_samples *samples,
                 const size_t *sample, size_t rows, struct mf_step *step) {
    mf_feed_samples(graph, executor, samples, sample, rows, 1.0f, step);
}

const struct mf_strategy mf_strategy_sft = {.name = "sft", .build = build, .feed = feed};
const struct mf_strategy mf_strategy_qlora = {.name = "qlora", .build = build, .feed = feed};
