#include "providers/models/architecture.h"

#include "common/files.h"
#include "common/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    MAX_WIDTH = 1 << 20,
    MAX_LAYERS = 4096,
    MAX_POSITIONS = 1 << 28,
    MAX_VOCABULARY = 1 << 24,
    CONFIG_FILE_BYTES = 4 << 20
};

/* What a model type fixes. Another decoder-only model is another row, with new columns where it differs. */
struct row {
    const char *model_type;
    const char *class_name; /* the entry of `architectures` that we build */
    enum mf_model_form form;
    const char *hidden_act;
    enum mf_activation activation;
};

static const struct row rows[] = {
    {"llama", "LlamaForCausalLM", MF_FORM_DECODER, "silu", MF_ACTIVATION_SILU},
};

enum { ROWS = sizeof rows / sizeof *rows };

/* Fields of config.json that change nothing here: names and versions, generation defaults, outputs that
 * nobody asks for, initialisation of other frameworks. */
static const char *const ignored_fields[] = {
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "bad_words_ids",
    "begin_suppress_tokens",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "max_sequence_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
};

/* Fields that the reading below takes care of. */
static const char *const read_fields[] = {
    "architectures",
    "attention_bias",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "mlp_bias",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "torch_dtype",
    "vocab_size",
};

/* Fields that are known and must have the value that changes nothing. */
static const struct {
    const char *name;
    double value; /* booleans: 0 or 1 */
} neutral_fields[] = {
    {"add_cross_attention", 0}, {"attention_dropout", 0},     {"chunk_size_feed_forward", 0},
    {"is_encoder_decoder", 0},  {"partial_rotary_factor", 1}, {"rope_interleaved", 0},
    {"use_sliding_window", 0},
};

static bool listed(const char *name, const char *const *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i], name))
            return true;
    return false;
}

static bool is_neutral(const json_t *value, double neutral) {
    if (json_is_boolean(value))
        return (double)json_is_true(value) == neutral;
    return json_is_number(value) && json_number_value(value) == neutral;
}

static enum mf_status refuse(const char *where, const char *field, const json_t *value, const char *why,
                             struct mf_error *error) {
    char excerpt[64];
    return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: %s: %s %s", where, field,
                        mf_json_excerpt(value, excerpt, sizeof excerpt), why);
}

/* Every field is read, known to change nothing, or refused by name. null counts as absent. */
static enum mf_status check_fields(const json_t *config, const char *where, struct mf_error *error) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)config, name, value) {
        if (json_is_null(value) || listed(name, ignored_fields, sizeof ignored_fields / sizeof(char *)) ||
            listed(name, read_fields, sizeof read_fields / sizeof(char *)))
            continue;
        if (!strcmp(name, "quantization_config"))
            return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                                "%s: quantization_config: quantised checkpoints are not supported; use the "
                                "original 16-bit model",
                                where);
        if (!strcmp(name, "pruned_heads") && json_is_object(value) && !json_object_size(value))
            continue;
        bool known = false;
        for (size_t i = 0; i < sizeof neutral_fields / sizeof *neutral_fields; i++) {
            if (strcmp(neutral_fields[i].name, name) != 0)
                continue;
            known = true;
            if (!is_neutral(value, neutral_fields[i].value))
                return refuse(where, name, value, "is not supported", error);
        }
        if (!known)
            return refuse(
                where, name, value,
                "is a field that this version does not know; it might change what the model computes", error);
    }
    return MF_OK;
}

/* ---- typed reading: whatever is wrong with a field is model_config ---- */

static enum mf_status as_config(enum mf_status status, struct mf_error *error) {
    if (status && error && status != MF_ERROR_OUT_OF_MEMORY)
        error->status = MF_ERROR_MODEL_CONFIG;
    return status && status != MF_ERROR_OUT_OF_MEMORY ? MF_ERROR_MODEL_CONFIG : status;
}

static enum mf_status read_size(const json_t *config, const char *where, const char *key, int64_t maximum,
                                int32_t *value, struct mf_error *error) {
    int64_t found;
    enum mf_status status = as_config(mf_json_integer(config, where, key, 1, maximum, &found, error), error);
    if (status == MF_OK)
        *value = (int32_t)found;
    return status;
}

static enum mf_status read_optional_size(const json_t *config, const char *where, const char *key,
                                         int64_t maximum, int32_t *value, struct mf_error *error) {
    int64_t found = *value;
    enum mf_status status =
        as_config(mf_json_optional_integer(config, where, key, 1, maximum, &found, error), error);
    if (status == MF_OK)
        *value = (int32_t)found;
    return status;
}

