/* A folder of a test's own, and files in it. */
#ifndef MF_TESTS_PROVIDERS_SCRATCH_H
#define MF_TESTS_PROVIDERS_SCRATCH_H

#include <stddef.h>

/* cmocka setup and teardown: makes an empty folder, removes it with everything in it. */
int scratch_make(void **state);
int scratch_remove(void **state);
/* "folder/name"; good until the next call of either. */
const char *scratch_path(const char *name);
const char *scratch_folder(void);
/* Writes a file of the folder, replacing an older one. */
void scratch_put(const char *name, const void *data, size_t size);
void scratch_puts(const char *name, const char *text);
/* Copies a file of the source tree into the folder under `name`. */
void scratch_copy(const char *from, const char *name);

#endif
