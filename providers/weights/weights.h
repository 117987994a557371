/* The weights of a file or folder of either format, one by one as f32: what the provider ABI shows of them.
 */
#ifndef MF_PROVIDERS_WEIGHTS_WEIGHTS_H
#define MF_PROVIDERS_WEIGHTS_WEIGHTS_H

#include "common/error.h"
#include "providers/provider.h"

#include <stdbool.h>
#include <stddef.h>

/* `path`: a folder with safetensors, a file that begins as GGUF does, else a safetensors file. Statuses of
 * mf_gguf_open() and mf_safetensors_open_*(), MF_ERROR_MODEL_NOT_FOUND when it does not exist. */
enum mf_status mf_weights_open(const char *path, struct mf_weights **out, struct mf_error *error);
void mf_weights_close(struct mf_weights *weights); /* NULL is fine */

size_t mf_weights_count(const struct mf_weights *weights);
/* Fills *out as far as out->size reaches; an index beyond the last gives an empty row. */
void mf_weights_at(const struct mf_weights *weights, size_t index, struct mf_weight *out);
/* -1: there is none. */
int64_t mf_weights_find(const struct mf_weights *weights, const char *name);
/* MF_ERROR_BAD_WEIGHTS when the elements are not there, begin within a quantised block, or are no floats. */
enum mf_status mf_weights_read(const struct mf_weights *weights, size_t index, int64_t first, int64_t count,
                               float *value, struct mf_error *error);
bool mf_weights_text(const struct mf_weights *weights, const char *key, const char **text, size_t *bytes);
bool mf_weights_number(const struct mf_weights *weights, const char *key, double *value);

#endif