static enum mf_status find_row(const json_t *config, const char *where, const struct row **out,
                               struct mf_error *error) {
    const char *type = NULL;
    enum mf_status status = as_config(mf_json_string(config, where, "model_type", 64, &type, error), error);
    if (status)
        return status;
    for (size_t i = 0; i < ROWS; i++) {
        if (strcmp(rows[i].model_type, type) != 0)
            continue;
        const json_t *classes = json_object_get(config, "architectures");
        const char *class_name = json_string_value(json_array_get(classes, 0));
        if (classes && !json_is_null(classes) &&
            (json_array_size(classes) != 1 || !class_name || strcmp(class_name, rows[i].class_name) != 0))
            return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                                "%s: architectures: expected [\"%s\"] for model_type %s; other heads are not "
                                "supported",
                                where, rows[i].class_name, type);
        *out = &rows[i];
        return MF_OK;
    }
    char known[256] = "";
    for (size_t i = 0; i < ROWS; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "",
                 rows[i].model_type);
    return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: model_type: '%s' is not supported (supported: %s)",
                        where, type, known);
}

static enum mf_status read_sizes(const json_t *config, const char *where, struct mf_architecture *out,
                                 struct mf_error *error) {
    enum mf_status status;
    if ((status = read_size(config, where, "vocab_size", MAX_VOCABULARY, &out->vocabulary, error)) ||
        (status = read_size(config, where, "hidden_size", MAX_WIDTH, &out->hidden, error)) ||
        (status = read_size(config, where, "intermediate_size", MAX_WIDTH, &out->intermediate, error)) ||
        (status = read_size(config, where, "num_hidden_layers", MAX_LAYERS, &out->layers, error)) ||
        (status = read_size(config, where, "num_attention_heads", MAX_WIDTH, &out->heads, error)))
        return status;
    out->key_value_heads = out->heads;
    out->max_positions = 2048; /* LlamaConfig's default */
    if ((status = read_optional_size(config, where, "num_key_value_heads", MAX_WIDTH, &out->key_value_heads,
                                     error)) ||
        (status = read_optional_size(config, where, "max_position_embeddings", MAX_POSITIONS,
                                     &out->max_positions, error)) ||
        (status = read_optional_size(config, where, "head_dim", MAX_WIDTH, &out->head_dim, error)))
        return status;
    if (out->heads % out->key_value_heads)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: num_attention_heads (%d) is no multiple of num_key_value_heads (%d)", where,
                            out->heads, out->key_value_heads);
    if (!out->head_dim && out->hidden % out->heads)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: hidden_size (%d) is no multiple of num_attention_heads (%d) and head_dim is "
                            "not given",
                            where, out->hidden, out->heads);
    if (!out->head_dim)
        out->head_dim = out->hidden / out->heads;
    if (out->head_dim % 2)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: head_dim (%d) is odd", where, out->head_dim);
    if ((int64_t)out->heads * out->head_dim > MAX_WIDTH)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: num_attention_heads x head_dim is above %d",
                            where, MAX_WIDTH);
    return MF_OK;
}

/* ---- rotary positions: v5 `rope_parameters`, v4 `rope_theta` and `rope_scaling` ---- */

static enum mf_status rope_number(const json_t *dictionary, const char *where, const char *key,
                                  double minimum, double *value, struct mf_error *error) {
    return as_config(mf_json_number(dictionary, where, key, minimum, 1e12, value, error), error);
}

static enum mf_status check_rope_fields(const json_t *dictionary, const char *where, const char *kind,
                                        struct mf_error *error) {
    static const char *const common[] = {"rope_theta", "rope_type", "type"};
    static const char *const linear[] = {"factor"};
    static const char *const llama3[] = {"factor", "high_freq_factor", "low_freq_factor",
                                         "original_max_position_embeddings"};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)dictionary, name, value) {
        if (json_is_null(value) || listed(name, common, sizeof common / sizeof(char *)) ||
            (!strcmp(kind, "linear") && listed(name, linear, sizeof linear / sizeof(char *))) ||
            (!strcmp(kind, "llama3") && listed(name, llama3, sizeof llama3 / sizeof(char *))) ||
            (!strcmp(name, "partial_rotary_factor") && is_neutral(value, 1)))
            continue;
        return refuse(where, name, value, "does not belong to this rope_type or is not known", error);
    }
    return MF_OK;
}

