#include "providers/models/config_fields.h"

#include "common/json.h"

#include <string.h>

enum mf_status mf_config_status(enum mf_status status, struct mf_error *error) {
    if (status && error && status != MF_ERROR_OUT_OF_MEMORY)
        error->status = MF_ERROR_MODEL_CONFIG;
    return status && status != MF_ERROR_OUT_OF_MEMORY ? MF_ERROR_MODEL_CONFIG : status;
}

enum mf_status mf_config_refuse(const char *where, const char *field, const json_t *value, const char *why,
                                struct mf_error *error) {
    char excerpt[64];
    return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: %s: %s %s", where, field,
                        mf_json_excerpt(value, excerpt, sizeof excerpt), why);
}

bool mf_config_listed(const char *name, const char *const *list) {
    for (; list && *list; list++)
        if (!strcmp(*list, name))
            return true;
    return false;
}

bool mf_config_is_neutral(const json_t *value, double neutral) {
    if (json_is_boolean(value))
        return (double)json_is_true(value) == neutral;
    return json_is_number(value) && json_number_value(value) == neutral;
}

enum mf_status mf_config_size(const json_t *config, const char *where, const char *key, int64_t maximum,
                              int32_t *value, struct mf_error *error) {
    int64_t found;
    enum mf_status status =
        mf_config_status(mf_json_integer(config, where, key, 1, maximum, &found, error), error);
    if (status == MF_OK)
        *value = (int32_t)found;
    return status;
}

enum mf_status mf_config_optional_size(const json_t *config, const char *where, const char *key,
                                       int64_t maximum, int32_t *value, struct mf_error *error) {
    int64_t found = *value;
    enum mf_status status =
        mf_config_status(mf_json_optional_integer(config, where, key, 1, maximum, &found, error), error);
    if (status == MF_OK)
        *value = (int32_t)found;
    return status;
}

enum mf_status mf_config_switchable(const json_t *config, const char *where, const char *key, double minimum,
                                    double maximum, double *value, struct mf_error *error) {
    if (json_is_null(json_object_get(config, key))) {
        *value = 0;
        return MF_OK;
    }
    return mf_config_status(mf_json_optional_number(config, where, key, minimum, maximum, value, error),
                            error);
}
