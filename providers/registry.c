#include "providers/registry.h"

#include "common/log.h"
#include "providers/huggingface/huggingface.h"
#include "providers/locate.h"
#include "providers/models/model.h"
#include "providers/tokenizer/tokenizer.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* ---- what the host offers ---- */

static void host_log(struct mf_provider_context *context, const char *message) {
    (void)context;
    mf_log_info(message);
}

static bool host_cancelled(struct mf_provider_context *context) {
    return context && context->cancelled && context->cancelled(context->argument);
}

static enum mf_status host_check_folder(struct mf_provider_context *context,
                                        const struct mf_model_reference *reference, struct mf_error *error) {
    return mf_model_check(context, reference, error);
}

static enum mf_status host_open_model(struct mf_provider_context *context,
                                      const struct mf_load_options *options, struct mf_model **out,
                                      struct mf_error *error) {
    (void)context;
    return mf_model_open(options, out, error);
}

static enum mf_status host_open_tokenizer(struct mf_provider_context *context,
                                          const struct mf_model_reference *reference,
                                          struct mf_tokenizer **out, struct mf_error *error) {
    (void)context;
    return mf_tokenizer_open(reference->model_id, out, error);
}

static const struct mf_host_api host_api = {
    .size = sizeof host_api,
    .abi_version = MF_PROVIDER_ABI,
    .fail = mf_error_set,
    .log = host_log,
    .cancelled = host_cancelled,
    .check_folder = host_check_folder,
    .open_model = host_open_model,
    .open_tokenizer = host_open_tokenizer,
};

/* ---- the built-in providers ---- */

static mf_provider_entry_function *const entries[] = {
    mf_huggingface_entry,
};

enum { ENTRIES = sizeof entries / sizeof *entries };

static const struct mf_provider *providers[ENTRIES];
static size_t provider_count;
static pthread_once_t providers_once = PTHREAD_ONCE_INIT;

/* A provider that refuses this host, or speaks another version, is not there. */
static void enter_providers(void) {
    for (size_t i = 0; i < ENTRIES; i++) {
        const struct mf_provider *provider = entries[i](MF_PROVIDER_ABI, &host_api);
        if (provider && provider->size >= sizeof *provider && provider->abi_version == MF_PROVIDER_ABI)
            providers[provider_count++] = provider;
    }
}

size_t mf_provider_count(void) {
    pthread_once(&providers_once, enter_providers);
    return provider_count;
}

const struct mf_provider *mf_provider_at(size_t index) {
    return index < mf_provider_count() ? providers[index] : NULL;
}

enum mf_status mf_provider_find(const char *name, const struct mf_provider **out, struct mf_error *error) {
    char known[512] = "";
    *out = NULL;
    for (size_t i = 0; i < mf_provider_count(); i++) {
        const struct mf_provider *provider = mf_provider_at(i);
        const char *own = provider->get_provider_name();
        if (!strcmp(own, name)) {
            *out = provider;
            return MF_OK;
        }
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", own);
    }
    return mf_error_set(error, MF_ERROR_UNKNOWN_PROVIDER, "Unknown provider '%s'. Valid providers: %s", name,
                        known);
}

/* ---- capabilities ---- */

static bool covers(const char *pattern, const char *name) {
    return !strcmp(pattern, "*") || !strcmp(pattern, name);
}

enum mf_status mf_provider_capability(const struct mf_provider *provider, const struct mf_device *device,
                                      const char *architecture, const char *task, const char *strategy,
                                      enum mf_capability_level *level, const char **reason,
                                      struct mf_error *error) {
    struct mf_capabilities table = {.size = sizeof table};
    enum mf_status status = provider->capabilities(device, &table, error);
    if (status)
        return status;
    *level = MF_CAPABILITY_UNSUPPORTED;
    if (reason)
        *reason = "the provider does not know this combination";
    for (size_t i = 0; i < table.count; i++) {
        const struct mf_capability *row =
            (const struct mf_capability *)(const void *)((const char *)table.row + i * table.stride);
        if (!covers(row->architecture, architecture) || !covers(row->task, task) ||
            !covers(row->strategy, strategy))
            continue;
        *level = row->level;
        if (reason)
            *reason = row->reason;
        break;
    }
    return MF_OK;
}

enum mf_status mf_provider_require(const struct mf_provider *provider, const struct mf_device *device,
                                   const char *architecture, const char *task, const char *strategy,
                                   struct mf_error *error) {
    enum mf_capability_level level;
    const char *reason;
    enum mf_status status =
        mf_provider_capability(provider, device, architecture, task, strategy, &level, &reason, error);
    if (status || level > MF_CAPABILITY_UNSUPPORTED)
        return status;
    return mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED, "%s cannot train %s for %s with %s: %s",
                        provider->get_provider_name(), architecture, task, strategy, reason);
}

const char *mf_capability_level_name(enum mf_capability_level level) {
    static const char *const names[] = {"unsupported", "experimental", "limited", "supported"};
    return (unsigned)level < sizeof names / sizeof *names ? names[level] : "unsupported";
}
