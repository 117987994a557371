/* The host table of the provider ABI (provider.h), filled in. */
#ifndef MF_PROVIDERS_HOST_H
#define MF_PROVIDERS_HOST_H

#include "providers/provider.h"

/* Static. */
const struct mf_host_api *mf_host(void);

/* open_source() of its graph table (builder.h). */
int mf_host_open_source(struct mf_provider_context *context, const struct mf_load_options *options,
                        const struct mf_model_source *source, struct mf_model **out, struct mf_error *error);

#endif
