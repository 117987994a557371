/* Providers by name: the built-in ones. */
#ifndef MF_PROVIDERS_REGISTRY_H
#define MF_PROVIDERS_REGISTRY_H

#include "common/error.h"
#include "providers/provider.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the trainer gives a provider with every call. `cancelled` may be NULL; it is asked from any thread. */
struct mf_provider_context {
    bool (*cancelled)(void *argument);
    /* A download's state, and what the job's log should know; either may be NULL. */
    void (*progress)(void *argument, const char *file, int64_t done_bytes, int64_t total_bytes);
    void (*note)(void *argument, const char *text);
    void *argument;
};

/* MF_ERROR_UNKNOWN_PROVIDER "Unknown provider 'xyz'. Valid providers: huggingface" (as mf_error_format prints
 * it: "ProviderError: Unknown provider ..."). *out is static. Any thread. */
enum mf_status mf_provider_find(const char *name, const struct mf_provider **out, struct mf_error *error);

size_t mf_provider_count(void);
/* NULL from mf_provider_count() on. */
const struct mf_provider *mf_provider_at(size_t index);

/* What the provider can do with this combination on this device; *reason (may be NULL) is static. */
enum mf_status mf_provider_capability(const struct mf_provider *provider, const struct mf_device *device,
                                      const char *architecture, const char *task, const char *strategy,
                                      enum mf_capability_level *level, const char **reason,
                                      struct mf_error *error);

/* MF_OK, or MF_ERROR_PROVIDER_UNSUPPORTED with the reason when the level is unsupported. */
enum mf_status mf_provider_require(const struct mf_provider *provider, const struct mf_device *device,
                                   const char *architecture, const char *task, const char *strategy,
                                   struct mf_error *error);

const char *mf_capability_level_name(enum mf_capability_level level); /* "supported", "limited", ... */

#endif
