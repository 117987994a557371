#include "providers/gguf_rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* llama.cpp's own, which no file can change for these families. */
static const double beta_fast = 32, beta_slow = 1;

static const char llama3_tensor[] = "rope_freqs.weight";
static const char long_tensor[] = "rope_factors_long.weight", short_tensor[] = "rope_factors_short.weight";

bool mf_gguf_is_factors(const char *name) {
    return !strcmp(name, llama3_tensor) || !strcmp(name, long_tensor) || !strcmp(name, short_tensor);
}

double mf_gguf_shortest(double value) {
    for (int digits = 1; digits < 9; digits++) {
        char text[40];
        snprintf(text, sizeof text, "%.*g", digits, value);
        if ((float)strtod(text, NULL) == (float)value)
            return strtod(text, NULL);
    }
    return value;
}

double mf_gguf_rotary_part(int64_t columns, int64_t head_dim) {
    double part = (double)columns / (double)head_dim;
    while ((int64_t)((double)head_dim * part) < columns)
        part = nextafter(part, 2);
    return part;
}

/* What yarn multiplies cosines and sines by unless it is told otherwise (Peng et al. 2023). */
static double yarn_attention(double factor) {
    return factor <= 1 ? 1 : 0.1 * log(factor) + 1;
}

/* ---- writing ---- */

static const char *const kind_names[] = {
    [MF_ROPE_DEFAULT] = "none", [MF_ROPE_LINEAR] = "linear", [MF_ROPE_LLAMA3] = NULL, /* the tensor says it */
    [MF_ROPE_YARN] = "yarn",    [MF_ROPE_LONG] = "longrope", [MF_ROPE_DYNAMIC] = NULL /* never written */};

const char *mf_gguf_rope_obstacle(const struct mf_gguf_family *family, const struct mf_architecture *a) {
    static const char *const obstacles[] = {[MF_ROPE_DEFAULT] = NULL,
                                            [MF_ROPE_LINEAR] = "a linear RoPE (rope_parameters)",
                                            [MF_ROPE_LLAMA3] = "a llama3 RoPE (rope_parameters)",
                                            [MF_ROPE_YARN] = "a yarn RoPE (rope_parameters)",
                                            [MF_ROPE_LONG] = "a longrope RoPE (rope_parameters)",
                                            [MF_ROPE_DYNAMIC] = "a dynamic RoPE (rope_parameters)"};
    const struct mf_rope *rope = &a->rope;
    if (rope->kind != MF_ROPE_DEFAULT && !(family->ropes >> rope->kind & 1))
        return obstacles[rope->kind];
    if (rope->kind == MF_ROPE_YARN && (rope->beta_fast != beta_fast || rope->beta_slow != beta_slow))
        return "a yarn RoPE with beta_fast or beta_slow";
    if (rope->kind == MF_ROPE_YARN && !rope->truncate)
        return "a yarn RoPE with truncate false";
    if (rope->columns != a->head_dim && !family->partial_rotary)
        return "a RoPE with partial_rotary_factor";
    if (rope->columns / 2 > MF_ROPE_LONG_PAIRS)
        return "a head of more than 512 columns";
    if (family->local_theta && a->window_has_rope && a->window_rope.kind != MF_ROPE_DEFAULT)
        return "a scaled RoPE of windowed layers";
    return NULL;
}

int32_t mf_gguf_context(const struct mf_gguf_family *family, const struct mf_architecture *a) {
    int32_t positions = a->max_positions;
    for (int32_t i = 0; i < a->layers && family->windows == MF_GGUF_WINDOWS_NONE; i++)
        if (a->windowed[i] && a->window < positions)
            positions = a->window;
    return positions;
}

static void put_number(struct mf_gguf_writer *writer, const struct mf_gguf_family *family, const char *name,
                       double value) {
    char key[80];
    snprintf(key, sizeof key, "%s.rope.%s", family->name, name);
    mf_gguf_put_number(writer, key, (float)value);
}

