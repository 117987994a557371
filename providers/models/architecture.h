/* config.json of a Hugging Face model folder -> one description that the builders turn into programs.
 * One row of the table in architecture.c per model type; what a row does not know is refused by field name.
 */
#ifndef MF_PROVIDERS_MODELS_ARCHITECTURE_H
#define MF_PROVIDERS_MODELS_ARCHITECTURE_H

#include "common/error.h"
#include "kernels/ops.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MF_ARCHITECTURE_MAX_EOS = 16 };

enum mf_model_form { MF_FORM_DECODER };

enum mf_rope_kind { MF_ROPE_DEFAULT, MF_ROPE_LINEAR, MF_ROPE_LLAMA3 };

/* Angle of pair i at position p: p * frequency[i], frequency[i] = theta^(-2i / head_dim), scaled by `kind`.
 */
struct mf_rope {
    enum mf_rope_kind kind;
    double theta;
    double factor;                                      /* linear, llama3 */
    double low_frequency_factor, high_frequency_factor; /* llama3 */
    int32_t original_positions;                         /* llama3 */
};

struct mf_architecture {
    const char *model_type; /* "llama": the key of the capability tables; static */
    enum mf_model_form form;
    enum mf_activation activation;
    int32_t vocabulary, hidden, intermediate, layers;
    int32_t heads, key_value_heads, head_dim; /* heads is a multiple of key_value_heads */
    int32_t max_positions;
    float norm_epsilon;
    bool tied_embeddings, attention_bias, mlp_bias;
    struct mf_rope rope;
    double initializer_range; /* standard deviation of new weights */
    int32_t bos;              /* -1 when config.json names none */
    int32_t eos[MF_ARCHITECTURE_MAX_EOS];
    int32_t eos_count;
};

/* From the parsed config.json; `where` names the file in messages. MF_ERROR_MODEL_CONFIG names the field:
 * missing, out of range, contradictory, or not supported. Borrows nothing. */
enum mf_status mf_architecture_from_json(const json_t *config, const char *where, struct mf_architecture *out,
                                         struct mf_error *error);

/* Reads `folder`/config.json, and the end tokens of `folder`/generation_config.json where there is one.
 * MF_ERROR_MODEL_NOT_FOUND when the folder does not exist, MF_ERROR_MODEL_INCOMPLETE without config.json. */
enum mf_status mf_architecture_read(const char *folder, struct mf_architecture *out, struct mf_error *error);

/* frequency[i] for i < head_dim / 2, in f32 as Transformers computes inv_freq. */
void mf_rope_frequencies(const struct mf_architecture *architecture, float *frequency);

#endif
