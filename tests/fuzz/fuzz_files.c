/* Files for fuzzing entries whose code reads files. */
#include "common/files.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[64], path[512];

static void remove_folder(void) {
    struct mf_error error;
    if (mf_tree_remove(folder, &error) != MF_OK)
        fprintf(stderr, "%s\n", error.message);
}

const char *fuzz_path(const char *name) {
    if (!*folder) {
        snprintf(folder, sizeof folder, "/tmp/mf-fuzz-XXXXXX");
        if (!mkdtemp(folder) || atexit(remove_folder))
            abort();
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

const char *fuzz_put(const char *name, const void *data, size_t size) {
    FILE *file = fopen(fuzz_path(name), "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file))
        abort();
    return path;
}

const char *fuzz_copy(const char *from, const char *name) {
    char source[1024], *data;
    size_t size;
    struct mf_error error;
    snprintf(source, sizeof source, "%s/%s", MF_SOURCE_FOLDER, from);
    if (mf_file_read(source, 64 << 20, &data, &size, &error)) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    fuzz_put(name, data, size);
    free(data);
    return path;
}
