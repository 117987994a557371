/* config.json of a model of several parts (text and images) -> the description of its text part alone.
 * Private to models/ (architecture.c calls it). */
#ifndef MF_PROVIDERS_MODELS_TEXT_CONFIG_H
#define MF_PROVIDERS_MODELS_TEXT_CONFIG_H

#include "common/error.h"

#include <jansson.h>

/* `text_config` of the whole, which must be of the type `text_type`, with what the whole says in its stead
 * (end tokens, dtype, tied embeddings) and with Transformers' defaults of sizes that released files leave
 * out. `ignored` are the fields that change nothing in any model. *text is a new reference.
 * MF_ERROR_MODEL_CONFIG names what is unknown or contradicts. */
enum mf_status mf_text_config(const json_t *config, const char *where, const char *text_type,
                              const char *const *ignored, json_t **text, struct mf_error *error);

#endif
