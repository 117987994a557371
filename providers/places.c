#include "providers/places.h"

#include "common/files.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum mf_status mf_providers_folder(char **folder, struct mf_error *error) {
    const char *given = getenv("MODELFORGE_TRAINER_PROVIDERS_FOLDER");
    char path[PATH_MAX];
    if (given && *given) {
        *folder = strdup(given);
    } else {
        ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
        path[length > 0 ? length : 0] = 0;
        for (int up = 0; up < 2; up++) { /* the program's name, then its folder's */
            char *slash = strrchr(path, '/');
            if (slash)
                *slash = 0;
        }
        *folder = mf_path_join(path, "lib/modelforge/providers");
    }
    return *folder ? MF_OK : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a path");
}

bool mf_provider_is_trusted(const char *name) {
    const char *list = getenv("MODELFORGE_TRAINER_PROVIDERS_TRUSTED");
    const size_t length = strlen(name);
    if (!list)
        list = "gguf"; /* it is shipped */
    while (list && *list && length) {
        list += strspn(list, ", ");
        const size_t item = strcspn(list, ", ");
        if (item == length && !strncmp(list, name, length))
            return true;
        list += item;
    }
    return false;
}

const char *mf_providers_user(void) {
    const char *user = getenv("MODELFORGE_TRAINER_PROVIDERS_USER");
    return user && *user ? user : NULL;
}
