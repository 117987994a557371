#include "providers/models/architecture.h"

#include "common/files.h"
#include "common/json.h"
#include "providers/models/config_fields.h"
#include "providers/models/text_config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_VOCABULARY = 1 << 24, CONFIG_FILE_BYTES = 4 << 20 };

/* Which layers see a window only. `layer_types` overrides the last two. */
enum windows {
    WINDOWS_NONE,
    WINDOWS_ALL,    /* every layer, when sliding_window is not null */
    WINDOWS_LATER,  /* layers max_window_layers and after, when use_sliding_window */
    WINDOWS_PATTERN /* all but every sliding_window_pattern-th layer */
};

/* What a model type fixes and what its fields mean when they are absent. Another decoder-only model is
 * another row, with new columns where it differs. */
struct row {
    const char *model_type;
    const char *class_name; /* the entry of `architectures` that we build */
    const char *text_type;  /* not NULL: text_config is of this type, and only it is trained */
    const char *hidden_act, *old_hidden_act; /* the name of the activation, and one more; NULL: none */
    enum mf_activation activation;
    enum mf_weight_names names;
    const char *const *fields; /* read for this type, beside those that all read */
    enum mf_norm_variant norm;
    double norm_epsilon, theta;
    double local_theta; /* not 0: windowed layers have rotary positions of their own */
    enum windows windows;
    int32_t window, pattern, max_positions;
    int32_t head_dim; /* 0: hidden_size / num_attention_heads */
    bool tied, scaled_embeddings, query_bias, query_key_norm, output_norms;
    bool fused_projections, partial_rotary;
    bool layer_norm, parallel_layer, plain_feed_forward;
    bool all_biases;     /* of every linear module, lm_head too */
    double rotary_part;  /* partial_rotary_factor where it is not given; 0: 1 */
    double query_scalar; /* 0: head_dim */
    double attention_soft_cap, final_soft_cap;
};

static const char *const llama_fields[] = {"attention_bias", "mlp_bias", NULL};
static const char *const mistral_fields[] = {"sliding_window", NULL};
static const char *const qwen2_fields[] = {"layer_types", "max_window_layers", "sliding_window",
                                           "use_sliding_window", NULL};
static const char *const qwen3_fields[] = {"attention_bias", "layer_types",        "max_window_layers",
                                           "sliding_window", "use_sliding_window", NULL};

static const char *const gemma_fields[] = {"attention_bias", NULL};
static const char *const gemma2_fields[] = {"attention_bias",
                                            "attn_logit_softcapping",
                                            "final_logit_softcapping",
                                            "layer_types",
                                            "query_pre_attn_scalar",
                                            "sliding_window",
                                            NULL};
static const char *const gemma3_fields[] = {"_sliding_window_pattern",
                                            "attention_bias",
                                            "final_logit_softcapping",
                                            "layer_types",
                                            "query_pre_attn_scalar",
                                            "rope_local_base_freq",
                                            "sliding_window",
                                            "sliding_window_pattern",
                                            NULL};

/* auto_map names Python files that nothing here
 * runs. */
static const char *const phi3_fields[] = {"auto_map", "sliding_window", NULL};

static const char *const phi_fields[] = {"auto_map", "layer_norm_eps", "resid_pdrop", NULL};

