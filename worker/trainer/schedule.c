#include "worker/trainer/schedule.h"

#include <math.h>
#include <string.h>

static const double polynomial_end = 1e-7;
static const double pi = 3.14159265358979323846;

enum mf_status mf_schedule_init(struct mf_schedule *schedule, const char *name, double learning_rate,
                                int64_t warmup_steps, int64_t total_steps, struct mf_error *error) {
    static const char *const names[] = {[MF_SCHEDULE_COSINE] = "cosine",
                                        [MF_SCHEDULE_LINEAR] = "linear",
                                        [MF_SCHEDULE_CONSTANT] = "constant",
                                        [MF_SCHEDULE_POLYNOMIAL] = "polynomial"};
    for (size_t kind = 0; kind < sizeof names / sizeof *names; kind++) {
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
    return mf_error_set(error, MF_ERROR_UNSUPPORTED_FIELD,
                        "lr_scheduler_type: '%s' is not one of cosine, linear, constant, polynomial", name);
}

double mf_schedule_rate(const struct mf_schedule *schedule, int64_t step) {
    const double rate = schedule->learning_rate;
    const int64_t warmup = schedule->warmup_steps, total = schedule->total_steps;
    if (schedule->kind == MF_SCHEDULE_CONSTANT)
        return rate;
    if (step < warmup)
        return rate * ((double)step / (double)(warmup > 1 ? warmup : 1));
    const double span = (double)(total - warmup > 1 ? total - warmup : 1);
    switch (schedule->kind) {
    case MF_SCHEDULE_COSINE: {
        double factor = 0.5 * (1.0 + cos(pi * ((double)(step - warmup) / span)));
        return rate * (factor > 0 ? factor : 0);
    }
    case MF_SCHEDULE_LINEAR:
        return rate * (step < total ? (double)(total - step) / span : 0);
    case MF_SCHEDULE_POLYNOMIAL:
        if (step > total)
            return polynomial_end;
        return (rate - polynomial_end) * (1.0 - (double)(step - warmup) / span) + polynomial_end;
    case MF_SCHEDULE_CONSTANT:
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
