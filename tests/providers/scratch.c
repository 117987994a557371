#include "tests/providers/scratch.h"

#include "common/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

static char folder[64], path[256];

int scratch_make(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/mf-test-providers-XXXXXX");
    return mkdtemp(folder) ? 0 : 1;
}

int scratch_remove(void **state) {
    struct mf_error error;
    (void)state;
    return mf_tree_remove(folder, &error) != MF_OK;
}

const char *scratch_folder(void) {
    return folder;
}

const char *scratch_path(const char *name) {
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

void scratch_put(const char *name, const void *data, size_t size) {
    FILE *file = fopen(scratch_path(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

void scratch_puts(const char *name, const char *text) {
    scratch_put(name, text, strlen(text));
}

void scratch_copy(const char *from, const char *name) {
    struct mf_error error;
    char *data;
    size_t size;
    assert_int_equal(mf_file_read(from, 64 << 20, &data, &size, &error), MF_OK);
    scratch_put(name, data, size);
    free(data);
}