static const struct row rows[] = {
    {.model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .hidden_act = "silu",
     .activation = MF_ACTIVATION_SILU,
     .fields = llama_fields,
     .norm_epsilon = 1e-6,
     .theta = 10000,
     .max_positions = 2048},
    {.model_type = "mistral",
     .class_name = "MistralForCausalLM",
     .hidden_act = "silu",
     .activation = MF_ACTIVATION_SILU,
     .fields = mistral_fields,
     .norm_epsilon = 1e-6,
     .theta = 10000,
     .windows = WINDOWS_ALL,
     .window = 4096,
     .max_positions = 131072},
    {.model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .hidden_act = "silu",
     .activation = MF_ACTIVATION_SILU,
     .fields = qwen2_fields,
     .norm_epsilon = 1e-6,
     .theta = 10000,
     .windows = WINDOWS_LATER,
     .window = 4096,
     .max_positions = 32768,
     .query_bias = true},
    {.model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .hidden_act = "silu",
     .activation = MF_ACTIVATION_SILU,
     .fields = qwen3_fields,
     .norm_epsilon = 1e-6,
     .theta = 10000,
     .windows = WINDOWS_LATER,
     .window = 4096,
     .max_positions = 32768,
     .head_dim = 128,
     .query_key_norm = true},
    {.model_type = "gemma",
     .class_name = "GemmaForCausalLM",
     .hidden_act = "gelu_pytorch_tanh",
     .old_hidden_act = "gelu", /* what the first releases say and do not mean */
     .activation = MF_ACTIVATION_GELU_TANH,
     .fields = gemma_fields,
     .norm = MF_NORM_UNIT_OFFSET,
     .norm_epsilon = 1e-6,
     .theta = 10000,
     .max_positions = 8192,
     .head_dim = 256,
     .tied = true,
     .scaled_embeddings = true},
    {.model_type = "gemma2",
     .class_name = "Gemma2ForCausalLM",
     .hidden_act = "gelu_pytorch_tanh",
     .activation = MF_ACTIVATION_GELU_TANH,
     .fields = gemma2_fields,
     .norm = MF_NORM_UNIT_OFFSET,
     .norm_epsilon = 1e-6,
     .theta = 10000,
     .windows = WINDOWS_PATTERN,
     .window = 4096,
     .pattern = 2,
     .max_positions = 8192,
     .head_dim = 256,
     .tied = true,
     .scaled_embeddings = true,
     .output_norms = true,
     .query_scalar = 256,
     .attention_soft_cap = 50,
     .final_soft_cap = 30},
    {.model_type = "gemma3_text",
     .class_name = "Gemma3ForCausalLM",
     .hidden_act = "gelu_pytorch_tanh",
     .activation = MF_ACTIVATION_GELU_TANH,
     .fields = gemma3_fields,
     .norm = MF_NORM_UNIT_OFFSET,
     .norm_epsilon = 1e-6,
     .theta = 1000000,
     .local_theta = 10000,
     .windows = WINDOWS_PATTERN,
     .window = 4096,
     .pattern = 6,
     .max_positions = 131072,
     .head_dim = 256,
     .tied = true,
     .scaled_embeddings = true,
     .query_key_norm = true,
     .output_norms = true,
     .query_scalar = 256},
    {.model_type = "gemma3", /* with a vision tower, which text never meets */
     .class_name = "Gemma3ForConditionalGeneration",
     .text_type = "gemma3_text"},
    {.model_type = "phi3", /* Phi-3 and Phi-4 */
     .class_name = "Phi3ForCausalLM",
     .hidden_act = "silu",
     .activation = MF_ACTIVATION_SILU,
     .fields = phi3_fields,
     .norm_epsilon = 1e-5,
     .theta = 10000,
     .windows = WINDOWS_ALL,
     .max_positions = 4096,
     .fused_projections = true,
     .partial_rotary = true},
    {.model_type = "phi", /* Phi-1, 1.5 and 2 */
     .class_name = "PhiForCausalLM",
     .hidden_act = "gelu_new",
     .activation = MF_ACTIVATION_GELU_TANH,
     .names = MF_NAMES_PHI,
     .fields = phi_fields,
     .norm_epsilon = 1e-5,
     .theta = 10000,
     .max_positions = 2048,
     .partial_rotary = true,
     .rotary_part = 0.5,
     .layer_norm = true,
     .parallel_layer = true,
     .plain_feed_forward = true,
     .all_biases = true},
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
    "cache_implementation",
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
    NULL,
};

/* Fields that the reading below takes care of. */
static const char *const read_fields[] = {
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "torch_dtype",
    "vocab_size",
    NULL,
};

/* Fields that are known and, where the model type does not read them, must have the value that changes
 * nothing. */
static const struct {
    const char *name;
    double value; /* booleans: 0 or 1 */
} neutral_fields[] = {
    {"add_cross_attention", 0}, {"attention_bias", 0},
    {"attention_dropout", 0},   {"chunk_size_feed_forward", 0},
    {"embd_pdrop", 0},          {"is_encoder_decoder", 0},
    {"lm_head_bias", 0},        {"mlp_bias", 0},
    {"qk_layernorm", 0},        {"resid_pdrop", 0},
    {"rope_interleaved", 0},    {"use_bidirectional_attention", 0},
    {"use_mrope", 0},           {"use_sliding_window", 0},
};

