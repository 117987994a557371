#include "worker/trainer/probe.h"

#include "common/clock.h"
#include "kernels/cpu/backend.h"
#include "kernels/cuda/backend.h"

/* A pass that takes longer is not repeated. */
static const double long_pass_seconds = 5;

static double seconds_since(int64_t start_ns) {
    return (double)(mf_clock_monotonic_ns() - start_ns) / 1e9;
}

static enum mf_status timed(struct mf_job *job, int32_t program, const struct mf_step *step, double *seconds,
                            struct mf_error *error) {
    const int64_t start = mf_clock_monotonic_ns();
    enum mf_status status = mf_report_check(job->report, error);
    if (status == MF_OK)
        status = mf_executor_run(job->runtime.executor, program, step, error);
    *seconds = seconds_since(start);
    return status;
}

/* The faster of two runs: the first one warms up. */
static enum mf_status measure(struct mf_job *job, int32_t program, const struct mf_step *step,
                              struct mf_ledger *ledger, double *seconds, struct mf_error *error) {
    double again;
    enum mf_status status = timed(job, program, step, seconds, error);
    if (status != MF_OK || (*seconds > long_pass_seconds && !ledger))
        return status;
    if (ledger)
        mf_executor_set_trace(job->runtime.executor, mf_ledger_note, ledger);
    status = timed(job, program, step, &again, error);
    mf_executor_set_trace(job->runtime.executor, NULL, NULL);
    *seconds = again < *seconds ? again : *seconds;
    return status;
}

/* Evaluations of the whole run: every eval_steps and at the end. */
static int64_t count_evaluations(const struct mf_job *job) {
    const int64_t steps = job->total_steps, every = job->request.eval_steps;
    return job->split.eval_count ? steps / every + (steps % every != 0) : 0;
}

static enum mf_status measure_training(struct mf_job *job, struct mf_estimate *estimate,
                                       struct mf_ledger *ledger, struct mf_error *error) {
    struct mf_runtime *runtime = &job->runtime;
    struct mf_step step = {.clip = (float)job->request.max_grad_norm,
                           .step = 1,
                           .optimizer_step = 1,
                           .seed = (uint64_t)job->request.seed};
    struct mf_window window;
    double seconds = 0;
    mf_sampler_next(&job->sampler, &window);
    step.inverse_count = (float)(1.0 / (double)window.labelled);
    const size_t rows = mf_rows_that_fit(&job->samples, window.sample, 0, window.rows, job->pass_tokens);
    job->strategy->feed(runtime->graph, runtime->executor, &job->samples, window.sample, rows, &step);
    enum mf_status status = measure(job, job->programs.train.program, &step, ledger, &seconds, error);
    if (status == MF_OK)
        status = measure(job, job->update, &step, ledger, &estimate->update_seconds, error);
    estimate->probe_tokens = step.value[MF_TOKENS];
    estimate->train_tokens_per_second = (double)step.value[MF_TOKENS] / seconds;
    return status;
}

static enum mf_status measure_evaluation(struct mf_job *job, struct mf_estimate *estimate,
                                         struct mf_error *error) {
    struct mf_runtime *runtime = &job->runtime;
    struct mf_step step = {.inverse_count = 1};
    double seconds = 0;
    const size_t rows =
        mf_rows_that_fit(job->eval_samples, job->split.eval, 0, job->split.eval_count, job->pass_tokens);
    job->strategy->feed(runtime->graph, runtime->executor, job->eval_samples, job->split.eval, rows, &step);
    const enum mf_status status = measure(job, job->programs.evaluate.program, &step, NULL, &seconds, error);
    estimate->evaluate_tokens_per_second = (double)step.value[MF_TOKENS] / seconds;
    return status;
}

static int64_t shares(int64_t whole, int64_t part) {
    return (whole + part - 1) / part;
}

/* Tokens of all passes, windows taking equal shares of an epoch. */
static double trained_tokens(const struct mf_job *job) {
    const int64_t batches = shares((int64_t)job->sampler.count, job->request.per_device_train_batch_size);
    const int64_t windows = shares(batches, job->request.gradient_accumulation_steps);
    return (double)job->train_tokens * (double)job->total_steps / (double)windows;
}

enum mf_status mf_probe(struct mf_job *job, struct mf_estimate *estimate, struct mf_ledger *ledger,
                        struct mf_error *error) {
    const int64_t start = mf_clock_monotonic_ns();
    enum mf_status status = MF_OK;
    *estimate = (struct mf_estimate){.evaluations = count_evaluations(job)};
    if (ledger) {
        *ledger = (struct mf_ledger){0};
        status = (job->runtime.device.kind == MF_DEVICE_CUDA ? mf_cuda_measure : mf_cpu_measure)(
            job->runtime.backend, mf_model_compute_dtype(job->runtime.model), &ledger->rates, error);
    }
    if (status == MF_OK)
        status = measure_training(job, estimate, ledger, error);
    if (status == MF_OK && ledger)
        mf_ledger_end_step(ledger);
    if (status == MF_OK && estimate->evaluations)
        status = measure_evaluation(job, estimate, error);
    if (status != MF_OK)
        return status;
    double held_back = 0;
    for (size_t i = 0; i < job->split.eval_count; i++)
        held_back += job->eval_samples->sample[job->split.eval[i]].length;
    estimate->train_seconds = trained_tokens(job) / estimate->train_tokens_per_second +
                              (double)job->total_steps * estimate->update_seconds;
    if (estimate->evaluations)
        estimate->evaluate_seconds =
            (double)estimate->evaluations * held_back / estimate->evaluate_tokens_per_second;
    estimate->probe_seconds = seconds_since(start);
    return MF_OK;
}
