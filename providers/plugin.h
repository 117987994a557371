/* Providers from shared libraries: whether one may be loaded, whether it behaves, and loading it.
 *
 * A library runs code while it is loaded, so it is first tried in a child process: what it breaks there (a
 * crash, a loop without end, a lie about itself) becomes an error with a text instead of the end of this
 * process. All errors are MF_ERROR_PROVIDER_UNAVAILABLE and name the file. */
#ifndef MF_PROVIDERS_PLUGIN_H
#define MF_PROVIDERS_PLUGIN_H

#include "common/error.h"
#include "providers/provider.h"

#include <jansson.h>

enum { MF_PLUGIN_MAX_CAPABILITIES = 4096, MF_PLUGIN_SECONDS = 10 };

/* What `provider` says of itself: {"cpu": {"available": true, "capabilities": [{architecture, task, strategy,
 * level, reason}, ...]}, "cuda": {"available": false, "code": ..., "reason": ...}}. Fails where its table
 * breaks the ABI. *out is a new reference. */
enum mf_status mf_plugin_describe(const struct mf_provider *provider, json_t **out, struct mf_error *error);

/* Checks that it is trusted (places.h), owners and modes of `path`, then loads it in a child process.
 * *devices (may be NULL) is what mf_plugin_describe() gave there, a new reference. */
enum mf_status mf_plugin_try(const char *name, const char *path, const struct mf_host_api *host,
                             json_t **devices, struct mf_error *error);

/* mf_plugin_try(), then loads the library into this process, for good. */
enum mf_status mf_plugin_load(const char *name, const char *path, const struct mf_host_api *host,
                              const struct mf_provider **out, struct mf_error *error);

#endif
