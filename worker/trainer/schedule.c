#include "worker/trainer/schedule.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

/* ---- settings ---------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    double least, most;
    bool whole;
} settings[MF_SCHEDULE_SETTINGS] = {
    [MF_NUM_CYCLES] = {"num_cycles", 1e-6, 1e6, false},
    [MF_POWER] = {"power", 1e-6, 100, false},
    [MF_LR_END] = {"lr_end", 0, 1, false},
    [MF_TIMESCALE] = {"timescale", 1, 1e12, true},
    [MF_MIN_LR] = {"min_lr", 0, 1, false},
    [MF_MIN_LR_RATE] = {"min_lr_rate", 0, 1, false},
    [MF_NUM_DECAY_STEPS] = {"num_decay_steps", 0, 1e8, true},
    [MF_NUM_STABLE_STEPS] = {"num_stable_steps", 0, 1e8, true},
    [MF_MIN_LR_RATIO] = {"min_lr_ratio", 0, 1, false},
};
#define BIT(setting) (1u << (setting))

static const struct {
    const char *name;
    unsigned settings; /* BIT of those that it has */
} kinds[MF_SCHEDULES] = {
    [MF_SCHEDULE_COSINE] = {"cosine", BIT(MF_NUM_CYCLES)},
    [MF_SCHEDULE_COSINE_WITH_RESTARTS] = {"cosine_with_restarts", BIT(MF_NUM_CYCLES)},
    [MF_SCHEDULE_LINEAR] = {"linear", 0},
    [MF_SCHEDULE_CONSTANT] = {"constant", 0},
    [MF_SCHEDULE_CONSTANT_WITH_WARMUP] = {"constant_with_warmup", 0},
    [MF_SCHEDULE_POLYNOMIAL] = {"polynomial", BIT(MF_POWER) | BIT(MF_LR_END)},
    [MF_SCHEDULE_INVERSE_SQRT] = {"inverse_sqrt", BIT(MF_TIMESCALE)},
    [MF_SCHEDULE_COSINE_WITH_MIN_LR] = {"cosine_with_min_lr",
                                        BIT(MF_NUM_CYCLES) | BIT(MF_MIN_LR) | BIT(MF_MIN_LR_RATE)},
    [MF_SCHEDULE_WARMUP_STABLE_DECAY] = {"warmup_stable_decay", BIT(MF_NUM_CYCLES) | BIT(MF_NUM_DECAY_STEPS) |
                                                                    BIT(MF_NUM_STABLE_STEPS) |
                                                                    BIT(MF_MIN_LR_RATIO)},
};

static void set_defaults(struct mf_schedule *schedule) {
    double *setting = schedule->setting;
    for (int i = 0; i < MF_SCHEDULE_SETTINGS; i++)
        setting[i] = NAN;
    setting[MF_NUM_CYCLES] = schedule->kind == MF_SCHEDULE_COSINE_WITH_RESTARTS ? 1 : 0.5;
    setting[MF_POWER] = 1;
    setting[MF_LR_END] = 1e-7;
    setting[MF_TIMESCALE] = schedule->warmup_steps > 0 ? (double)schedule->warmup_steps : 10000;
    setting[MF_MIN_LR_RATIO] = 0;
}

/* The names of a schedule's settings, or why there are none to give. */
static const char *names_of(enum mf_schedule_kind kind, char *text, size_t bytes) {
    size_t used = 0;
    snprintf(text, bytes, "it has none");
    for (int i = 0; i < MF_SCHEDULE_SETTINGS; i++)
        if (kinds[kind].settings & BIT(i))
            used += (size_t)snprintf(text + used, bytes - used, "%s%s", used ? ", " : "it has ",
                                     settings[i].name);
    return text;
}

