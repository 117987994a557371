/* The provider ABI: how a provider of models reaches this program and how this program reaches it.
 *
 * A provider gives a model as programs + weights + policy (providers/models/model.h) and its tokenizer;
 * strategies do not know who made them. One entry symbol, `mf_provider_entry`; built-in providers have the
 * same entry under names of their own and use the same host table, nothing else of the host.
 *
 * Structs begin with their size and grow only at the end: a member lies outside when the size given is
 * smaller. Enum values are fixed for ever. No CUDA type crosses. Strings are UTF-8 and borrowed for the call.
 * All calls come from one thread, except `cancelled` and `log` of the host table (any thread). */
#ifndef MF_PROVIDERS_PROVIDER_H
#define MF_PROVIDERS_PROVIDER_H

#include "common/error.h"
#include "kernels/quantize.h"
#include "kernels/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MF_PROVIDER_ABI = 1, MF_PROVIDER_NAME_BYTES = 33 };

struct mf_model;            /* providers/models/model.h */
struct mf_tokenizer;        /* providers/tokenizer/tokenizer.h */
struct mf_provider_context; /* the host's; a provider only hands it back */

enum mf_device_kind { MF_DEVICE_CPU = 0, MF_DEVICE_CUDA = 1 };

struct mf_device {
    uint32_t size;
    enum mf_device_kind kind;
};

enum mf_capability_level {
    MF_CAPABILITY_UNSUPPORTED = 0,
    MF_CAPABILITY_EXPERIMENTAL = 1,
    MF_CAPABILITY_LIMITED = 2,
    MF_CAPABILITY_SUPPORTED = 3
};

/* One row; "*" matches every name. The first row that matches counts; none: unsupported. */
struct mf_capability {
    uint32_t size;
    enum mf_capability_level level;
    const char *architecture, *task, *strategy; /* "llama", "text-generation", "sft" */
    const char *reason;                         /* why, in a sentence without a full stop; never NULL */
};

/* Rows live as long as the provider. `stride` is the provider's sizeof(struct mf_capability). */
struct mf_capabilities {
    uint32_t size;
    uint32_t stride;
    const struct mf_capability *row;
    size_t count;
};

struct mf_model_reference {
    uint32_t size;
    const char *model_id; /* a Hugging Face model folder; to validate_model_access also "organisation/name" or
                             "hf://organisation/name@revision" on a hub */
    const char *revision; /* of a hub's model: branch, tag or commit; NULL: the default */
};

enum mf_model_class { MF_MODEL_CAUSAL_LM = 0 };

struct mf_load_options {
    uint32_t size;
    struct mf_model_reference reference;
    enum mf_model_class model_class;
    enum mf_quantization quantization;
    enum mf_dtype compute_dtype;        /* MF_F32 or MF_BF16: what weights and activations are computed in */
    const char *const *provider_config; /* pairs key, value, then NULL; NULL for none */
    bool nested_quantization;           /* NF4, FP4: the scales are quantised too */
};

/* What the host offers; valid for the life of the process. */
struct mf_host_api {
    uint32_t size, abi_version;
    /* mf_error_set: fills *error and returns `status`. */
    enum mf_status (*fail)(struct mf_error *error, enum mf_status status, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
    void (*log)(struct mf_provider_context *context, const char *message);
    /* The job is to end: return MF_ERROR_CANCELLED soon. */
    bool (*cancelled)(struct mf_provider_context *context);
    /* A Hugging Face folder or hub id: is everything there, and may it be read? */
    enum mf_status (*check_folder)(struct mf_provider_context *context,
                                   const struct mf_model_reference *reference, struct mf_error *error);
    /* Description, weights and builders of a Hugging Face folder, with no fusing. */
    enum mf_status (*open_model)(struct mf_provider_context *context, const struct mf_load_options *options,
                                 struct mf_model **out, struct mf_error *error);
    enum mf_status (*open_tokenizer)(struct mf_provider_context *context,
                                     const struct mf_model_reference *reference, struct mf_tokenizer **out,
                                     struct mf_error *error);
};

struct mf_provider {
    uint32_t size, abi_version;
    /* [a-z0-9_-]{1,32} */
    const char *(*get_provider_name)(void);
    enum mf_status (*capabilities)(const struct mf_device *device, struct mf_capabilities *out,
                                   struct mf_error *error);
    enum mf_status (*validate_model_access)(struct mf_provider_context *context,
                                            const struct mf_model_reference *reference,
                                            struct mf_error *error);
    /* *out is closed by the caller with mf_model_close. */
    enum mf_status (*load_model)(struct mf_provider_context *context, const struct mf_load_options *options,
                                 struct mf_model **out, struct mf_error *error);
    /* *out is closed by the caller with mf_tokenizer_close. */
    enum mf_status (*load_tokenizer)(struct mf_provider_context *context,
                                     const struct mf_model_reference *reference, struct mf_tokenizer **out,
                                     struct mf_error *error);
};

/* NULL when the provider cannot work with this host. The result lives as long as the process. */
typedef const struct mf_provider *mf_provider_entry_function(uint32_t host_abi,
                                                             const struct mf_host_api *host);

#endif
