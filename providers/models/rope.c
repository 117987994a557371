#include "providers/models/rope.h"

#include "common/json.h"
#include "providers/models/config_fields.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const common_fields[] = {"rope_theta", "rope_type", "type", "partial_rotary_factor", NULL};
static const char *const factor_field[] = {"factor", NULL};
static const char *const llama3_fields[] = {"factor", "high_freq_factor", "low_freq_factor",
                                            "original_max_position_embeddings", NULL};
static const char *const yarn_fields[] = {"attention_factor",
                                          "beta_fast",
                                          "beta_slow",
                                          "factor",
                                          "mscale",
                                          "mscale_all_dim",
                                          "original_max_position_embeddings",
                                          "truncate",
                                          NULL};

static const char *const long_fields[] = {
    "attention_factor", "factor", "long_factor", "original_max_position_embeddings", "short_factor", NULL};

/* The kinds by name and the fields of each beside the common ones. */
static const struct {
    const char *name;
    enum mf_rope_kind kind;
    const char *const *fields;
} kinds[] = {
    {"default", MF_ROPE_DEFAULT, NULL},       {"dynamic", MF_ROPE_DYNAMIC, factor_field},
    {"linear", MF_ROPE_LINEAR, factor_field}, {"llama3", MF_ROPE_LLAMA3, llama3_fields},
    {"yarn", MF_ROPE_YARN, yarn_fields},      {"longrope", MF_ROPE_LONG, long_fields},
    {"su", MF_ROPE_LONG, long_fields},
};

enum { KINDS = sizeof kinds / sizeof *kinds };

static enum mf_status number(const json_t *dictionary, const char *where, const char *key, double minimum,
                             double *value, struct mf_error *error) {
    return mf_config_status(mf_json_number(dictionary, where, key, minimum, 1e12, value, error), error);
}

static enum mf_status optional_number(const json_t *dictionary, const char *where, const char *key,
                                      double minimum, double *value, struct mf_error *error) {
    return mf_config_status(mf_json_optional_number(dictionary, where, key, minimum, 1e12, value, error),
                            error);
}

/* Index of the kind in `kinds`. */
static enum mf_status read_kind(const json_t *dictionary, const char *where, int *index,
                                struct mf_error *error) {
    const char *name = "default", *old_name = NULL;
    enum mf_status status =
        mf_config_status(mf_json_optional_string(dictionary, where, "type", 64, &old_name, error), error);
    if (status)
        return status;
    if (old_name)
        name = old_name;
    if ((status = mf_config_status(mf_json_optional_string(dictionary, where, "rope_type", 64, &name, error),
                                   error)))
        return status;
    if (old_name && strcmp(name, old_name) != 0)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: rope_type '%s' and type '%s' contradict each other", where, name, old_name);
    for (*index = 0; *index < KINDS; ++*index)
        if (!strcmp(kinds[*index].name, name))
            return MF_OK;
    return mf_error_set(
        error, MF_ERROR_MODEL_CONFIG,
        "%s: rope_type: '%s' is not supported (supported: default, dynamic, linear, llama3, longrope, yarn)",
        where, name);
}

static enum mf_status check_fields(const json_t *dictionary, const char *where, const char *const *fields,
                                   struct mf_error *error) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)dictionary, name, value) {
        if (!json_is_null(value) && !mf_config_listed(name, common_fields) && !mf_config_listed(name, fields))
            return mf_config_refuse(where, name, value, "does not belong to this rope_type or is not known",
                                    error);
    }
    return MF_OK;
}

static enum mf_status read_llama3(const json_t *dictionary, const char *where, struct mf_rope *rope,
                                  struct mf_error *error) {
    enum mf_status status;
    if ((status = number(dictionary, where, "low_freq_factor", 0, &rope->low_frequency_factor, error)) ||
        (status = number(dictionary, where, "high_freq_factor", 0, &rope->high_frequency_factor, error)))
        return status;
    if (rope->high_frequency_factor <= rope->low_frequency_factor)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: high_freq_factor is not above low_freq_factor",
                            where);
    return MF_OK;
}

static double yarn_scale(double factor, double multiplier) {
    return factor <= 1 ? 1 : 0.1 * multiplier * log(factor) + 1;
}