static void put_integer(struct mf_gguf_writer *writer, const struct mf_gguf_family *family, const char *name,
                        int32_t value) {
    char key[80];
    snprintf(key, sizeof key, "%s.rope.%s", family->name, name);
    mf_gguf_put_integer(writer, key, (uint32_t)value);
}

void mf_gguf_put_rope(const struct mf_gguf_family *family, const struct mf_architecture *a,
                      struct mf_gguf_writer *writer) {
    const struct mf_rope *rope = &a->rope;
    char key[80];
    put_number(writer, family, "freq_base", rope->theta);
    if (family->local_theta)
        put_number(writer, family, "freq_base_swa", a->window_rope.theta);
    if (rope->kind != MF_ROPE_DEFAULT && kind_names[rope->kind]) {
        snprintf(key, sizeof key, "%s.rope.scaling.type", family->name);
        mf_gguf_put_string(writer, key, kind_names[rope->kind]);
    }
    if (rope->kind == MF_ROPE_LINEAR || rope->kind == MF_ROPE_YARN)
        put_number(writer, family, "scaling.factor", rope->factor);
    if (rope->kind == MF_ROPE_YARN || rope->kind == MF_ROPE_LONG)
        put_integer(writer, family, "scaling.original_context_length", rope->original_positions);
    if (rope->kind == MF_ROPE_YARN && rope->attention_factor != yarn_attention(rope->factor))
        put_number(writer, family, "scaling.attn_factor",
                   rope->attention_factor / yarn_attention(rope->factor));
    if (rope->kind == MF_ROPE_LONG)
        put_number(writer, family, "scaling.attn_factor", rope->attention_factor);
}

/* What llama3 divides the frequency of pair i by. */
static double llama3_divisor(const struct mf_rope *rope, int64_t i) {
    const double wavelength = 2 * M_PI * pow(rope->theta, (double)(2 * i) / rope->columns);
    const double turns = rope->original_positions / wavelength;
    const double low = rope->low_frequency_factor, high = rope->high_frequency_factor;
    if (turns > high)
        return 1;
    if (turns < low)
        return rope->factor;
    const double smooth = (turns - low) / (high - low);
    return 1 / ((1 - smooth) / rope->factor + smooth);
}

size_t mf_gguf_factors_of(const struct mf_rope *rope,
                          struct mf_gguf_factors factors[MF_GGUF_FACTOR_TENSORS]) {
    const int64_t pairs = rope->columns / 2;
    if (rope->kind == MF_ROPE_LLAMA3) {
        factors[0].name = llama3_tensor;
        factors[0].count = pairs;
        for (int64_t i = 0; i < pairs; i++)
            factors[0].value[i] = (float)llama3_divisor(rope, i);
        return 1;
    }
    if (rope->kind != MF_ROPE_LONG)
        return 0;
    factors[0].name = long_tensor;
    factors[1].name = short_tensor;
    factors[0].count = factors[1].count = pairs;
    memcpy(factors[0].value, rope->long_divisor, (size_t)pairs * sizeof(float));
    memcpy(factors[1].value, rope->divisor, (size_t)pairs * sizeof(float));
    return 2;
}

/* ---- reading ---- */

/* What one file says, and where its keys begin. */
struct reading {
    const struct mf_gguf *file;
    const struct mf_gguf_family *family;
    int64_t columns, positions;
    double theta;
};

static const char *key_of(const struct reading *reading, const char *name, char key[80]) {
    snprintf(key, 80, "%s.rope.%s", reading->family->name, name);
    return key;
}

static double number(const struct reading *reading, const char *name, double otherwise) {
    char key[80];
    mf_gguf_number(reading->file, key_of(reading, name, key), &otherwise);
    return otherwise;
}

