#include "worker/trainer/generate.h"

#include "worker/trainer/feed.h"

#include <stdlib.h>

static void bound(struct mf_graph *graph, int32_t program, int32_t tokens, int32_t cache) {
    mf_program_set_bound(graph, program, MF_TOKENS, tokens);
    mf_program_set_bound(graph, program, MF_SEQUENCES, 1);
    mf_program_set_bound(graph, program, MF_CACHE, cache);
}

enum mf_status mf_generator_build(struct mf_runtime *runtime, int16_t slot, int32_t max_prompt,
                                  int32_t max_new, struct mf_generator *generator, struct mf_error *error) {
    const int32_t positions = mf_model_architecture(runtime->model)->max_positions;
    if (max_prompt < 1 || max_new < 1 || max_prompt > positions - max_new)
        return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                            "a prompt of %d tokens and an answer of %d do not fit the model's %d positions",
                            max_prompt, max_new, positions);
    *generator = (struct mf_generator){.max_prompt = max_prompt, .max_new = max_new};
    enum mf_status status =
        mf_model_build(runtime->model, runtime->graph, MF_PREFILL, slot, &generator->prefill, error);
    if (status == MF_OK)
        status = mf_model_build(runtime->model, runtime->graph, MF_DECODE, slot, &generator->decode, error);
    if (status == MF_OK) {
        bound(runtime->graph, generator->prefill.program, max_prompt, max_prompt + max_new);
        bound(runtime->graph, generator->decode.program, 1, max_prompt + max_new);
    }
    return status;
}

static bool ends(const struct mf_runtime *runtime, int32_t token) {
    const struct mf_architecture *architecture = mf_model_architecture(runtime->model);
    for (int32_t i = 0; i < architecture->eos_count; i++)
        if (token == architecture->eos[i])
            return true;
    return token == mf_tokenizer_eos(runtime->tokenizer);
}

static enum mf_status append(struct mf_tokens *tokens, int32_t token, struct mf_error *error) {
    if (tokens->count == tokens->capacity) {
        size_t capacity = tokens->capacity ? tokens->capacity * 2 : 64;
        int32_t *grown = realloc(tokens->id, capacity * sizeof *grown);
        if (!grown)
            return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "generate: out of memory");
        tokens->id = grown;
        tokens->capacity = capacity;
    }
    tokens->id[tokens->count++] = token;
    return MF_OK;
}

enum mf_status mf_generate(struct mf_runtime *runtime, const struct mf_generator *generator,
                           const struct mf_tokens *prompt, struct mf_tokens *answer, struct mf_error *error) {
    if (!prompt->count || prompt->count > (size_t)generator->max_prompt)
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "prompt: has %zu tokens, not 1 to %d",
                            prompt->count, generator->max_prompt);
    struct mf_step step = {.inverse_count = 1};
    mf_feed_continuation(runtime->graph, runtime->executor, prompt->id, (int32_t)prompt->count, 0, &step);
    enum mf_status status = mf_executor_run(runtime->executor, generator->prefill.program, &step, error);
    if (status != MF_OK)
        return status;
    int32_t token = *(const int32_t *)mf_executor_data(runtime->executor, generator->prefill.next_token);
    for (int32_t made = 0; !ends(runtime, token);) {
        status = append(answer, token, error);
        if (status != MF_OK || ++made == generator->max_new)
            return status;
        mf_feed_continuation(runtime->graph, runtime->executor, &token, 1, (int32_t)prompt->count + made - 1,
                             &step);
        status = mf_executor_run(runtime->executor, generator->decode.program, &step, error);
        if (status != MF_OK)
            return status;
        token = *(const int32_t *)mf_executor_data(runtime->executor, generator->decode.next_token);
    }
    return MF_OK;
}