/* Peng et al. 2023; 0 counts as absent for all but truncate, as in Transformers. */
static enum mf_status read_yarn(const json_t *dictionary, const char *where, struct mf_rope *rope,
                                struct mf_error *error) {
    double scale = 0, scale_all = 0, given = 0;
    enum mf_status status;
    rope->truncate = true;
    if ((status = optional_number(dictionary, where, "beta_fast", 0, &rope->beta_fast, error)) ||
        (status = optional_number(dictionary, where, "beta_slow", 0, &rope->beta_slow, error)) ||
        (status = optional_number(dictionary, where, "mscale", 0, &scale, error)) ||
        (status = optional_number(dictionary, where, "mscale_all_dim", 0, &scale_all, error)) ||
        (status = optional_number(dictionary, where, "attention_factor", 1e-6, &given, error)) ||
        (status = mf_config_status(
             mf_json_optional_boolean(dictionary, where, "truncate", &rope->truncate, error), error)))
        return status;
    if (rope->beta_fast == 0)
        rope->beta_fast = 32;
    if (rope->beta_slow == 0)
        rope->beta_slow = 1;
    if (given > 0)
        rope->attention_factor = given;
    else if (scale > 0 && scale_all > 0)
        rope->attention_factor = yarn_scale(rope->factor, scale) / yarn_scale(rope->factor, scale_all);
    else
        rope->attention_factor = yarn_scale(rope->factor, 1);
    return MF_OK;
}

/* One number above 0 a pair. */
static enum mf_status read_divisors(const json_t *dictionary, const char *where, const char *key,
                                    int32_t pairs, float *divisor, struct mf_error *error) {
    json_t *list = NULL;
    enum mf_status status =
        mf_config_status(mf_json_array(dictionary, where, key, MF_ROPE_LONG_PAIRS, &list, error), error);
    if (status)
        return status;
    if (json_array_size(list) != (size_t)pairs)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: %s: expected %d numbers, found %zu", where,
                            key, pairs, json_array_size(list));
    for (int32_t i = 0; i < pairs; i++) {
        const json_t *item = json_array_get(list, (size_t)i);
        divisor[i] = (float)json_number_value(item);
        if (!(divisor[i] > 0))
            return mf_config_refuse(where, key, item, "is no number above 0", error);
    }
    return MF_OK;
}

/* Ding et al. 2024. */
static enum mf_status read_long(const json_t *dictionary, const char *where,
                                const struct mf_rope_defaults *defaults, struct mf_rope *rope,
                                struct mf_error *error) {
    double given = 0;
    enum mf_status status;
    rope->factor = (double)defaults->max_positions / rope->original_positions;
    if ((status = optional_number(dictionary, where, "factor", 1, &rope->factor, error)) ||
        (status = optional_number(dictionary, where, "attention_factor", 1e-6, &given, error)) ||
        (status =
             read_divisors(dictionary, where, "long_factor", rope->columns / 2, rope->long_divisor, error)) ||
        (status = read_divisors(dictionary, where, "short_factor", rope->columns / 2, rope->divisor, error)))
        return status;
    if (given > 0)
        rope->attention_factor = given;
    else if (rope->factor > 1 && rope->original_positions < 2)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: original_max_position_embeddings: %d gives no attention_factor; name one",
                            where, (int)rope->original_positions);
    else if (rope->factor > 1)
        rope->attention_factor = sqrt(1 + log(rope->factor) / log(rope->original_positions));
    return MF_OK;
}

static enum mf_status set_columns(const char *where, double part, const struct mf_rope_defaults *defaults,
                                  struct mf_rope *rope, struct mf_error *error) {
    if (part < 1 && !defaults->partial)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: partial_rotary_factor: %g is not supported for this model_type", where,
                            part);
    rope->columns = (int32_t)((double)defaults->head_dim * part);
    if (rope->columns < 2 || rope->columns % 2)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: partial_rotary_factor: %g of head_dim %d is no even number of columns",
                            where, part, defaults->head_dim);
    return MF_OK;
}

