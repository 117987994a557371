#include "worker/trainer/evaluate.h"

#include "worker/trainer/batcher.h"

#include <math.h>

enum mf_status mf_evaluate(struct mf_runtime *runtime, const struct mf_strategy *strategy,
                           const struct mf_model_program *program, const struct mf_samples *samples,
                           const size_t *index, size_t count, const struct mf_evaluation_options *options,
                           struct mf_evaluation *result, struct mf_error *error) {
    double sum = 0;
    int64_t labelled = 0;
    for (size_t first = 0; first < count;) {
        size_t rows = mf_rows_that_fit(samples, index, first, count, options->pass_tokens);
        if (rows > (size_t)options->batch_size)
            rows -= rows % (size_t)options->batch_size;
        struct mf_step step = {.inverse_count = 1};
        strategy->feed(runtime->graph, runtime->executor, samples, index + first, rows, &step);
        enum mf_status status = options->report ? mf_report_check(options->report, error) : MF_OK;
        if (status == MF_OK)
            status = mf_executor_run(runtime->executor, program->program, &step, error);
        if (status != MF_OK)
            return status;
        const float *log_probability = mf_executor_data(runtime->executor, program->log_probability);
        for (int32_t i = 0; i < step.value[MF_LABELLED]; i++)
            sum -= (double)log_probability[i];
        labelled += step.value[MF_LABELLED];
        first += rows;
        if (options->report)
            mf_report_progress(options->report, MF_PHASE_EVALUATE, (double)first / (double)count);
    }
    const double loss = labelled ? sum / (double)labelled : 0;
    *result = (struct mf_evaluation){loss, exp(loss), labelled};
    if (!isfinite(loss))
        return mf_error_set(error, MF_ERROR_LOSS_NOT_FINITE, "evaluation: the loss is %g", loss);
    return MF_OK;
}
