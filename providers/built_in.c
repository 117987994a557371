#include "providers/built_in.h"

int mf_built_in_capabilities(const struct mf_host_api *host, const struct mf_built_in *own,
                             const struct mf_device *device, struct mf_capabilities *out,
                             struct mf_error *error) {
    if (device->kind != MF_DEVICE_CPU && device->kind != MF_DEVICE_CUDA)
        return host->fail(error, "provider_unavailable", "%s: this version computes on CPUs and CUDA GPUs",
                          own->name);
    out->stride = sizeof(struct mf_capability); /* the same programs on both, so the same rows */
    out->row = own->row;
    out->count = own->rows;
    return MF_PROVIDER_OK;
}

int mf_built_in_load_model(const struct mf_host_api *host, const struct mf_built_in *own,
                           struct mf_provider_context *context, const struct mf_load_options *options,
                           struct mf_model **out, struct mf_error *error) {
    if (options->provider_config[0])
        return host->fail(error, "invalid_field", "provider_config.%s: %s has no such setting (it has none)",
                          options->provider_config[0], own->name);
    const int status = host->check_model(context, options->reference, error);
    if (status)
        return status;
    if (host->cancelled(context))
        return host->fail(error, "cancelled", "cancelled while loading the model");
    host->log(context, "opening the model folder");
    struct mf_load_options own_options = *options;
    own_options.size = sizeof own_options;
    own_options.fuse = own->fuse ? 1 : 0;
    return host->open_model(context, &own_options, out, error);
}