/* Every field is read, known to change nothing, or refused by name. null counts as absent. */
static enum mf_status check_fields(const json_t *config, const char *where, const struct row *row,
                                   struct mf_error *error) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)config, name, value) {
        if (json_is_null(value) || mf_config_listed(name, ignored_fields) ||
            mf_config_listed(name, row->fields) ||
            (mf_config_listed(name, read_fields) && !(row->layer_norm && !strcmp(name, "rms_norm_eps"))))
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
            if (!mf_config_is_neutral(value, neutral_fields[i].value))
                return mf_config_refuse(where, name, value, "is not supported", error);
        }
        if (!known)
            return mf_config_refuse(
                where, name, value,
                "is a field that this version does not know; it might change what the model computes", error);
    }
    return MF_OK;
}

const char *mf_architecture_type(size_t index) {
    return index < ROWS ? rows[index].model_type : NULL;
}

static enum mf_status find_row(const json_t *config, const char *where, const struct row **out,
                               struct mf_error *error) {
    const char *type = NULL;
    enum mf_status status =
        mf_config_status(mf_json_string(config, where, "model_type", 64, &type, error), error);
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

static enum mf_status read_sizes(const json_t *config, const char *where, const struct row *row,
                                 struct mf_architecture *out, struct mf_error *error) {
    enum mf_status status;
    if ((status = mf_config_size(config, where, "vocab_size", MAX_VOCABULARY, &out->vocabulary, error)) ||
        (status = mf_config_size(config, where, "hidden_size", MF_CONFIG_MAX_WIDTH, &out->hidden, error)) ||
        (status = mf_config_size(config, where, "intermediate_size", MF_CONFIG_MAX_WIDTH, &out->intermediate,
                                 error)) ||
        (status = mf_config_size(config, where, "num_hidden_layers", MF_ARCHITECTURE_MAX_LAYERS, &out->layers,
                                 error)) ||
        (status =
             mf_config_size(config, where, "num_attention_heads", MF_CONFIG_MAX_WIDTH, &out->heads, error)))
        return status;
    out->key_value_heads = out->heads;
    out->max_positions = row->max_positions;
    out->head_dim = row->head_dim;
    if ((status = mf_config_optional_size(config, where, "num_key_value_heads", MF_CONFIG_MAX_WIDTH,
                                          &out->key_value_heads, error)) ||
        (status = mf_config_optional_size(config, where, "max_position_embeddings", MF_CONFIG_MAX_POSITIONS,
                                          &out->max_positions, error)) ||
        (status =
             mf_config_optional_size(config, where, "head_dim", MF_CONFIG_MAX_WIDTH, &out->head_dim, error)))
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
    if ((int64_t)out->heads * out->head_dim > MF_CONFIG_MAX_WIDTH)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: num_attention_heads x head_dim is above %d",
                            where, MF_CONFIG_MAX_WIDTH);
    return MF_OK;
}

/* ---- which layers see how far ---- */

static enum mf_status read_layer_types(const json_t *types, const char *where, struct mf_architecture *out,
                                       struct mf_error *error) {
    if (!json_is_array(types) || json_array_size(types) != (size_t)out->layers)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: layer_types: expected an array of %d strings, one a layer", where,
                            out->layers);
    for (int32_t layer = 0; layer < out->layers; layer++) {
        const json_t *item = json_array_get(types, (size_t)layer);
        const char *type = json_is_string(item) ? json_string_value(item) : "";
        out->windowed[layer] = !strcmp(type, "sliding_attention");
        if (!out->windowed[layer] && strcmp(type, "full_attention") != 0)
            return mf_config_refuse(where, "layer_types", item,
                                    "is not supported (supported: full_attention, sliding_attention)", error);
    }
    return MF_OK;
}

/* sliding_window; 0 when null or not used. */
static enum mf_status read_window(const json_t *config, const char *where, const struct row *row,
                                  struct mf_architecture *out, struct mf_error *error) {
    bool used = row->windows != WINDOWS_LATER;
    enum mf_status status =
        mf_config_status(mf_json_optional_boolean(config, where, "use_sliding_window", &used, error), error);
    if (status)
        return status;
    out->window = json_is_null(json_object_get(config, "sliding_window")) ? 0 : row->window;
    status = mf_config_optional_size(config, where, "sliding_window", MF_CONFIG_MAX_POSITIONS, &out->window,
                                     error);
    if (!used)
        out->window = 0;
    return status;
}

