#include "worker/trainer/schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double polynomial_end = 1e-7;
static const double pi = 3.14159265358979323846;

enum mf_status mf_schedule_init(struct mf_schedule *schedule, const char *name, double learning_rate,
                                int64_t warmup_steps, int64_t total_steps, struct mf_error *error) {
    static const char *const names[MF_SCHEDULES] = {
        [MF_SCHEDULE_COSINE] = "cosine",
        [MF_SCHEDULE_COSINE_WITH_RESTARTS] = "cosine_with_restarts",
        [MF_SCHEDULE_LINEAR] = "linear",
        [MF_SCHEDULE_CONSTANT] = "constant",
        [MF_SCHEDULE_CONSTANT_WITH_WARMUP] = "constant_with_warmup",
        [MF_SCHEDULE_POLYNOMIAL] = "polynomial",
        [MF_SCHEDULE_INVERSE_SQRT] = "inverse_sqrt"};
    char list[200] = "";
    for (size_t kind = 0; kind < MF_SCHEDULES; kind++) {
        const size_t length = strlen(list);
        snprintf(list + length, sizeof list - length, "%s%s", kind ? ", " : "", names[kind]);
        if (strcmp(name, names[kind]) != 0)
            continue;
        if (kind == MF_SCHEDULE_POLYNOMIAL && learning_rate <= polynomial_end)
            return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                                "learning_rate: %g is not above the end of a polynomial schedule, %g",
                                learning_rate, polynomial_end);
        *schedule =
            (struct mf_schedule){(enum mf_schedule_kind)kind, learning_rate, warmup_steps, total_steps};
        return MF_OK;
    }
    return mf_error_set(error, MF_ERROR_UNSUPPORTED_FIELD, "lr_scheduler_type: '%s' is not one of %s", name,
                        list);
}

static double cosine(double progress) {
    const double factor = 0.5 * (1.0 + cos(pi * progress));
    return factor > 0 ? factor : 0;
}

static double inverse_sqrt(int64_t step, int64_t warmup) {
    const double timescale = warmup > 0 ? (double)warmup : 10000;
    return 1.0 / sqrt(((double)step + (timescale - (double)warmup)) / timescale);
}

double mf_schedule_rate(const struct mf_schedule *schedule, int64_t step) {
    const double rate = schedule->learning_rate;
    const int64_t warmup = schedule->warmup_steps, total = schedule->total_steps;
    if (schedule->kind == MF_SCHEDULE_CONSTANT)
        return rate;
    if (step < warmup)
        return rate * ((double)step / (double)(warmup > 1 ? warmup : 1));
    const double span = (double)(total - warmup > 1 ? total - warmup : 1);
    const double progress = (double)(step - warmup) / span;
    switch (schedule->kind) {
    case MF_SCHEDULE_COSINE:
        return rate * cosine(progress);
    case MF_SCHEDULE_COSINE_WITH_RESTARTS:
        return progress >= 1 ? 0 : rate * cosine(progress);
    case MF_SCHEDULE_LINEAR:
        return rate * (step < total ? (double)(total - step) / span : 0);
    case MF_SCHEDULE_POLYNOMIAL:
        if (step > total)
            return polynomial_end;
        return (rate - polynomial_end) * (1.0 - progress) + polynomial_end;
    case MF_SCHEDULE_INVERSE_SQRT:
        return rate * inverse_sqrt(step, warmup);
    case MF_SCHEDULE_CONSTANT:
    case MF_SCHEDULE_CONSTANT_WITH_WARMUP:
    case MF_SCHEDULES:
        break;
    }
    return rate;
}

int64_t mf_schedule_warmup_steps(double ratio, int64_t total_steps) {
    return (int64_t)ceil(ratio * (double)total_steps);
}

int64_t mf_schedule_total_steps(double epochs, int64_t batches, int64_t accumulation) {
    if (batches <= 0)
        return 0;
    int64_t windows = (batches + accumulation - 1) / accumulation;
    int64_t steps = (int64_t)ceil(epochs * (double)windows);
    return steps > 0 ? steps : 1;
}
