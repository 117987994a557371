/* config.json of a Hugging Face model folder -> one description that the builders turn into programs.
 * One row of the table in architecture.c per model type; what a row does not know is refused by field name.
 */
#ifndef MF_PROVIDERS_MODELS_ARCHITECTURE_H
#define MF_PROVIDERS_MODELS_ARCHITECTURE_H

#include "common/error.h"
#include "kernels/ops.h"
#include "providers/models/rope.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MF_ARCHITECTURE_MAX_EOS = 16, MF_ARCHITECTURE_MAX_LAYERS = 4096 };

/* What the weights are called (weight_names.h: on disk). */
enum mf_weight_names {
    MF_NAMES_LLAMA,
    MF_NAMES_PHI,
    MF_NAMES_LANGUAGE_MODEL /* Llama's, of the text part of a model of several parts */
};

struct mf_architecture {
    const char *model_type; /* "llama": the key of the capability tables; static */
    enum mf_activation activation;
    enum mf_weight_names names;
    enum mf_norm_variant norm;
    bool layer_norm;     /* norms subtract the mean and have a bias; `norm` says nothing then */
    bool parallel_layer; /* attention and feed-forward read one norm, both are added to the layer's input */
    bool gated;          /* feed-forward: activation(gate) * up; else activation(up) */
    bool head_bias;      /* of lm_head */
    float layer_dropout; /* training: of what attention and feed-forward add; 0: none */
    int32_t vocabulary, hidden, intermediate, layers;
    int32_t heads, key_value_heads, head_dim; /* heads is a multiple of key_value_heads */
    int32_t max_positions;
    float norm_epsilon;
    float attention_scale;                    /* of the scores */
    float attention_soft_cap, final_soft_cap; /* of scores and logits; 0: none */
    bool tied_embeddings;
    bool scaled_embeddings;                     /* by the root of hidden, in the dtype of the activations */
    bool attention_bias, output_bias, mlp_bias; /* of q, k, v; of the projection behind attention */
    bool query_key_norm;                        /* RMS norm of each head of q and k before they are rotated */
    bool fused_projections;                     /* q, k, v stored as one weight; gate and up as another */
    bool output_norms;                          /* norms behind attention and feed-forward too */
    struct mf_rope rope;
    bool window_has_rope; /* windowed layers use window_rope */
    struct mf_rope window_rope;
    int32_t window;           /* keys that a token of a windowed layer sees, itself included */
    double initializer_range; /* standard deviation of new weights */
    int32_t bos;              /* -1 when config.json names none */
    int32_t eos[MF_ARCHITECTURE_MAX_EOS];
    int32_t eos_count;
    bool windowed[MF_ARCHITECTURE_MAX_LAYERS];
};

/* The token that ends a text; -1 when the model names none. */
static inline int32_t mf_architecture_eos(const struct mf_architecture *architecture) {
    return architecture->eos_count ? architecture->eos[0] : -1;
}

/* The model types that there are, in the table's order; NULL from their number on. Static. */
const char *mf_architecture_type(size_t index);

/* From the parsed config.json; `where` names the file in messages. MF_ERROR_MODEL_CONFIG names the field:
 * missing, out of range, contradictory, or not supported. Borrows nothing. */
enum mf_status mf_architecture_from_json(const json_t *config, const char *where, struct mf_architecture *out,
                                         struct mf_error *error);

/* Reads `folder`/config.json, and the end tokens of `folder`/generation_config.json where there is one.
 * MF_ERROR_MODEL_NOT_FOUND when the folder does not exist, MF_ERROR_MODEL_INCOMPLETE without config.json. */
enum mf_status mf_architecture_read(const char *folder, struct mf_architecture *out, struct mf_error *error);

#endif
