/* Where providers that are not built in lie, and how far they are trusted. A worker says so to its trainer by
 * the environment (its options providers.*); a trainer that runs by itself may be told the same way. */
#ifndef MF_PROVIDERS_PLACES_H
#define MF_PROVIDERS_PLACES_H

#include "common/error.h"

#include <stdbool.h>

/* MODELFORGE_TRAINER_PROVIDERS_FOLDER, else ../lib/modelforge/providers from this program's folder: it holds
 * libmodelforge-provider-NAME.so and NAME.conf. It need not be there. *folder is freed by the caller. */
enum mf_status mf_providers_folder(char **folder, struct mf_error *error);

/* MODELFORGE_TRAINER_PROVIDERS_TRUSTED, names between commas, "gguf" where it is not set: these may run as
 * the user of this process. Every other one runs as another user, or not at all. */
bool mf_provider_is_trusted(const char *name);

/* MODELFORGE_TRAINER_PROVIDERS_USER: the user that others run as; NULL: none is named. */
const char *mf_providers_user(void);

#endif
