/* Providers by name: the built-in ones, then what the folder for providers (places.h) has of that name: the
 * shared library libmodelforge-provider-NAME.so, or NAME.conf for a program of its own (external.h). */
#ifndef MF_PROVIDERS_REGISTRY_H
#define MF_PROVIDERS_REGISTRY_H

#include "common/error.h"
#include "providers/provider.h"

#include <jansson.h>
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
    /* May the job read this model's folder or file? NULL: all. */
    enum mf_status (*allow)(void *argument, const char *path, struct mf_error *error);
    void *allow_argument;
    const char *scratch;         /* where folders for this job are made; NULL: TMPDIR, or /tmp */
    struct mf_made_folder *made; /* those that were (made_folder.h); removed by mf_made_folders_remove() */
};

/* A library of this name is tried in a child process, then loaded, once (plugin.h).
 * MF_ERROR_UNKNOWN_PROVIDER "Unknown provider 'xyz'. Valid providers: huggingface" (as mf_error_format prints
 * it: "ProviderError: Unknown provider ..."), MF_ERROR_PROVIDER_UNAVAILABLE for a library that is refused,
 * with the reason and the same list, MF_ERROR_PROVIDER_UNSUPPORTED for a program, which
 * only `modelforge-trainer run` works with. *out is valid as long as the process. Any thread. */
enum mf_status mf_provider_find(const char *name, const struct mf_provider **out, struct mf_error *error);

/* Whether this name is that of a program of its own: neither built in nor a library, and there is a
 * NAME.conf. */
bool mf_provider_is_program(const char *name);

/* Which library a provider came from, and its sha256 when it was loaded: of a run, a part of its provenance.
 * Both live as long as the process; false: it is built in. Any thread. */
bool mf_provider_library(const struct mf_provider *provider, const char **path, const char **sha256);

/* ---- what is there ---- */

enum mf_provider_kind { MF_PROVIDER_BUILT_IN, MF_PROVIDER_LIBRARY, MF_PROVIDER_PROGRAM };

struct mf_provider_listing {
    char name[MF_PROVIDER_NAME_BYTES];
    enum mf_provider_kind kind;
    char *path;            /* of a library or of NAME.conf, else NULL */
    char *version;         /* of a program that is available, as it says, else NULL */
    int64_t max_gpus;      /* that one run may have: 1, or what a program says */
    json_t *devices;       /* as mf_plugin_describe() gives them; NULL: it cannot be used */
    struct mf_error error; /* why not */
};

/* Built-in ones first, then libraries by name, each tried in a child process, then programs by name, asked
 * for their capabilities several at once: one that hangs holds up nobody but itself. As many as there are.
 * Freed with mf_provider_list_free. */
enum mf_status mf_provider_list(struct mf_provider_listing **out, size_t *count, struct mf_error *error);
void mf_provider_list_free(struct mf_provider_listing *list, size_t count);

/* ---- calling one ----
 * What a provider fails with is taken over; one that fails without saying why, or succeeds without a result,
 * is MF_ERROR_PROVIDER_UNAVAILABLE. `context` may be NULL. */
enum mf_status mf_provider_validate_model_access(const struct mf_provider *provider,
                                                 struct mf_provider_context *context,
                                                 const struct mf_model_reference *reference,
                                                 struct mf_error *error);
/* *out is closed with mf_model_close(). */
enum mf_status mf_provider_load_model(const struct mf_provider *provider, struct mf_provider_context *context,
                                      const struct mf_load_options *options, struct mf_model **out,
                                      struct mf_error *error);
/* *out is closed with mf_tokenizer_close(). */
enum mf_status mf_provider_load_tokenizer(const struct mf_provider *provider,
                                          struct mf_provider_context *context,
                                          const struct mf_model_reference *reference,
                                          struct mf_tokenizer **out, struct mf_error *error);

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
