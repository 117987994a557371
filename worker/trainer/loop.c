#include "worker/trainer/loop.h"

#include "common/clock.h"
#include "worker/trainer/best.h"
#include "worker/trainer/checkpoint.h"

#include <math.h>
#include <stdlib.h>

enum mf_status mf_loop_step(struct mf_job *job, const struct mf_window *window, int64_t number,
                            struct mf_step_record *record, struct mf_error *error) {
    struct mf_runtime *runtime = &job->runtime;
    struct mf_step step = {.learning_rate = (float)mf_schedule_rate(&job->schedule, number - 1),
                           .inverse_count = (float)(1.0 / (double)window->labelled),
                           .clip = (float)job->request.max_grad_norm,
                           .step = (uint32_t)number,
                           .optimizer_step = (uint32_t)number,
                           .seed = (uint64_t)job->request.seed};
    *record = (struct mf_step_record){.learning_rate = mf_schedule_rate(&job->schedule, number - 1),
                                      .tokens = window->tokens};
    for (size_t first = 0; first < window->rows;) {
        size_t rows = mf_rows_that_fit(&job->samples, window->sample, first, window->rows, job->pass_tokens);
        job->strategy->feed(runtime->graph, runtime->executor, &job->samples, window->sample + first, rows,
                            &step);
        enum mf_status status = mf_report_check(job->report, error);
        if (status == MF_OK)
            status = mf_executor_run(runtime->executor, job->programs.train.program, &step, error);
        if (status != MF_OK)
            return status;
        record->loss += (double)*(const float *)mf_executor_data(runtime->executor, job->programs.train.loss);
        first += rows;
    }
    if (!isfinite(record->loss))
        return mf_error_set(error, MF_ERROR_LOSS_NOT_FINITE,
                            "step %lld: the loss is %g; a lower learning_rate may help", (long long)number,
                            record->loss);
    enum mf_status status = mf_executor_run(runtime->executor, job->update, &step, error);
    if (status != MF_OK)
        return status;
    record->gradient_norm = (double)*(const float *)mf_executor_data(runtime->executor, job->norm);
    if (!isfinite(record->gradient_norm))
        return mf_error_set(error, MF_ERROR_LOSS_NOT_FINITE,
                            "step %lld: the gradient norm is %g although the loss is %g", (long long)number,
                            record->gradient_norm, record->loss);
    return MF_OK;
}

static void report_step(const struct mf_job *job, struct mf_history *history, double epoch) {
    struct mf_interval *interval = &history->interval;
    const struct mf_step_record *last = &history->step[history->steps - 1];
    mf_report_event(job->report, &(struct mf_event){.type = MF_EVENT_STEP,
                                                    .step = {.step = history->steps,
                                                             .epoch = epoch,
                                                             .loss = interval->loss / (double)interval->steps,
                                                             .learning_rate = last->learning_rate,
                                                             .gradient_norm = last->gradient_norm,
                                                             .tokens = interval->tokens,
                                                             .tokens_per_second =
                                                                 (double)interval->tokens / interval->seconds,
                                                             .elapsed_seconds = history->train_seconds}});
    *interval = (struct mf_interval){0};
}

static enum mf_status evaluate(struct mf_job *job, struct mf_history *history, struct mf_error *error) {
    struct mf_evaluation result;
    const struct mf_evaluation_options options = {.batch_size =
                                                      (int32_t)job->request.per_device_eval_batch_size,
                                                  .pass_tokens = job->pass_tokens,
                                                  .report = job->report};
    enum mf_status status =
        mf_evaluate(&job->runtime, job->strategy, &job->programs.evaluate, job->eval_samples, job->split.eval,
                    job->split.eval_count, &options, &result, error);
    if (status == MF_ERROR_LOSS_NOT_FINITE)
        return mf_error_prefix(error, "step %lld", (long long)history->steps);
    if (status != MF_OK)
        return status;
    history->evaluation[history->evaluations++] =
        (struct mf_evaluation_record){history->steps, result.loss, result.perplexity};
    mf_report_event(
        job->report,
        &(struct mf_event){.type = MF_EVENT_EVAL, .eval = {history->steps, result.loss, result.perplexity}});
    return mf_best_keep(job, history, error);
}

static enum mf_status train_step(struct mf_job *job, struct mf_history *history, struct mf_error *error) {
    struct mf_interval *interval = &history->interval;
    struct mf_window window;
    struct mf_step_record *record = &history->step[history->steps];
    mf_sampler_next(&job->sampler, &window);
    const int64_t before_ns = mf_clock_monotonic_ns();
    enum mf_status status = mf_loop_step(job, &window, history->steps + 1, record, error);
    if (status != MF_OK)
        return status;
    const double seconds = (double)(mf_clock_monotonic_ns() - before_ns) / 1e9;
    record->seconds = seconds;
    history->steps++;
    history->trained_tokens += window.tokens;
    history->trained_labels += window.labelled;
    history->train_seconds += seconds;
    history->train_loss += (record->loss - history->train_loss) / (double)history->steps;
    interval->steps++;
    interval->tokens += window.tokens;
    interval->loss += record->loss;
    interval->seconds += seconds;
    if (history->steps % job->request.logging_steps == 0 || history->steps == job->total_steps)
        report_step(job, history, window.epoch);
    mf_report_progress(job->report, MF_PHASE_TRAIN, (double)history->steps / (double)job->total_steps);
    return MF_OK;
}

