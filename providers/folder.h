/* Is a model folder usable, before anything is loaded? */
#ifndef MF_PROVIDERS_FOLDER_H
#define MF_PROVIDERS_FOLDER_H

#include "common/error.h"
#include "providers/provider.h"

/* A Hugging Face folder with config.json, tokenizer.json and safetensors (single or every shard of the
 * index), all readable. MF_ERROR_MODEL_NOT_FOUND / MF_ERROR_MODEL_INCOMPLETE say what is missing and what to
 * do; a hub id is refused by name. Opens nothing but the index. */
enum mf_status mf_folder_check(const struct mf_model_reference *reference, struct mf_error *error);

#endif
