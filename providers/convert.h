/* GGUF file -> Hugging Face model folder: config.json, model.safetensors, tokenizer.json,
 * tokenizer_config.json. What `modelforge-trainer convert` does. */
#ifndef MF_PROVIDERS_CONVERT_H
#define MF_PROVIDERS_CONVERT_H

#include "common/error.h"
#include "kernels/tensor.h"

#include <stdint.h>

struct mf_convert_options {
    const char *gguf_path;
    const char *output_folder; /* made if missing; existing files of a model in it are replaced */
    enum mf_dtype dtype; /* MF_F32 keeps dequantised values exactly; MF_BF16 rounds them to nearest even */
};

struct mf_convert_result {
    int64_t parameters, tensors;
    int32_t layers, vocabulary;
};

/* The architectures of gguf_names.c with the tokenizers of gguf_words.c, or SentencePiece's; others are
 * refused by name (MF_ERROR_MODEL_CONFIG, MF_ERROR_BAD_TOKENIZER). A llama that was a Mistral stays a llama,
 * which computes the same. config.json is written last, so a folder with one is complete. */
enum mf_status mf_convert_gguf(const struct mf_convert_options *options, struct mf_convert_result *result,
                               struct mf_error *error);

/* Is it a whole GGUF file of a family that mf_convert_gguf() knows, with the tensors that its metadata imply?
 * Reads only its header; the tokenizer is looked at when it is converted, before any tensor is. */
enum mf_status mf_convert_gguf_check(const char *path, struct mf_error *error);

#endif