/* An evaluation that this step calls for and that has not been made. */
static bool evaluation_due(const struct mf_job *job, const struct mf_history *history) {
    const bool called = history->steps % job->request.eval_steps == 0 || history->steps == job->total_steps;
    const int64_t last = history->evaluations ? history->evaluation[history->evaluations - 1].step : 0;
    return job->split.eval_count && history->steps && called && last != history->steps;
}

/* Writes a checkpoint and says so, unless there is one of this step. */
static enum mf_status save(struct mf_job *job, struct mf_history *history, struct mf_error *error) {
    char *path = NULL;
    if (history->steps == history->saved_steps)
        return MF_OK;
    enum mf_status status = mf_checkpoint_write(job, history, &path, error);
    if (status != MF_OK)
        return mf_error_prefix(error, "checkpoint of step %lld", (long long)history->steps);
    history->saved_steps = history->steps;
    mf_report_event(job->report, &(struct mf_event){.type = MF_EVENT_CHECKPOINT,
                                                    .checkpoint = {.step = history->steps, .path = path}});
    free(path);
    /* a worker takes each away once it is stored, and keeps the limit in the storage */
    if (job->request.save_total_limit.set && !mf_report_attached(job->report))
        status = mf_checkpoint_limit(job->checkpoint_dir, history->steps, job->request.save_total_limit.value,
                                     error);
    return status;
}

/* Between two steps: a pause first, because it must not wait for an evaluation (a resumed run makes it up).
 */
static enum mf_status between_steps(struct mf_job *job, struct mf_history *history, struct mf_error *error) {
    const struct mf_request *request = &job->request;
    if (mf_report_pause_wanted(job->report) && history->steps < job->total_steps) {
        history->paused = true;
        return save(job, history, error);
    }
    enum mf_status status = MF_OK;
    const bool due = request->save_steps.set && history->steps % request->save_steps.value == 0;
    if (evaluation_due(job, history))
        status = evaluate(job, history, error);
    if (status == MF_OK && (mf_report_take_checkpoint(job->report) || due))
        status = save(job, history, error);
    return status;
}

/* After the last step: what was not reported yet, and the state that the outputs are made of. */
static void finish(struct mf_job *job, struct mf_history *history) {
    if (history->interval.steps)
        report_step(job, history,
                    job->sampler.epoch + (double)job->sampler.cursor / (double)job->sampler.count);
    if (history->stopped_early)
        mf_report_log(job->report, "info",
                      "stopped after step %lld of %lld: %lld evaluations were no better than the best",
                      (long long)history->steps, (long long)job->total_steps,
                      (long long)job->request.early_stopping_patience.value);
    mf_best_restore(job, history);
    if (history->kept_step != history->steps)
        mf_report_log(job->report, "info", "went back to the best model, that of step %lld",
                      (long long)history->kept_step);
}

enum mf_status mf_loop_run(struct mf_job *job, struct mf_history *history, struct mf_error *error) {
    const int64_t evaluations = job->total_steps / job->request.eval_steps + 2;
    *history = (struct mf_history){
        .step = calloc((size_t)job->total_steps + 1, sizeof *history->step),
        .evaluation = calloc((size_t)evaluations, sizeof *history->evaluation),
        .evaluation_room = evaluations,
    };
    if (!history->step || !history->evaluation)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    enum mf_status status = MF_OK;
    if (job->resume_from) {
        status = mf_checkpoint_read(job->resume_from, job, history, error);
        history->saved_steps = history->steps;
        if (status == MF_OK)
            mf_report_log(job->report, "info", "resumed after step %lld from %s", (long long)history->steps,
                          job->resume_from);
    }
    while (status == MF_OK) {
        status = between_steps(job, history, error);
        if (status != MF_OK || history->paused)
            return status;
        history->stopped_early = history->steps < job->total_steps && mf_best_stops(&job->request, history);
        if (history->steps == job->total_steps || history->stopped_early)
            break;
        status = train_step(job, history, error);
        if (status == MF_OK)
            mf_device_memory_warm(job);
    }
    if (status == MF_OK)
        mf_device_memory_finish(job);
    if (status == MF_OK)
        finish(job, history);
    return status;
}

const struct mf_evaluation_record *mf_history_kept(const struct mf_history *history) {
    for (int64_t i = history->evaluations - 1; i >= 0; i--)
        if (history->evaluation[i].step <= history->kept_step)
            return &history->evaluation[i];
    return NULL;
}

void mf_history_destroy(struct mf_history *history) {
    free(history->step);
    free(history->evaluation);
    free(history->best);
    free(history->block_sha256);
    *history = (struct mf_history){0};
}