static enum mf_status read_setting(struct mf_schedule *schedule, const char *key, const char *text,
                                   struct mf_error *error) {
    char names[200], *end;
    int i = 0;
    while (i < MF_SCHEDULE_SETTINGS && strcmp(settings[i].name, key) != 0)
        i++;
    if (i == MF_SCHEDULE_SETTINGS || !(kinds[schedule->kind].settings & BIT(i)))
        return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                            "lr_scheduler_kwargs: %s has no setting '%.64s'; %s", kinds[schedule->kind].name,
                            key, names_of(schedule->kind, names, sizeof names));
    const double value = strtod(text, &end);
    const bool whole =
        settings[i].whole || (i == MF_NUM_CYCLES && schedule->kind == MF_SCHEDULE_COSINE_WITH_RESTARTS);
    if (end == text || *end || !(value >= settings[i].least && value <= settings[i].most) ||
        (whole && value != floor(value)))
        return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                            "lr_scheduler_kwargs: %s: '%.64s' is not %s in [%g, %g]", key, text,
                            whole ? "a whole number" : "a number", settings[i].least, settings[i].most);
    schedule->setting[i] = value;
    return MF_OK;
}

/* What a schedule needs, and what does not go together. */
static enum mf_status check_settings(struct mf_schedule *schedule, struct mf_error *error) {
    double *setting = schedule->setting;
    const double rate = schedule->learning_rate;
    if (schedule->kind == MF_SCHEDULE_POLYNOMIAL && rate <= setting[MF_LR_END])
        return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                            "learning_rate: %g is not above the end of a polynomial schedule, %g", rate,
                            setting[MF_LR_END]);
    if (schedule->kind == MF_SCHEDULE_COSINE_WITH_MIN_LR) {
        if (isnan(setting[MF_MIN_LR]) == isnan(setting[MF_MIN_LR_RATE]))
            return mf_error_set(
                error, MF_ERROR_MISSING_FIELD,
                "lr_scheduler_kwargs: cosine_with_min_lr needs one of min_lr and min_lr_rate");
        if (isnan(setting[MF_MIN_LR_RATE]))
            setting[MF_MIN_LR_RATE] = setting[MF_MIN_LR] / rate;
        if (setting[MF_MIN_LR_RATE] > 1)
            return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                                "learning_rate: %g is below the min_lr of lr_scheduler_kwargs, %g", rate,
                                setting[MF_MIN_LR]);
    }
    if (schedule->kind == MF_SCHEDULE_WARMUP_STABLE_DECAY) {
        if (isnan(setting[MF_NUM_DECAY_STEPS]))
            return mf_error_set(error, MF_ERROR_MISSING_FIELD,
                                "lr_scheduler_kwargs: warmup_stable_decay needs num_decay_steps");
        if (isnan(setting[MF_NUM_STABLE_STEPS]))
            setting[MF_NUM_STABLE_STEPS] =
                (double)(schedule->total_steps - schedule->warmup_steps) - setting[MF_NUM_DECAY_STEPS];
        if (setting[MF_NUM_STABLE_STEPS] < 0)
            return mf_error_set(
                error, MF_ERROR_CONFLICTING_FIELDS,
                "lr_scheduler_kwargs: %lld warm-up steps and %g num_decay_steps are more than the "
                "%lld steps of the run",
                (long long)schedule->warmup_steps, setting[MF_NUM_DECAY_STEPS],
                (long long)schedule->total_steps);
    }
    return MF_OK;
}

enum mf_status mf_schedule_init(struct mf_schedule *schedule, const struct mf_schedule_options *options,
                                struct mf_error *error) {
    char list[240];
    size_t kind = 0, used = 0;
    const char *key;
    json_t *value;
    while (kind < MF_SCHEDULES && strcmp(options->name, kinds[kind].name) != 0) {
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", kind ? ", " : "", kinds[kind].name);
        kind++;
    }
    if (kind == MF_SCHEDULES)
        return mf_error_set(error, MF_ERROR_UNSUPPORTED_FIELD, "lr_scheduler_type: '%s' is not one of %s",
                            options->name, list);
    *schedule = (struct mf_schedule){.kind = (enum mf_schedule_kind)kind,
                                     .learning_rate = options->learning_rate,
                                     .warmup_steps = options->warmup_steps,
                                     .total_steps = options->total_steps};
    set_defaults(schedule);
    json_object_foreach((json_t *)options->settings, key, value) {
        const enum mf_status status = read_setting(schedule, key, json_string_value(value), error);
        if (status != MF_OK)
            return status;
    }
    return check_settings(schedule, error);
}