static enum mf_status read_rope_kind(const json_t *dictionary, const char *where, struct mf_rope *rope,
                                     struct mf_error *error) {
    const char *kind = "default", *old_kind = NULL;
    enum mf_status status;
    if ((status = as_config(mf_json_optional_string(dictionary, where, "type", 64, &old_kind, error), error)))
        return status;
    if (old_kind)
        kind = old_kind;
    if ((status =
             as_config(mf_json_optional_string(dictionary, where, "rope_type", 64, &kind, error), error)))
        return status;
    if (old_kind && strcmp(kind, old_kind) != 0)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: rope_type '%s' and type '%s' contradict each other", where, kind, old_kind);
    if (strcmp(kind, "default") != 0 && strcmp(kind, "linear") != 0 && strcmp(kind, "llama3") != 0)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: rope_type: '%s' is not supported (supported: default, linear, llama3)",
                            where, kind);
    if ((status = check_rope_fields(dictionary, where, kind, error)))
        return status;
    if (!strcmp(kind, "default")) {
        rope->kind = MF_ROPE_DEFAULT;
        return MF_OK;
    }
    if (!strcmp(kind, "linear")) {
        rope->kind = MF_ROPE_LINEAR;
        return rope_number(dictionary, where, "factor", 1, &rope->factor, error);
    }
    rope->kind = MF_ROPE_LLAMA3;
    if ((status = rope_number(dictionary, where, "factor", 1, &rope->factor, error)) ||
        (status = rope_number(dictionary, where, "low_freq_factor", 0, &rope->low_frequency_factor, error)) ||
        (status =
             rope_number(dictionary, where, "high_freq_factor", 0, &rope->high_frequency_factor, error)) ||
        (status = read_size(dictionary, where, "original_max_position_embeddings", MAX_POSITIONS,
                            &rope->original_positions, error)))
        return status;
    if (rope->high_frequency_factor <= rope->low_frequency_factor)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: high_freq_factor is not above low_freq_factor",
                            where);
    return MF_OK;
}

static enum mf_status read_rope(const json_t *config, const char *where, struct mf_rope *rope,
                                struct mf_error *error) {
    json_t *parameters = NULL, *scaling = NULL;
    double outer = 0, inner = 0;
    enum mf_status status;
    char place[512];
    if ((status = as_config(mf_json_optional_object(config, where, "rope_parameters", &parameters, error),
                            error)) ||
        (status =
             as_config(mf_json_optional_object(config, where, "rope_scaling", &scaling, error), error)) ||
        (status =
             as_config(mf_json_optional_number(config, where, "rope_theta", 1, 1e12, &outer, error), error)))
        return status;
    if (parameters && scaling && !json_equal(parameters, scaling))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: rope_parameters and rope_scaling contradict each other", where);
    json_t *dictionary = parameters ? parameters : scaling;
    snprintf(place, sizeof place, "%s: %s", where, parameters ? "rope_parameters" : "rope_scaling");
    if (dictionary) {
        if ((status = as_config(
                 mf_json_optional_number(dictionary, place, "rope_theta", 1, 1e12, &inner, error), error)) ||
            (status = read_rope_kind(dictionary, place, rope, error)))
            return status;
    }
    if (outer > 0 && inner > 0 && outer != inner)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: rope_theta (%g) contradicts %s.rope_theta (%g)", where, outer,
                            parameters ? "rope_parameters" : "rope_scaling", inner);
    rope->theta = inner > 0 ? inner : outer > 0 ? outer : 10000;
    return MF_OK;
}

/* ---- end of text ---- */

static enum mf_status add_eos(const json_t *value, const char *where, struct mf_architecture *out,
                              struct mf_error *error) {
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || id >= out->vocabulary)
        return refuse(where, "eos_token_id", value, "is not a token of the vocabulary", error);
    for (int32_t i = 0; i < out->eos_count; i++)
        if (out->eos[i] == (int32_t)id)
            return MF_OK;
    if (out->eos_count == MF_ARCHITECTURE_MAX_EOS)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: eos_token_id: more than %d tokens", where,
                            MF_ARCHITECTURE_MAX_EOS);
    out->eos[out->eos_count++] = (int32_t)id;
    return MF_OK;
}

static enum mf_status read_eos(const json_t *config, const char *where, struct mf_architecture *out,
                               struct mf_error *error) {
    const json_t *value = json_object_get(config, "eos_token_id");
    if (!value || json_is_null(value))
        return MF_OK;
    if (!json_is_array(value))
        return add_eos(value, where, out, error);
    enum mf_status status = MF_OK;
    for (size_t i = 0; i < json_array_size(value) && status == MF_OK; i++)
        status = add_eos(json_array_get(value, i), where, out, error);
    return status;
}

