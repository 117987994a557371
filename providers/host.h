/* The host table of the provider ABI (provider.h), filled in. */
#ifndef MF_PROVIDERS_HOST_H
#define MF_PROVIDERS_HOST_H

#include "providers/provider.h"

/* Static. */
const struct mf_host_api *mf_host(void);

#endif
