/* The training loop: windows in, optimiser steps out. */
#ifndef MF_WORKER_TRAINER_LOOP_H
#define MF_WORKER_TRAINER_LOOP_H

#include "worker/trainer/evaluate.h"
#include "worker/trainer/job.h"

struct mf_step_record {
    double loss, learning_rate, gradient_norm;
    double seconds; /* of the step alone */
    int64_t tokens;
};

struct mf_evaluation_record {
    int64_t step;
    double loss, perplexity;
};

/* What has gathered since the last step line. */
struct mf_interval {
    int64_t steps, tokens;
    double loss, seconds;
};

/* What a run leaves behind. */
struct mf_history {
    struct mf_step_record *step; /* (steps) */
    struct mf_evaluation_record *evaluation;
    int64_t steps, evaluations, evaluation_room;
    int64_t trained_tokens, trained_labels;
    double train_seconds; /* without evaluation */
    double train_loss;    /* mean over the steps */
    struct mf_interval interval;
    int64_t saved_steps; /* of the newest checkpoint written or resumed from; 0: none */
    char (*block_sha256)[MF_SHA256_TEXT_BYTES]; /* steps_file.h: of the whole blocks that were written */
    int64_t blocks_kept;
    float *best;       /* parameters of the best evaluation; NULL: not kept */
    int64_t kept_step; /* whose parameters the outputs hold; 0: not decided */
    bool stopped_early;
    bool paused; /* stopped at the worker's wish before the last step, with a checkpoint */
};

/* Runs all steps of a prepared job (from job->resume_from's on, where that is set), evaluates every
 * eval_steps and at the end, and reports every logging_steps (means over the steps since the last report) and
 * at the last step. Ends early when the evaluations get no better, and goes back
 * to the best, where the request says so. Writes a checkpoint every save_steps and when the worker asks; a
 * pause ends the run with one, and with MF_OK and history->paused. Stops with MF_ERROR_CANCELLED, or with
 * MF_ERROR_LOSS_NOT_FINITE naming the step. *history is freed with mf_history_destroy() whatever is returned.
 */
enum mf_status mf_loop_run(struct mf_job *job, struct mf_history *history, struct mf_error *error);
/* The newest evaluation of the state that was kept; NULL: there was none. */
const struct mf_evaluation_record *mf_history_kept(const struct mf_history *history);
void mf_history_destroy(struct mf_history *history);

/* One accumulation window: forward and backward of its rows in passes of at most job->pass_tokens, then the
 * update. `step` counts from 1. */
enum mf_status mf_loop_step(struct mf_job *job, const struct mf_window *window, int64_t step,
                            struct mf_step_record *record, struct mf_error *error);

#endif
