/* Reading config.json: whatever is wrong with a field is MF_ERROR_MODEL_CONFIG and names it. Private to
 * models/. */
#ifndef MF_PROVIDERS_MODELS_CONFIG_FIELDS_H
#define MF_PROVIDERS_MODELS_CONFIG_FIELDS_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MF_CONFIG_MAX_WIDTH = 1 << 20, MF_CONFIG_MAX_POSITIONS = 1 << 28 };

/* The same failure as MF_ERROR_MODEL_CONFIG; running out of memory stays what it is. */
enum mf_status mf_config_status(enum mf_status status, struct mf_error *error);

/* "where: field: value why". */
enum mf_status mf_config_refuse(const char *where, const char *field, const json_t *value, const char *why,
                                struct mf_error *error);

/* Is `name` in `list`, which ends with NULL? A NULL list is empty. */
bool mf_config_listed(const char *name, const char *const *list);

/* Is a number, or a boolean as 0 or 1, equal to `neutral`? */
bool mf_config_is_neutral(const json_t *value, double neutral);

/* Sizes from 1 to `maximum`; optional: *value stays when the field is absent or null. */
enum mf_status mf_config_size(const json_t *config, const char *where, const char *key, int64_t maximum,
                              int32_t *value, struct mf_error *error);
enum mf_status mf_config_optional_size(const json_t *config, const char *where, const char *key,
                                       int64_t maximum, int32_t *value, struct mf_error *error);

/* A number that null switches off: absent: *value stays; null: 0. */
enum mf_status mf_config_switchable(const json_t *config, const char *where, const char *key, double minimum,
                                    double maximum, double *value, struct mf_error *error);

#endif