static enum mf_status read_rest(const json_t *config, const char *where, const struct row *row,
                                struct mf_architecture *out, struct mf_error *error) {
    double epsilon = 1e-6;
    int64_t bos = -1;
    const char *act = row->hidden_act, *dtype = NULL, *old_dtype = NULL;
    enum mf_status status;
    out->initializer_range = 0.02;
    if ((status = mf_json_optional_number(config, where, "rms_norm_eps", 1e-12, 1, &epsilon, error)) ||
        (status = mf_json_optional_number(config, where, "initializer_range", 0, 10, &out->initializer_range,
                                          error)) ||
        (status =
             mf_json_optional_boolean(config, where, "tie_word_embeddings", &out->tied_embeddings, error)) ||
        (status = mf_json_optional_boolean(config, where, "attention_bias", &out->attention_bias, error)) ||
        (status = mf_json_optional_boolean(config, where, "mlp_bias", &out->mlp_bias, error)) ||
        (status =
             mf_json_optional_integer(config, where, "bos_token_id", 0, out->vocabulary - 1, &bos, error)) ||
        (status = mf_json_optional_string(config, where, "hidden_act", 64, &act, error)) ||
        (status = mf_json_optional_string(config, where, "dtype", 64, &dtype, error)) ||
        (status = mf_json_optional_string(config, where, "torch_dtype", 64, &old_dtype, error)))
        return as_config(status, error);
    if (strcmp(act, row->hidden_act) != 0)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: hidden_act: '%s' is not supported (%s is '%s')", where, act, row->model_type,
                            row->hidden_act);
    if (dtype && old_dtype && strcmp(dtype, old_dtype) != 0)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: dtype '%s' and torch_dtype '%s' contradict each other", where, dtype,
                            old_dtype);
    out->norm_epsilon = (float)epsilon;
    out->bos = (int32_t)bos;
    return read_eos(config, where, out, error);
}

enum mf_status mf_architecture_from_json(const json_t *config, const char *where, struct mf_architecture *out,
                                         struct mf_error *error) {
    const struct row *row = NULL;
    enum mf_status status;
    memset(out, 0, sizeof *out);
    if (!json_is_object(config))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: not a JSON object", where);
    status = find_row(config, where, &row, error);
    if (!row || (status = check_fields(config, where, error)))
        return status;
    out->model_type = row->model_type;
    out->form = row->form;
    out->activation = row->activation;
    if ((status = read_sizes(config, where, out, error)) ||
        (status = read_rope(config, where, &out->rope, error)))
        return status;
    return read_rest(config, where, row, out, error);
}

enum mf_status mf_architecture_read(const char *folder, struct mf_architecture *out, struct mf_error *error) {
    json_t *config = NULL;
    char *path = mf_path_join(folder, "config.json");
    char *generation = mf_path_join(folder, "generation_config.json");
    struct stat info;
    struct mf_error cause;
    enum mf_status status = MF_OK;
    if (!path || !generation)
        status = mf_error_errno(error, ENOMEM, "%s", folder);
    else if (stat(folder, &info) || !S_ISDIR(info.st_mode))
        status = mf_error_set(error, MF_ERROR_MODEL_NOT_FOUND, "%s: there is no such folder", folder);
    else if (!mf_path_exists(path))
        status = mf_error_set(error, MF_ERROR_MODEL_INCOMPLETE, "%s: config.json is missing", folder);
    else if (mf_json_read_file(path, CONFIG_FILE_BYTES, &config, &cause))
        status =
            mf_error_set(error, cause.status == MF_ERROR_INVALID_JSON ? MF_ERROR_MODEL_CONFIG : cause.status,
                         "%s", cause.message);
    else
        status = mf_architecture_from_json(config, path, out, error);
    json_decref(config);
    config = NULL;
    if (status == MF_OK && mf_path_exists(generation)) {
        if (mf_json_read_file(generation, CONFIG_FILE_BYTES, &config, &cause))
            status = mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s", cause.message);
        else
            status = read_eos(config, generation, out, error);
        json_decref(config);
    }
    free(generation);
    free(path);
    return status;
}

void mf_rope_frequencies(const struct mf_architecture *architecture, float *frequency) {
    const struct mf_rope *rope = &architecture->rope;
    float factor = (float)rope->factor, low = (float)rope->low_frequency_factor;
    float high = (float)rope->high_frequency_factor, original = (float)rope->original_positions;
    for (int32_t i = 0; i < architecture->head_dim / 2; i++) {
        float plain = 1.0f / powf((float)rope->theta, (float)(2 * i) / (float)architecture->head_dim);
        if (rope->kind == MF_ROPE_LINEAR) {
            plain /= factor;
        } else if (rope->kind == MF_ROPE_LLAMA3) {
            float wavelength = 2.0f * (float)M_PI / plain;
            float smooth = (original / wavelength - low) / (high - low);
            if (wavelength > original / low)
                plain /= factor;
            else if (wavelength >= original / high)
                plain = (1.0f - smooth) * plain / factor + smooth * plain;
        }
        frequency[i] = plain;
    }
}
