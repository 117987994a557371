/* Learning-rate schedules, equal to Transformers' get_scheduler(). */
#ifndef MF_WORKER_TRAINER_SCHEDULE_H
#define MF_WORKER_TRAINER_SCHEDULE_H

#include "common/error.h"

#include <jansson.h>
#include <stdint.h>

enum mf_schedule_kind {
    MF_SCHEDULE_COSINE,
    MF_SCHEDULE_COSINE_WITH_RESTARTS,
    MF_SCHEDULE_LINEAR,
    MF_SCHEDULE_CONSTANT,
    MF_SCHEDULE_CONSTANT_WITH_WARMUP,
    MF_SCHEDULE_POLYNOMIAL,
    MF_SCHEDULE_INVERSE_SQRT,
    MF_SCHEDULE_COSINE_WITH_MIN_LR,
    MF_SCHEDULE_WARMUP_STABLE_DECAY,
    MF_SCHEDULES
};

/* Transformers' names of what a schedule may be told. */
enum mf_schedule_setting {
    MF_NUM_CYCLES,       /* c: ½ for cosines, 1 for restarts (a whole number there) */
    MF_POWER,            /* 1 */
    MF_LR_END,           /* 1e-7 */
    MF_TIMESCALE,        /* t: w, or 10,000 without warm-up */
    MF_MIN_LR,           /* m · rate; this or MF_MIN_LR_RATE must be given */
    MF_MIN_LR_RATE,      /* m */
    MF_NUM_DECAY_STEPS,  /* d; must be given */
    MF_NUM_STABLE_STEPS, /* a: T − w − d */
    MF_MIN_LR_RATIO,     /* m: 0 */
    MF_SCHEDULE_SETTINGS
};

/* A schedule is a value; s counts optimiser steps from 0, w = warmup_steps, T = total_steps:
 *     s < w                 rate · s / max(1, w), so a warm-up's first rate is 0
 *     then, with x = (s − w) / max(1, T − w):
 *     cosine                rate · ½(1 + cos(2π c x))
 *     cosine_with_min_lr    rate · (½(1 + cos(2π c x)) · (1 − m) + m)
 *     cosine_with_restarts  rate · ½(1 + cos(π (c x mod 1))), 0 from T on
 *     linear                rate · (T − s) / max(1, T − w), at least 0
 *     polynomial            (rate − lr_end) · (1 − x)^power + lr_end
 *     inverse_sqrt          rate / √((s + t − w) / t)
 *     warmup_stable_decay   a steps of rate, then rate · (½(1 + cos(2π c y)) · (1 − m) + m) over y = 0 .. 1
 * in d steps, then rate · m; its warm-up begins at rate · m constant_with_warmup  rate constant rate, with no
 * warm-up at all */
struct mf_schedule {
    enum mf_schedule_kind kind;
    double learning_rate;
    int64_t warmup_steps, total_steps;
    double setting[MF_SCHEDULE_SETTINGS]; /* NAN: was not given and has no default */
};

/* What a schedule is made of; borrowed. */
struct mf_schedule_options {
    const char *name;       /* the request's lr_scheduler_type */
    const json_t *settings; /* its lr_scheduler_kwargs, numbers as texts; NULL: none */
    double learning_rate;
    int64_t warmup_steps, total_steps;
};

/* MF_ERROR_UNSUPPORTED_FIELD names those that there are for any other name, MF_ERROR_INVALID_FIELD a setting
 * that the schedule does not have or that is out of range, MF_ERROR_MISSING_FIELD one that it needs;
 * MF_ERROR_CONFLICTING_FIELDS when a polynomial schedule would have to rise to its end, or steps do not fit.
 */
enum mf_status mf_schedule_init(struct mf_schedule *schedule, const struct mf_schedule_options *options,
                                struct mf_error *error);

double mf_schedule_rate(const struct mf_schedule *schedule, int64_t step);

/* ceil(ratio · total) in double, as the Trainer computes it. */
int64_t mf_schedule_warmup_steps(double ratio, int64_t total_steps);

/* ceil(epochs · ceil(batches / accumulation)); at least 1 when there is a batch, 0 otherwise. */
int64_t mf_schedule_total_steps(double epochs, int64_t batches, int64_t accumulation);

#endif