static enum mf_status read_factors(const struct reading *reading, const char *name,
                                   float value[MF_ROPE_LONG_PAIRS], struct mf_error *error) {
    const struct mf_gguf_tensor *tensor = mf_gguf_find(reading->file, name);
    const int64_t pairs = reading->columns / 2;
    bool good = tensor && tensor->elements == pairs && pairs <= MF_ROPE_LONG_PAIRS &&
                mf_gguf_read(tensor, 0, pairs, value);
    for (int64_t i = 0; good && i < pairs; i++)
        good = isfinite(value[i]) && value[i] > 0;
    return good ? MF_OK
                : mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                               "tensor %s: expected %lld numbers above 0, one a pair of columns", name,
                               (long long)pairs);
}

/* The settings of llama3 from its divisors f: 1 / f goes from 1 / factor to 1 in a straight line of the turns
 * a pair makes over the original positions. Any two points give the line; low_freq_factor is 1 in every such
 * model, the rest follows. */
static enum mf_status read_llama3(const struct reading *reading, json_t *scaling, struct mf_error *error) {
    struct mf_rope rope = {.kind = MF_ROPE_LLAMA3,
                           .columns = (int32_t)reading->columns,
                           .theta = reading->theta,
                           .low_frequency_factor = 1};
    float value[MF_ROPE_LONG_PAIRS] = {0};
    double first_x = 0, first_y = 0, last_x = 0, last_y = 0;
    int points = 0;
    enum mf_status status = read_factors(reading, llama3_tensor, value, error);
    if (status != MF_OK)
        return status;
    const int64_t pairs = reading->columns / 2;
    rope.factor = mf_gguf_shortest((double)value[pairs - 1]);
    for (int64_t i = 0; i < pairs && rope.factor > 1; i++) {
        if (value[i] <= 1 || (double)value[i] >= rope.factor * (1 - 1e-6))
            continue;
        last_x = 1 / (2 * M_PI * pow(rope.theta, (double)(2 * i) / rope.columns));
        last_y = (1 / (double)value[i] - 1 / rope.factor) / (1 - 1 / rope.factor);
        if (!points++) {
            first_x = last_x;
            first_y = last_y;
        }
    }
    /* y = (original x - low) / (high - low), so the line's foot is at low / original. One point alone: high
     * is 4. */
    const double slope = points > 1 ? (first_y - last_y) / (first_x - last_x) : 0;
    const double foot = slope > 0 ? last_x - last_y / slope : points == 1 ? last_x / (1 + 3 * last_y) : 0;
    if (foot > 0) {
        rope.original_positions = (int32_t)fmin(round(1 / foot), 1e9);
        rope.high_frequency_factor =
            points > 1 ? round((1 + rope.original_positions / slope) * 1e4) / 1e4 : 4;
    }
    for (int64_t i = 0; i < pairs; i++)
        if (!(foot > 0) || fabs(llama3_divisor(&rope, i) / (double)value[i] - 1) > 1e-5)
            return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                                "tensor %s: these are not the factors of a llama3 RoPE", llama3_tensor);
    json_object_set_new(scaling, "rope_type", json_string("llama3"));
    json_object_set_new(scaling, "factor", json_real(rope.factor));
    json_object_set_new(scaling, "low_freq_factor", json_real(1));
    json_object_set_new(scaling, "high_freq_factor", json_real(rope.high_frequency_factor));
    json_object_set_new(scaling, "original_max_position_embeddings", json_integer(rope.original_positions));
    return MF_OK;
}

static json_t *list_of(const float *value, int64_t count) {
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++)
        json_array_append_new(list, json_real(mf_gguf_shortest((double)value[i])));
    return list;
}

static int64_t original_positions(const struct reading *reading) {
    int64_t original = reading->positions;
    char key[80];
    mf_gguf_integer(reading->file, key_of(reading, "scaling.original_context_length", key), &original);
    return original;
}

