/* Ops of plug-ins: struct mf_op_definition as a row of the engine (kernels/registered_ops.h). Private to
 * providers/. */
#ifndef MF_PROVIDERS_REGISTERED_H
#define MF_PROVIDERS_REGISTERED_H

#include "common/error.h"
#include "providers/provider.h"

/* What a definition lacks or has too much of is MF_ERROR_PROVIDER_UNAVAILABLE, by name. */
enum mf_status mf_registered_add(const struct mf_op_definition *definition, struct mf_error *error);

#endif