static enum mf_status read_windows(const json_t *config, const char *where, const struct row *row,
                                   struct mf_architecture *out, struct mf_error *error) {
    const json_t *types = json_object_get(config, "layer_types");
    int64_t first = 28; /* Qwen's default of max_window_layers */
    int32_t pattern = row->pattern;
    enum mf_status status;
    if (row->windows == WINDOWS_NONE)
        return MF_OK;
    if ((status = read_window(config, where, row, out, error)) ||
        (status = mf_config_status(
             mf_json_optional_integer(config, where, "max_window_layers", 0, INT32_MAX, &first, error),
             error)) ||
        (status = mf_config_optional_size(config, where, "_sliding_window_pattern",
                                          MF_ARCHITECTURE_MAX_LAYERS, &pattern, error)) ||
        (status = mf_config_optional_size(config, where, "sliding_window_pattern", MF_ARCHITECTURE_MAX_LAYERS,
                                          &pattern, error)))
        return status;
    bool listed = types && !json_is_null(types);
    for (int32_t layer = 0; layer < out->layers && !listed; layer++)
        out->windowed[layer] = row->windows == WINDOWS_PATTERN ? (layer + 1) % pattern != 0
                               : row->windows == WINDOWS_LATER ? out->window && layer >= first
                                                               : out->window != 0;
    if (listed && (status = read_layer_types(types, where, out, error)))
        return status;
    for (int32_t layer = 0; layer < out->layers; layer++)
        if (out->windowed[layer] && !out->window)
            return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                                "%s: sliding_window: layer %d has a window, but its size is not given", where,
                                layer);
    return MF_OK;
}

/* ---- end of text ---- */

static enum mf_status add_eos(const json_t *value, const char *where, struct mf_architecture *out,
                              struct mf_error *error) {
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || id >= out->vocabulary)
        return mf_config_refuse(where, "eos_token_id", value, "is not a token of the vocabulary", error);
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

/* Both names of the field: Gemma 2 and later say hidden_activation. */
static enum mf_status check_activation(const json_t *config, const char *where, const struct row *row,
                                       struct mf_error *error) {
    static const char *const names[] = {"hidden_act", "hidden_activation"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *act = row->hidden_act;
        enum mf_status status =
            mf_config_status(mf_json_optional_string(config, where, names[i], 64, &act, error), error);
        if (status)
            return status;
        if (strcmp(act, row->hidden_act) != 0 &&
            (!row->old_hidden_act || strcmp(act, row->old_hidden_act) != 0))
            return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: %s: '%s' is not supported (%s is '%s')",
                                where, names[i], act, row->model_type, row->hidden_act);
    }
    return MF_OK;
}

/* Scale and soft-caps of the scores, and the cap of the logits. */
static enum mf_status read_scores(const json_t *config, const char *where, const struct row *row,
                                  struct mf_architecture *out, struct mf_error *error) {
    double scalar = row->query_scalar > 0 ? row->query_scalar : out->head_dim;
    double attention = row->attention_soft_cap, final = row->final_soft_cap;
    enum mf_status status;
    if ((status = mf_config_status(
             mf_json_optional_number(config, where, "query_pre_attn_scalar", 1e-6, 1e9, &scalar, error),
             error)) ||
        (status =
             mf_config_switchable(config, where, "attn_logit_softcapping", 1e-3, 1e9, &attention, error)) ||
        (status = mf_config_switchable(config, where, "final_logit_softcapping", 1e-3, 1e9, &final, error)))
        return status;
    out->attention_scale = (float)(1 / sqrt(scalar));
    out->attention_soft_cap = (float)attention;
    out->final_soft_cap = (float) final;
    return MF_OK;
}

static enum mf_status read_rest(const json_t *config, const char *where, const struct row *row,
                                struct mf_architecture *out, struct mf_error *error) {
    double epsilon = row->norm_epsilon, dropout = 0;
    int64_t bos = -1;
    const char *dtype = NULL, *old_dtype = NULL;
    enum mf_status status;
    out->initializer_range = 0.02;
    out->output_bias = out->mlp_bias = out->head_bias = row->all_biases;
    if ((status = mf_json_optional_number(config, where, row->layer_norm ? "layer_norm_eps" : "rms_norm_eps",
                                          1e-12, 1, &epsilon, error)) ||
        (status = mf_json_optional_number(config, where, "resid_pdrop", 0, 0.99, &dropout, error)) ||
        (status = mf_json_optional_number(config, where, "initializer_range", 0, 10, &out->initializer_range,
                                          error)) ||
        (status =
             mf_json_optional_boolean(config, where, "tie_word_embeddings", &out->tied_embeddings, error)) ||
        (status = mf_json_optional_boolean(config, where, "attention_bias", &out->output_bias, error)) ||
        (status = mf_json_optional_boolean(config, where, "mlp_bias", &out->mlp_bias, error)) ||
        (status =
             mf_json_optional_integer(config, where, "bos_token_id", 0, out->vocabulary - 1, &bos, error)) ||
        (status = mf_json_optional_string(config, where, "dtype", 64, &dtype, error)) ||
        (status = mf_json_optional_string(config, where, "torch_dtype", 64, &old_dtype, error)))
        return mf_config_status(status, error);
    if (dtype && old_dtype && strcmp(dtype, old_dtype) != 0)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: dtype '%s' and torch_dtype '%s' contradict each other", where, dtype,
                            old_dtype);
    out->attention_bias = out->output_bias || row->query_bias;
    out->norm_epsilon = (float)epsilon;
    out->layer_dropout = (float)dropout;
    out->bos = (int32_t)bos;
    return read_eos(config, where, out, error);
}

