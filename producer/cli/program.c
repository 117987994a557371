#include "producer/cli/program.h"

#include "common/files.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* `name` in `folder` when it can be run there; else NULL. The caller frees it. */
static char *program_in(const char *folder, const char *name) {
    char *path = mf_path_join(folder, name);
    if (path && access(path, X_OK) == 0)
        return path;
    free(path);
    return NULL;
}

static char *beside_this_program(const char *name) {
    char path[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0)
        return NULL;
    path[length] = 0;
    *strrchr(path, '/') = 0;
    return program_in(path, name);
}

static char *in_path(const char *name) {
    const char *given = getenv("PATH");
    char *list = strdup(given ? given : ""), *found = NULL;
    for (char *rest = NULL, *folder = list ? strtok_r(list, ":", &rest) : NULL; folder && !found;
         folder = strtok_r(NULL, ":", &rest))
        found = program_in(folder, name);
    free(list);
    return found;
}

char *mf_program_find(const char *name) {
    char *path = beside_this_program(name);
    return path ? path : in_path(name);
}
