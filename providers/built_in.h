/* What the providers that are built in have in common: they train model folders by the programs of models/,
 * and know nothing of the host but its table. Private to providers/. */
#ifndef MF_PROVIDERS_BUILT_IN_H
#define MF_PROVIDERS_BUILT_IN_H

#include "providers/provider.h"

#include <stdbool.h>
#include <stddef.h>

/* Rows of a capability table; the first that matches counts. */
#define MF_ROW(level, architecture, task, strategy, reason) \
    { sizeof(struct mf_capability), MF_CAPABILITY_##level, architecture, task, strategy, reason }
/* What no built-in provider does; to stand before all other rows. */
#define MF_ROWS_REFUSED                                                                             \
    MF_ROW(UNSUPPORTED, "*", "summarization", "*", "this version trains text-generation only"),     \
        MF_ROW(UNSUPPORTED, "*", "extractive-question-answering", "*",                              \
               "this version trains text-generation only"),                                         \
        MF_ROW(UNSUPPORTED, "*", "*", "dpo", "this version has the strategies sft and qlora only"), \
        MF_ROW(UNSUPPORTED, "*", "*", "rlhf", "this version has the strategies sft and qlora only")
/* One of the model types of models/architecture.c that golden values hold for, of make_models.py and
 * make_quantized.py. */
#define MF_ROWS_TRAINED(architecture, sft_reason, qlora_reason)            \
    MF_ROW(SUPPORTED, architecture, "text-generation", "sft", sft_reason), \
        MF_ROW(SUPPORTED, architecture, "text-generation", "qlora", qlora_reason)

struct mf_built_in {
    const char *name;
    const struct mf_capability *row;
    size_t rows;
    bool fuse; /* struct mf_load_options */
};

/* The provider's functions, but for the handing over of `host` and `own`: see struct mf_provider. */
int mf_built_in_capabilities(const struct mf_host_api *host, const struct mf_built_in *own,
                             const struct mf_device *device, struct mf_capabilities *out,
                             struct mf_error *error);
int mf_built_in_load_model(const struct mf_host_api *host, const struct mf_built_in *own,
                           struct mf_provider_context *context, const struct mf_load_options *options,
                           struct mf_model **out, struct mf_error *error);

/* A whole provider: its entry function `entry`, over the struct mf_built_in `own` of the file that this
 * stands in. */
#define MF_BUILT_IN_PROVIDER(entry, own)                                                                   \
    static const struct mf_host_api *host;                                                                 \
    static const char *get_provider_name(void) {                                                           \
        return own.name;                                                                                   \
    }                                                                                                      \
    static int capabilities(const struct mf_device *device, struct mf_capabilities *out,                   \
                            struct mf_error *error) {                                                      \
        return mf_built_in_capabilities(host, &own, device, out, error);                                   \
    }                                                                                                      \
    static int validate_model_access(struct mf_provider_context *context,                                  \
                                     const struct mf_model_reference *reference, struct mf_error *error) { \
        return host->check_model(context, reference, error);                                               \
    }                                                                                                      \
    static int load_model(struct mf_provider_context *context, const struct mf_load_options *options,      \
                          struct mf_model **out, struct mf_error *error) {                                 \
        return mf_built_in_load_model(host, &own, context, options, out, error);                           \
    }                                                                                                      \
    static int load_tokenizer(struct mf_provider_context *context,                                         \
                              const struct mf_model_reference *reference, struct mf_tokenizer **out,       \
                              struct mf_error *error) {                                                    \
        return host->open_tokenizer(context, reference, out, error);                                       \
    }                                                                                                      \
    static const struct mf_provider provider = {.size = sizeof provider,                                   \
                                                .abi_version = MF_PROVIDER_ABI,                            \
                                                .get_provider_name = get_provider_name,                    \
                                                .capabilities = capabilities,                              \
                                                .validate_model_access = validate_model_access,            \
                                                .load_model = load_model,                                  \
                                                .load_tokenizer = load_tokenizer};                         \
    const struct mf_provider *entry(uint32_t host_abi, const struct mf_host_api *host_api) {               \
        if (host_abi != MF_PROVIDER_ABI || host_api->size < sizeof *host_api)                              \
            return NULL;                                                                                   \
        host = host_api;                                                                                   \
        return &provider;                                                                                  \
    }

#endif
