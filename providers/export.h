/* A model folder with what was trained of it, written as a Hugging Face folder or as one GGUF file.
 *
 * Values are the folder's own weights W (of any floating dtype, read as f32), or what one was trained to as a
 * whole, plus scale * (B A) in f32, rounded once to what is written. Weights stream through a few megabytes,
 * whatever the size of the model. */
#ifndef MF_PROVIDERS_EXPORT_H
#define MF_PROVIDERS_EXPORT_H

#include "common/error.h"
#include "providers/models/architecture.h"
#include "providers/weights/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a LoRA adapter adds to the weight (N, K) of one linear module. Everything is borrowed. */
struct mf_weight_delta {
    const char *module; /* "model.layers.0.self_attn.q_proj" */
    int64_t output_features, input_features, rank;
    float scale;
    const float *a; /* (rank, K) */
    const float *b; /* (N, rank) */
};

/* What a weight of the model was trained to, as a whole. Everything is borrowed. */
struct mf_weight_value {
    const char *name;   /* "model.norm.weight" */
    int32_t rank;       /* 1 or 2 */
    int64_t dim[2];     /* as on disk */
    const float *value; /* row-major */
};

struct mf_export_options {
    const char *folder; /* the base model in Hugging Face layout */
    /* NULL: that of its config.json. A model whose programs a provider builds is none that is read. */
    const struct mf_architecture *architecture;
    const struct mf_weight_delta *delta;
    size_t deltas; /* 0 of both: the base model as it is */
    const struct mf_weight_value *value;
    size_t values;
    bool untie_head; /* head and table of tokens are not the same any more, where the model ties them */
    /* Called now and then from the calling thread with the share that is done; false ends with
     * MF_ERROR_CANCELLED. NULL: never. */
    bool (*proceed)(void *argument, double fraction);
    void *argument;
};

/* 16-bit: a weight stored in bf16 or f16 keeps its dtype; one stored in f32 gets f16 when the folder has f16
 * weights and no bf16 ones, else bf16. Stored: every weight keeps its dtype. */
enum mf_export_precision { MF_EXPORT_16BIT, MF_EXPORT_F32, MF_EXPORT_STORED };

/* Writes config.json (with the new dtype), model.safetensors, and generation_config.json and the tokenizer's
 * files where the base has them. Either all of it stands at `output` or nothing new does; what stood there is
 * replaced. MF_ERROR_BAD_WEIGHTS names a weight that is not finite in the new dtype,
 * MF_ERROR_ADAPTER_MISMATCH a delta without its weight. */
enum mf_status mf_export_huggingface(const struct mf_export_options *options,
                                     enum mf_export_precision precision, const char *output,
                                     struct mf_error *error);

/* Can the model in `folder` be written as GGUF? MF_ERROR_UNSUPPORTED_FIELD names what of its architecture or
 * tokenizer llama.cpp would compute otherwise: a model type or scaled RoPE that it does not know
 * (gguf_names.c), windows without a pattern, biases, caps or scales that only other families have; a
 * tokenizer whose words have no name there (gguf_words.c) and that is not SentencePiece's BPE
 * (gguf_pieces.h). Where llama.cpp knows no windows (Mistral, Qwen 2) the file's context ends where the
 * window does, so that nothing is computed otherwise within it. */
enum mf_status mf_export_gguf_check(const char *folder, struct mf_error *error);

/* The same of one whose head is a weight of its own where config.json ties it: some families have no place
 * for that in GGUF. */
enum mf_status mf_export_gguf_check_untied(const char *folder, struct mf_error *error);

/* Writes `path`: matrices in `type` (MF_GGUF_F16 or MF_GGUF_Q8_0; f16 where rows are no multiple of 32),
 * vectors in f32, query and key rows in ggml's order, factors of a scaled RoPE, the vocabulary, its merges or
 * scores, and the chat template. Fails as mf_export_gguf_check does, before anything is written. */
enum mf_status mf_export_gguf(const struct mf_export_options *options, enum mf_gguf_type type,
                              const char *path, struct mf_error *error);

#endif