/* `dictionary` NULL: positions as they are. `part`: partial_rotary_factor found outside. */
static enum mf_status read_dictionary(const json_t *dictionary, const char *where, double part,
                                      const struct mf_rope_defaults *defaults, struct mf_rope *rope,
                                      struct mf_error *error) {
    enum mf_status status;
    int index = 0;
    rope->attention_factor = 1;
    if (dictionary) {
        if ((status = mf_config_status(
                 mf_json_optional_number(dictionary, where, "partial_rotary_factor", 1e-3, 1, &part, error),
                 error)) ||
            (status = read_kind(dictionary, where, &index, error)) ||
            (status = check_fields(dictionary, where, kinds[index].fields, error)))
            return status;
    }
    rope->kind = kinds[index].kind;
    if ((status = set_columns(where, part, defaults, rope, error)) || !kinds[index].fields)
        return status;
    if (rope->kind != MF_ROPE_LONG && (status = number(dictionary, where, "factor", 1, &rope->factor, error)))
        return status;
    if (rope->kind == MF_ROPE_LINEAR)
        return MF_OK;
    if (rope->kind ==
        MF_ROPE_DYNAMIC) { /* the positions that the model was made for, whatever else is said */
        rope->original_positions = defaults->max_positions;
        return MF_OK;
    }
    rope->original_positions =
        defaults->original_positions ? defaults->original_positions : defaults->max_positions;
    if ((status = mf_config_optional_size(dictionary, where, "original_max_position_embeddings",
                                          MF_CONFIG_MAX_POSITIONS, &rope->original_positions, error)))
        return status;
    if (rope->kind == MF_ROPE_YARN && rope->theta <= 1)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: rope_theta: %g is too small for yarn, which divides by "
                            "its logarithm",
                            where, rope->theta);
    if (rope->kind == MF_ROPE_LONG)
        return read_long(dictionary, where, defaults, rope, error);
    return rope->kind == MF_ROPE_LLAMA3 ? read_llama3(dictionary, where, rope, error)
                                        : read_yarn(dictionary, where, rope, error);
}

enum mf_status mf_rope_read(const json_t *config, const char *where, const struct mf_rope_defaults *defaults,
                            struct mf_rope *rope, struct mf_error *error) {
    json_t *parameters = NULL, *scaling = NULL;
    double outer = 0, inner = 0, part = defaults->part;
    enum mf_status status;
    char place[512];
    if ((status = mf_config_status(
             mf_json_optional_object(config, where, "rope_parameters", &parameters, error), error)) ||
        (status = mf_config_status(mf_json_optional_object(config, where, "rope_scaling", &scaling, error),
                                   error)) ||
        (status = mf_config_status(
             mf_json_optional_number(config, where, "partial_rotary_factor", 1e-3, 1, &part, error),
             error)) ||
        (status = optional_number(config, where, "rope_theta", 1, &outer, error)))
        return status;
    if (parameters && scaling && !json_equal(parameters, scaling))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: rope_parameters and rope_scaling contradict each other", where);
    const char *name = parameters ? "rope_parameters" : "rope_scaling";
    const json_t *dictionary = parameters ? parameters : scaling;
    snprintf(place, sizeof place, "%s: %s", where, name);
    if (dictionary && (status = optional_number(dictionary, place, "rope_theta", 1, &inner, error)))
        return status;
    if (outer > 0 && inner > 0 && outer != inner)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: rope_theta (%g) contradicts %s.rope_theta (%g)", where, outer, name, inner);
    rope->theta = inner > 0 ? inner : outer > 0 ? outer : defaults->theta;
    return read_dictionary(dictionary, dictionary ? place : where, part, defaults, rope, error);
}

/* One of the two dictionaries of v5's `rope_parameters`. */
static enum mf_status read_part(const json_t *parameters, const char *where, const char *key, double theta,
                                const struct mf_rope_defaults *defaults, struct mf_rope *rope,
                                struct mf_error *error) {
    json_t *dictionary = NULL;
    char place[512];
    enum mf_status status =
        mf_config_status(mf_json_optional_object(parameters, where, key, &dictionary, error), error);
    snprintf(place, sizeof place, "%s: %s", where, key);
    rope->theta = theta;
    if (status == MF_OK && dictionary)
        status = optional_number(dictionary, place, "rope_theta", 1, &rope->theta, error);
    return status ? status : read_dictionary(dictionary, place, defaults->part, defaults, rope, error);
}