static enum mf_status read_long(const struct reading *reading, json_t *config, json_t *scaling,
                                struct mf_error *error) {
    float value[MF_ROPE_LONG_PAIRS] = {0};
    enum mf_status status = read_factors(reading, long_tensor, value, error);
    if (status != MF_OK)
        return status;
    json_object_set_new(scaling, "long_factor", list_of(value, reading->columns / 2));
    if ((status = read_factors(reading, short_tensor, value, error)))
        return status;
    json_object_set_new(scaling, "short_factor", list_of(value, reading->columns / 2));
    json_object_set_new(scaling, "rope_type", json_string("longrope"));
    json_object_set_new(scaling, "attention_factor",
                        json_real(mf_gguf_shortest(number(reading, "scaling.attn_factor", 1))));
    json_object_set_new(config, "original_max_position_embeddings",
                        json_integer(original_positions(reading)));
    return MF_OK;
}

static enum mf_status read_named(const struct reading *reading, struct mf_gguf_text type, json_t *scaling,
                                 struct mf_error *error) {
    const double factor = mf_gguf_shortest(number(reading, "scaling.factor", 1));
    char key[80];
    if (type.length == 6 && !memcmp(type.data, "linear", 6)) {
        json_object_set_new(scaling, "rope_type", json_string("linear"));
        json_object_set_new(scaling, "factor", json_real(factor));
        return MF_OK;
    }
    if (type.length != 4 || memcmp(type.data, "yarn", 4) != 0)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: '%.*s' is not supported",
                            key_of(reading, "scaling.type", key), (int)(type.length < 64 ? type.length : 64),
                            type.data);
    const double asked = number(reading, "scaling.attn_factor", 1);
    json_object_set_new(scaling, "rope_type", json_string("yarn"));
    json_object_set_new(scaling, "factor", json_real(factor));
    json_object_set_new(scaling, "original_max_position_embeddings",
                        json_integer(original_positions(reading)));
    if (asked != 1)
        json_object_set_new(scaling, "attention_factor",
                            json_real(mf_gguf_shortest(asked * yarn_attention(factor))));
    return MF_OK;
}

enum mf_status mf_gguf_read_rope(const struct mf_gguf *file, const struct mf_gguf_family *family,
                                 int64_t head_dim, int64_t positions, json_t *config,
                                 struct mf_error *error) {
    struct reading reading = {.file = file, .family = family, .columns = head_dim, .positions = positions};
    struct mf_gguf_text type = {"none", 4};
    char key[80];
    mf_gguf_integer(file, key_of(&reading, "dimension_count", key), &reading.columns);
    if (reading.columns < 2 || reading.columns % 2 || reading.columns > head_dim ||
        (reading.columns != head_dim && !family->partial_rotary))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: %lld of %lld columns are not supported", key,
                            (long long)reading.columns, (long long)head_dim);
    reading.theta = mf_gguf_shortest(number(&reading, "freq_base", 10000));
    if (!(reading.theta >= 1 && isfinite(reading.theta)))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: %g is no number from 1 on",
                            key_of(&reading, "freq_base", key), reading.theta);
    json_object_set_new(config, "rope_theta", json_real(reading.theta));
    if (family->partial_rotary) /* said even where it is 1, which is not every family's default */
        json_object_set_new(config, "partial_rotary_factor",
                            json_real(mf_gguf_rotary_part(reading.columns, head_dim)));
    if (family->local_theta)
        json_object_set_new(config, "rope_local_base_freq",
                            json_real(mf_gguf_shortest(number(&reading, "freq_base_swa", 10000))));
    mf_gguf_string(file, key_of(&reading, "scaling.type", key), &type);
    const bool named = type.length != 4 || memcmp(type.data, "none", 4) != 0;
    const bool factors = mf_gguf_find(file, long_tensor) != NULL,
               bands = mf_gguf_find(file, llama3_tensor) != NULL;
    json_t *scaling = json_object();
    enum mf_status status = factors ? read_long(&reading, config, scaling, error)
                            : bands ? read_llama3(&reading, scaling, error)
                            : named ? read_named(&reading, type, scaling, error)
                                    : MF_OK;
    if (status == MF_OK && json_object_size(scaling))
        json_object_set(config, "rope_scaling", scaling);
    json_decref(scaling);
    return status;
}
