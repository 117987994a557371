#include "providers/locate.h"

#include "providers/folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct mf_hub_watch watch_of(const struct mf_provider_context *context) {
    struct mf_hub_watch watch = {0};
    if (context)
        watch =
            (struct mf_hub_watch){context->cancelled, context->progress, context->note, context->argument};
    return watch;
}

enum mf_status mf_model_locate(struct mf_provider_context *context,
                               const struct mf_model_reference *reference, struct mf_model_location *location,
                               struct mf_error *error) {
    const struct mf_hub_watch watch = watch_of(context);
    struct mf_hub_reference hub;
    *location = (struct mf_model_location){0};
    if (!mf_hub_is_id(reference->model_id)) {
        location->folder = strdup(reference->model_id);
        return location->folder ? MF_OK : mf_error_errno(error, ENOMEM, "%s", reference->model_id);
    }
    enum mf_status status = mf_hub_parse(reference->model_id, reference->revision, &hub, error);
    return status ? status : mf_hub_snapshot(&hub, &watch, &location->folder, location->commit, error);
}

void mf_model_location_free(struct mf_model_location *location) {
    free(location->folder);
    *location = (struct mf_model_location){0};
}

enum mf_status mf_model_check(struct mf_provider_context *context, const struct mf_model_reference *reference,
                              struct mf_error *error) {
    const struct mf_hub_watch watch = watch_of(context);
    struct mf_hub_reference hub;
    if (!mf_hub_is_id(reference->model_id))
        return mf_folder_check(reference, error);
    enum mf_status status = mf_hub_parse(reference->model_id, reference->revision, &hub, error);
    if (status == MF_OK && *hub.file)
        return mf_error_set(
            error, MF_ERROR_MODEL_NOT_FOUND,
            "model_name: %s is a GGUF file, which the provider gguf trains; this one takes a model "
            "folder, or hf://organisation/name",
            reference->model_id);
    return status ? status : mf_hub_check(&hub, &watch, error);
}

enum mf_status mf_model_check_gguf(struct mf_provider_context *context, const char *name,
                                   struct mf_error *error) {
    const struct mf_hub_watch watch = watch_of(context);
    struct mf_hub_reference hub;
    enum mf_status status = mf_hub_parse(name, NULL, &hub, error);
    if (status == MF_OK && !*hub.file)
        return mf_error_set(error, MF_ERROR_MODEL_NOT_FOUND,
                            "model_name: %s is a whole repository; name one GGUF file of it: %s/FILE.gguf",
                            name, name);
    return status ? status : mf_hub_check(&hub, &watch, error);
}