/* ---- rates -------------------------------------------------------------------------------------------- */

static double at_least_zero(double factor) {
    return factor > 0 ? factor : 0;
}

/* ½(1 + cos(angle)), down to `least` instead of 0. */
static double cosine(double angle, double least) {
    return at_least_zero(0.5 * (1.0 + cos(angle)) * (1 - least) + least);
}

static double restarts(const struct mf_schedule *schedule, double progress) {
    return progress >= 1 ? 0 : cosine(pi * fmod(schedule->setting[MF_NUM_CYCLES] * progress, 1.0), 0);
}

static double inverse_sqrt(const struct mf_schedule *schedule, int64_t step) {
    const double timescale = schedule->setting[MF_TIMESCALE];
    return 1.0 / sqrt(((double)step + (timescale - (double)schedule->warmup_steps)) / timescale);
}

static double stable_decay(const struct mf_schedule *schedule, int64_t step) {
    const double *setting = schedule->setting, least = setting[MF_MIN_LR_RATIO];
    const double since = (double)(step - schedule->warmup_steps) - setting[MF_NUM_STABLE_STEPS];
    const double decay = setting[MF_NUM_DECAY_STEPS];
    if (since < 0)
        return 1;
    return since < decay
               ? cosine(pi * setting[MF_NUM_CYCLES] * 2.0 * (since / (decay > 1 ? decay : 1)), least)
               : least;
}

static double warm_up(const struct mf_schedule *schedule, int64_t step) {
    const int64_t warmup = schedule->warmup_steps;
    const double factor = (double)step / (double)(warmup > 1 ? warmup : 1);
    const double least =
        schedule->kind == MF_SCHEDULE_WARMUP_STABLE_DECAY ? schedule->setting[MF_MIN_LR_RATIO] : 0;
    return factor * (1 - least) + least;
}

double mf_schedule_rate(const struct mf_schedule *schedule, int64_t step) {
    const double rate = schedule->learning_rate, *setting = schedule->setting;
    const int64_t warmup = schedule->warmup_steps, total = schedule->total_steps;
    if (schedule->kind == MF_SCHEDULE_CONSTANT)
        return rate;
    if (step < warmup)
        return rate * warm_up(schedule, step);
    const double span = (double)(total - warmup > 1 ? total - warmup : 1);
    const double progress = (double)(step - warmup) / span;
    switch (schedule->kind) {
    case MF_SCHEDULE_COSINE:
        return rate * cosine(pi * setting[MF_NUM_CYCLES] * 2.0 * progress, 0);
    case MF_SCHEDULE_COSINE_WITH_MIN_LR:
        return rate * cosine(pi * setting[MF_NUM_CYCLES] * 2.0 * progress, setting[MF_MIN_LR_RATE]);
    case MF_SCHEDULE_COSINE_WITH_RESTARTS:
        return rate * restarts(schedule, progress);
    case MF_SCHEDULE_LINEAR:
        return rate * (step < total ? (double)(total - step) / span : 0);
    case MF_SCHEDULE_POLYNOMIAL:
        if (step > total)
            return setting[MF_LR_END];
        return (rate - setting[MF_LR_END]) * pow(1.0 - progress, setting[MF_POWER]) + setting[MF_LR_END];
    case MF_SCHEDULE_INVERSE_SQRT:
        return rate * inverse_sqrt(schedule, step);
    case MF_SCHEDULE_WARMUP_STABLE_DECAY:
        return rate * stable_decay(schedule, step);
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
