/* Learning-rate schedules, equal to Transformers' get_scheduler(). */
#ifndef MF_WORKER_TRAINER_SCHEDULE_H
#define MF_WORKER_TRAINER_SCHEDULE_H

#include "common/error.h"

#include <stdint.h>

enum mf_schedule_kind {
    MF_SCHEDULE_COSINE,
    MF_SCHEDULE_COSINE_WITH_RESTARTS,
    MF_SCHEDULE_LINEAR,
    MF_SCHEDULE_CONSTANT,
    MF_SCHEDULE_CONSTANT_WITH_WARMUP,
    MF_SCHEDULE_POLYNOMIAL,
    MF_SCHEDULE_INVERSE_SQRT,
    MF_SCHEDULES
};

/* A schedule is a value; s counts optimiser steps from 0, w = warmup_steps, T = total_steps:
 *     s < w                 rate · s / max(1, w), so a warm-up's first rate is 0
 *     cosine                rate · ½(1 + cos(π (s − w) / max(1, T − w)))
 *     cosine_with_restarts  the same with Transformers' default of one cycle, and 0 after it
 *     linear                rate · (T − s) / max(1, T − w), at least 0
 *     polynomial            power 1 down to 1e-7: (rate − 1e-7) · (1 − (s − w) / (T − w)) + 1e-7
 *     inverse_sqrt          rate / √((s + t − w) / t), t = w, or 10,000 without warm-up
 *     constant_with_warmup  rate
 *     constant              rate, with no warm-up at all */
struct mf_schedule {
    enum mf_schedule_kind kind;
    double learning_rate;
    int64_t warmup_steps, total_steps;
};

/* `name` is the request's lr_scheduler_type. MF_ERROR_UNSUPPORTED_FIELD names the field and those that there
 * are for any other; MF_ERROR_CONFLICTING_FIELDS when a polynomial schedule would have to rise to its end of
 * 1e-7. */
enum mf_status mf_schedule_init(struct mf_schedule *schedule, const char *name, double learning_rate,
                                int64_t warmup_steps, int64_t total_steps, struct mf_error *error);

double mf_schedule_rate(const struct mf_schedule *schedule, int64_t step);

/* ceil(ratio · total) in double, as the Trainer computes it. */
int64_t mf_schedule_warmup_steps(double ratio, int64_t total_steps);

/* ceil(epochs · ceil(batches / accumulation)); at least 1 when there is a batch, 0 otherwise. */
int64_t mf_schedule_total_steps(double epochs, int64_t batches, int64_t accumulation);

#endif
