/* Rotary positions in GGUF, as llama.cpp's converter writes them and its loader reads them. Private to
 * providers/. */
#ifndef MF_PROVIDERS_GGUF_ROPE_H
#define MF_PROVIDERS_GGUF_ROPE_H

#include "common/error.h"
#include "providers/gguf_names.h"
#include "providers/models/architecture.h"
#include "providers/weights/gguf.h"
#include "providers/weights/gguf_writer.h"

#include <jansson.h>

enum { MF_GGUF_FACTOR_TENSORS = 2 };

/* Divisors of the frequencies, one a pair of columns, which GGUF holds as a tensor. */
struct mf_gguf_factors {
    const char *name; /* "rope_freqs.weight" */
    int64_t count;
    float value[MF_ROPE_LONG_PAIRS];
};

/* What of the model's positions llama.cpp would compute otherwise, in words; NULL: nothing. Static. */
const char *mf_gguf_rope_obstacle(const struct mf_gguf_family *family,
                                  const struct mf_architecture *architecture);

/* The positions that the file says the model has. */
int32_t mf_gguf_context(const struct mf_gguf_family *family, const struct mf_architecture *architecture);

/* The keys below "<family>.rope." but for dimension_count. */
void mf_gguf_put_rope(const struct mf_gguf_family *family, const struct mf_architecture *architecture,
                      struct mf_gguf_writer *writer);

/* Fills `factors` and returns their number: none but for llama3 (one) and longrope (two). */
size_t mf_gguf_factors_of(const struct mf_rope *rope, struct mf_gguf_factors factors[MF_GGUF_FACTOR_TENSORS]);

/* Is this the name of such a tensor? */
bool mf_gguf_is_factors(const char *name);

/* Reads all of that back as members of a config.json: rope_theta, rope_scaling, partial_rotary_factor,
 * original_max_position_embeddings, rope_local_base_freq. `head_dim` and `positions` are what the file says.
 * MF_ERROR_MODEL_CONFIG names the key or tensor that cannot be said there. */
enum mf_status mf_gguf_read_rope(const struct mf_gguf *file, const struct mf_gguf_family *family,
                                 int64_t head_dim, int64_t positions, json_t *config, struct mf_error *error);

/* The double with the shortest decimal among those that are `value` in f32: 1e-05 for 9.999999747378752e-06.
 */
double mf_gguf_shortest(double value);

/* partial_rotary_factor: what times `head_dim`, cut to a whole number as every reader of config.json does, is
 * `columns`; 30 / 44 itself would give 29. */
double mf_gguf_rotary_part(int64_t columns, int64_t head_dim);

#endif
