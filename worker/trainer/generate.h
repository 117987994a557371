/* Greedy decoding with a key / value cache. */
#ifndef MF_WORKER_TRAINER_GENERATE_H
#define MF_WORKER_TRAINER_GENERATE_H

#include "worker/trainer/runtime.h"

struct mf_generator {
    struct mf_model_program prefill, decode;
    int32_t max_prompt, max_new; /* tokens that the programs have room for */
};

/* Builds the two programs on the runtime's graph, for prompts of up to max_prompt tokens and answers of up to
 * max_new; the caller then realizes the runtime. Slot -1: the base model. */
enum mf_status mf_generator_build(struct mf_runtime *runtime, int16_t slot, int32_t max_prompt,
                                  int32_t max_new, struct mf_generator *generator, struct mf_error *error);

/* Appends the answer to `prompt` to *answer, without the end token that closed it: the most likely token each
 * time (the lowest id of equals), until the tokenizer's or the configuration's end or max_new tokens. */
enum mf_status mf_generate(struct mf_runtime *runtime, const struct mf_generator *generator,
                           const struct mf_tokens *prompt, struct mf_tokens *answer, struct mf_error *error);

#endif
