#include "providers/models/text_config.h"

#include "common/json.h"
#include "providers/models/config_fields.h"

#include <errno.h>
#include <string.h>

/* What the whole says, and not the part. */
static const char *const inherited[] = {"bos_token_id", "dtype", "eos_token_id", "tie_word_embeddings",
                                        "torch_dtype"};

/* Of images, which nothing here is trained on, and initialisation. */
static const char *const own_fields[] = {"architectures",
                                         "boi_token_index",
                                         "boi_token_id",
                                         "eoi_token_index",
                                         "eoi_token_id",
                                         "image_token_index",
                                         "image_token_id",
                                         "model_type",
                                         "initializer_range",
                                         "mm_tokens_per_image",
                                         "text_config",
                                         "vision_config",
                                         NULL};

/* Gemma3TextConfig's. */
static const struct {
    const char *name;
    json_int_t value;
} defaults[] = {{"vocab_size", 262208},    {"hidden_size", 2304},      {"intermediate_size", 9216},
                {"num_hidden_layers", 26}, {"num_attention_heads", 8}, {"num_key_value_heads", 4}};

static bool is_inherited(const char *name) {
    for (size_t i = 0; i < sizeof inherited / sizeof *inherited; i++)
        if (!strcmp(name, inherited[i]))
            return true;
    return false;
}

static enum mf_status check_fields(const json_t *config, const char *where, const char *const *ignored,
                                   struct mf_error *error) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)config, name, value) {
        if (!json_is_null(value) && !is_inherited(name) && !mf_config_listed(name, own_fields) &&
            !mf_config_listed(name, ignored))
            return mf_config_refuse(
                where, name, value,
                "is a field that this version does not know; it might change what the model computes", error);
    }
    return MF_OK;
}

/* False: out of memory. */
static bool fill(const json_t *config, json_t *text) {
    const bool dtype = json_object_get(config, "dtype") || json_object_get(config, "torch_dtype");
    bool good = true;
    if (dtype && json_object_get(text, "dtype"))
        good = json_object_del(text, "dtype") == 0;
    if (dtype && json_object_get(text, "torch_dtype"))
        good = json_object_del(text, "torch_dtype") == 0 && good;
    for (size_t i = 0; i < sizeof inherited / sizeof *inherited; i++) {
        json_t *value = json_object_get(config, inherited[i]);
        if (value && !json_is_null(value))
            good = json_object_set(text, inherited[i], value) == 0 && good;
    }
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        if (json_is_null(json_object_get(text, defaults[i].name)) || !json_object_get(text, defaults[i].name))
            good = json_object_set_new(text, defaults[i].name, json_integer(defaults[i].value)) == 0 && good;
    return good;
}

enum mf_status mf_text_config(const json_t *config, const char *where, const char *text_type,
                              const char *const *ignored, json_t **text, struct mf_error *error) {
    const json_t *part = json_object_get(config, "text_config");
    const char *type = text_type;
    *text = NULL;
    enum mf_status status = check_fields(config, where, ignored, error);
    if (status != MF_OK)
        return status;
    if (!json_is_object(part))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: text_config: %s; it describes the part that is trained", where,
                            part ? "expected an object" : "it is missing");
    status = mf_config_status(mf_json_optional_string(part, where, "model_type", 64, &type, error), error);
    if (status != MF_OK)
        return status;
    if (strcmp(type, text_type) != 0)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: text_config: model_type: '%s' is not supported (supported: %s)", where, type,
                            text_type);
    const json_t *whole_tied = json_object_get(config, "tie_word_embeddings"),
                 *tied = json_object_get(part, "tie_word_embeddings");
    if (json_is_boolean(whole_tied) && json_is_boolean(tied) &&
        json_is_true(whole_tied) != json_is_true(tied))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%s: tie_word_embeddings here and in text_config contradict each other", where);
    *text = json_deep_copy(part);
    if (*text && fill(config, *text) && json_object_set_new(*text, "model_type", json_string(text_type)) == 0)
        return MF_OK;
    json_decref(*text);
    *text = NULL;
    return mf_error_errno(error, ENOMEM, "%s", where);
}