enum mf_status mf_rope_read_both(const json_t *config, const char *where,
                                 const struct mf_rope_defaults *defaults, double local_theta,
                                 struct mf_rope *rope, struct mf_rope *windowed, struct mf_error *error) {
    static const char *const parts[] = {"full_attention", "sliding_attention", NULL};
    const json_t *parameters = json_object_get(config, "rope_parameters");
    enum mf_status status;
    char place[512];
    const char *name;
    json_t *value;
    if (!json_is_object(parameters)) {
        if ((status = optional_number(config, where, "rope_local_base_freq", 1, &local_theta, error)) ||
            (status = mf_rope_read(config, where, defaults, rope, error)))
            return status;
        windowed->theta = local_theta;
        return read_dictionary(NULL, where, defaults->part, defaults, windowed, error);
    }
    snprintf(place, sizeof place, "%s: rope_parameters", where);
    json_object_foreach((json_t *)parameters, name, value) {
        if (!mf_config_listed(name, parts))
            return mf_config_refuse(place, name, value,
                                    "is not expected; there are full_attention and sliding_attention", error);
    }
    static const char *const old[] = {"rope_theta", "rope_local_base_freq", "rope_scaling"};
    for (size_t i = 0; i < sizeof old / sizeof *old; i++)
        if (json_object_get(config, old[i]) && !json_is_null(json_object_get(config, old[i])))
            return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                                "%s: rope_parameters and %s contradict each other", where, old[i]);
    if ((status = read_part(parameters, place, parts[0], defaults->theta, defaults, rope, error)))
        return status;
    return read_part(parameters, place, parts[1], local_theta, defaults, windowed, error);
}

/* ---- frequencies ---- */

/* The column pair that turns `rotations` times over the original positions. */
static double yarn_pair(const struct mf_rope *rope, double rotations) {
    return (double)rope->columns * log(rope->original_positions / (rotations * 2 * M_PI)) /
           (2 * log(rope->theta));
}

/* How far pair i is interpolated: 0 not at all, 1 wholly. */
static float yarn_ramp(const struct mf_rope *rope, int32_t i) {
    double low = yarn_pair(rope, rope->beta_fast), high = yarn_pair(rope, rope->beta_slow);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, rope->columns - 1);
    if (low == high)
        high += 0.001;
    float ramp = ((float)i - (float)low) / (float)(high - low);
    return fminf(fmaxf(ramp, 0.0f), 1.0f);
}

static float llama3_frequency(const struct mf_rope *rope, float plain) {
    float factor = (float)rope->factor, low = (float)rope->low_frequency_factor;
    float high = (float)rope->high_frequency_factor, original = (float)rope->original_positions;
    float wavelength = 2.0f * (float)M_PI / plain;
    float smooth = (original / wavelength - low) / (high - low);
    if (wavelength > original / low)
        return plain / factor;
    return wavelength >= original / high ? (1.0f - smooth) * plain / factor + smooth * plain : plain;
}

/* Emozilla's NTK scaling: a row that is too long raises theta. */
static float dynamic_theta(const struct mf_rope *rope, int32_t longest) {
    const float theta = (float)rope->theta, factor = (float)rope->factor;
    if (longest <= rope->original_positions)
        return theta;
    const float stretch = factor * (float)longest / (float)rope->original_positions - (factor - 1);
    return theta * powf(stretch, (float)((double)rope->columns / (rope->columns - 2)));
}

void mf_rope_frequencies(const struct mf_rope *rope, int32_t longest, float *frequency) {
    const float *divisor = longest > rope->original_positions ? rope->long_divisor : rope->divisor;
    const float factor = (float)rope->factor;
    const float theta = rope->kind == MF_ROPE_DYNAMIC ? dynamic_theta(rope, longest) : (float)rope->theta;
    for (int32_t i = 0; i < rope->columns / 2; i++) {
        float power = powf(theta, (float)(2 * i) / (float)rope->columns);
        float plain = 1.0f / power;
        if (rope->kind == MF_ROPE_LINEAR) {
            plain /= factor;
        } else if (rope->kind == MF_ROPE_LLAMA3) {
            plain = llama3_frequency(rope, plain);
        } else if (rope->kind == MF_ROPE_YARN) {
            float kept = 1.0f - yarn_ramp(rope, i);
            plain = 1.0f / (factor * power) * (1.0f - kept) + plain * kept;
        } else if (rope->kind == MF_ROPE_LONG) {
            plain = 1.0f / (divisor[i] * power);
        }
        frequency[i] = plain;
    }
}
