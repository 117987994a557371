/* What a weight file calls a weight, and what the module tree does: they are the same but for models of
 * several parts, whose files keep the names of an older tree. Private to providers/. */
#ifndef MF_PROVIDERS_MODELS_WEIGHT_NAMES_H
#define MF_PROVIDERS_MODELS_WEIGHT_NAMES_H

#include "providers/models/architecture.h"

#include <stdbool.h>

enum { MF_WEIGHT_NAME_BYTES = 256 };

/* The name that modules, adapters and PEFT know: "language_model.model.norm.weight" is
 * "model.language_model.norm.weight" of gemma3. `stored` itself, or in `buffer`. */
const char *mf_weight_name(const struct mf_architecture *architecture, const char *stored,
                           char buffer[MF_WEIGHT_NAME_BYTES]);

/* The other way: what a file that keeps the older names calls it. */
const char *mf_weight_old_name(const struct mf_architecture *architecture, const char *name,
                               char buffer[MF_WEIGHT_NAME_BYTES]);

/* What a model of text alone would call it: "model.norm.weight". */
const char *mf_weight_text_name(const struct mf_architecture *architecture, const char *stored,
                                char buffer[MF_WEIGHT_NAME_BYTES]);

/* Of a part that text never meets (a vision tower): trained by nobody, carried into what is written. */
bool mf_weight_is_carried(const struct mf_architecture *architecture, const char *stored);

#endif