static enum mf_status read_ropes(const json_t *config, const char *where, const struct row *row,
                                 struct mf_architecture *out, struct mf_error *error) {
    struct mf_rope_defaults defaults = {.theta = row->theta,
                                        .head_dim = out->head_dim,
                                        .max_positions = out->max_positions,
                                        .partial = row->partial_rotary,
                                        .part = row->rotary_part > 0 ? row->rotary_part : 1};
    enum mf_status status =
        mf_config_optional_size(config, where, "original_max_position_embeddings", MF_CONFIG_MAX_POSITIONS,
                                &defaults.original_positions, error);
    if (status)
        return status;
    status = out->window_has_rope ? mf_rope_read_both(config, where, &defaults, row->local_theta, &out->rope,
                                                      &out->window_rope, error)
                                  : mf_rope_read(config, where, &defaults, &out->rope, error);
    if (status == MF_OK && out->rope.kind == MF_ROPE_DYNAMIC) /* this far the scaling is meant to reach */
        out->max_positions =
            (int32_t)fmin(out->rope.factor * out->rope.original_positions, MF_CONFIG_MAX_POSITIONS);
    return status;
}

/* What no field of config.json can change. */
static void take_row(const struct row *row, struct mf_architecture *out) {
    out->model_type = row->model_type;
    out->activation = row->activation;
    out->names = row->names;
    out->norm = row->norm;
    out->layer_norm = row->layer_norm;
    out->parallel_layer = row->parallel_layer;
    out->gated = !row->plain_feed_forward;
    out->scaled_embeddings = row->scaled_embeddings;
    out->query_key_norm = row->query_key_norm;
    out->output_norms = row->output_norms;
    out->fused_projections = row->fused_projections;
    out->window_has_rope = row->local_theta > 0;
    out->tied_embeddings = row->tied; /* unless tie_word_embeddings says otherwise */
}

/* A description whose type is one of decoders of text. */
static enum mf_status read_decoder(const json_t *config, const char *where, const struct row *row,
                                   struct mf_architecture *out, struct mf_error *error) {
    enum mf_status status = check_fields(config, where, row, error);
    if (status)
        return status;
    take_row(row, out);
    if ((status = read_sizes(config, where, row, out, error)) ||
        (status = check_activation(config, where, row, error)) ||
        (status = read_windows(config, where, row, out, error)) ||
        (status = read_scores(config, where, row, out, error)) ||
        (status = read_rest(config, where, row, out, error)))
        return status;
    return read_ropes(config, where, row, out, error);
}

/* A model of several parts is its text part under other names. */
static enum mf_status read_text_part(const json_t *config, const char *where, const struct row *whole,
                                     struct mf_architecture *out, struct mf_error *error) {
    const struct row *row = NULL;
    json_t *text = NULL;
    char inside[4096 + 32];
    enum mf_status status = mf_text_config(config, where, whole->text_type, ignored_fields, &text, error);
    if (status)
        return status;
    snprintf(inside, sizeof inside, "%s: text_config", where);
    status = find_row(text, inside, &row, error);
    if (row)
        status = read_decoder(text, inside, row, out, error);
    out->model_type = whole->model_type;
    out->names = MF_NAMES_LANGUAGE_MODEL;
    json_decref(text);
    return status;
}

enum mf_status mf_architecture_from_json(const json_t *config, const char *where, struct mf_architecture *out,
                                         struct mf_error *error) {
    const struct row *row = NULL;
    memset(out, 0, sizeof *out);
    if (!json_is_object(config))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: not a JSON object", where);
    enum mf_status status = find_row(config, where, &row, error);
    if (!row)
        return status;
    return row->text_type ? read_text_part(config, where, row, out, error)
                          : read_decoder(config, where, row, out, error);
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
