/* The tokenizer of a Hugging Face folder as GGUF metadata. Private to providers/ (export_gguf.c calls it). */
#ifndef MF_PROVIDERS_EXPORT_TOKENIZER_H
#define MF_PROVIDERS_EXPORT_TOKENIZER_H

#include "common/error.h"
#include "providers/models/architecture.h"
#include "providers/weights/gguf_writer.h"

/* Reads tokenizer.json, tokenizer_config.json and chat_template.jinja of `folder` and puts them into `writer`
 * (NULL: only checks). Ids between the tokenizer's and the model's vocabulary become unused tokens, as
 * llama.cpp's own converter makes them. MF_ERROR_UNSUPPORTED_FIELD names what GGUF cannot say,
 * MF_ERROR_BAD_TOKENIZER what is damaged. */
enum mf_status mf_export_tokenizer(const char *folder, const struct mf_architecture *architecture,
                                   struct mf_gguf_writer *writer, struct mf_error *error);

#endif
