/* The tokenizer of a GGUF file as Hugging Face files. Private to convert.c. */
#ifndef MF_PROVIDERS_CONVERT_TOKENIZER_H
#define MF_PROVIDERS_CONVERT_TOKENIZER_H

#include "common/error.h"
#include "providers/weights/gguf.h"

/* Writes `folder`/tokenizer.json and tokenizer_config.json; *vocabulary gets the number of tokens.
 * MF_ERROR_BAD_TOKENIZER names the metadata key that is missing, wrong or not supported. */
enum mf_status mf_convert_tokenizer(const struct mf_gguf *file, const char *folder, int32_t *vocabulary,
                                    struct mf_error *error);

#endif
