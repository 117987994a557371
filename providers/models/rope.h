/* Rotary positions: what config.json says about them, and the frequencies that follow (Su et al. 2021). */
#ifndef MF_PROVIDERS_MODELS_ROPE_H
#define MF_PROVIDERS_MODELS_ROPE_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum mf_rope_kind {
    MF_ROPE_DEFAULT,
    MF_ROPE_LINEAR,
    MF_ROPE_LLAMA3,
    MF_ROPE_YARN,
    MF_ROPE_LONG,
    MF_ROPE_DYNAMIC
};

enum { MF_ROPE_LONG_PAIRS = 256 };

/* Angle of pair i at position p: p * frequency[i], frequency[i] = theta^(-2i / columns), scaled by `kind`.
 * "dynamic" and "longrope" have other frequencies where a row is longer than original_positions: Transformers
 * looks at the longest row of each batch, we at the longest row of all, once. */
struct mf_rope {
    enum mf_rope_kind kind;
    int32_t columns; /* the first columns of a head that are rotated; even */
    double theta;
    double factor;                                      /* all but default */
    double low_frequency_factor, high_frequency_factor; /* llama3 */
    double beta_fast, beta_slow;                        /* yarn */
    double attention_factor;                            /* of cosines and sines; 1 unless yarn, longrope */
    int32_t original_positions;                         /* llama3, yarn, longrope, dynamic */
    float divisor[MF_ROPE_LONG_PAIRS];                  /* longrope: short_factor */
    float long_divisor[MF_ROPE_LONG_PAIRS];             /* longrope: long_factor */
    bool truncate;                                      /* yarn */
};

/* What the fields mean when they are absent, and whether partial_rotary_factor may be below 1. */
struct mf_rope_defaults {
    double theta;
    int32_t head_dim, max_positions;
    int32_t original_positions; /* 0: max_positions */
    bool partial;
    double part; /* partial_rotary_factor */
};

/* v5 `rope_parameters`, or v4 `rope_theta` and `rope_scaling`. MF_ERROR_MODEL_CONFIG names the field. */
enum mf_status mf_rope_read(const json_t *config, const char *where, const struct mf_rope_defaults *defaults,
                            struct mf_rope *rope, struct mf_error *error);

/* The same for models whose windowed layers have rotary positions of their own: v5 `rope_parameters` with
 * `full_attention` and `sliding_attention`, or v4 with `rope_local_base_freq` for the latter. */
enum mf_status mf_rope_read_both(const json_t *config, const char *where,
                                 const struct mf_rope_defaults *defaults, double local_theta,
                                 struct mf_rope *rope, struct mf_rope *windowed, struct mf_error *error);

/* frequency[columns / 2] for rows of up to `longest` tokens, in f32 as Transformers computes inv_freq. */
void mf_rope_frequencies(const struct mf_rope *rope, int32_t longest, float *frequency);

#endif
