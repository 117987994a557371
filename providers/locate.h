/* Where a model's files are on this machine. */
#ifndef MF_PROVIDERS_LOCATE_H
#define MF_PROVIDERS_LOCATE_H

#include "providers/hub.h"
#include "providers/registry.h"

struct mf_model_location {
    char *folder;                     /* freed by mf_model_location_free() */
    char commit[MF_HUB_COMMIT_BYTES]; /* of a hub's model; "" for a folder */
};

/* A folder is itself; a hub's id (providers/hub.h) is downloaded where the cache lacks it. Statuses as
 * mf_hub_parse() and mf_hub_snapshot(). */
enum mf_status mf_model_locate(struct mf_provider_context *context,
                               const struct mf_model_reference *reference, struct mf_model_location *location,
                               struct mf_error *error);
void mf_model_location_free(struct mf_model_location *location); /* a zeroed one too */

/* Can the model be used, before anything is loaded or downloaded? A folder by mf_folder_check(), a hub's id
 * by mf_hub_check(). */
enum mf_status mf_model_check(struct mf_provider_context *context, const struct mf_model_reference *reference,
                              struct mf_error *error);
/* The same of a GGUF file of a hub: hf://organisation/name/FILE.gguf@revision. */
enum mf_status mf_model_check_gguf(struct mf_provider_context *context, const char *name,
                                   struct mf_error *error);

#endif
