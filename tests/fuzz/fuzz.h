/* A fuzzing entry: with clang and -DMODELFORGE_FUZZ=ON a libFuzzer target; otherwise fuzz_main.c drives it.
 */
#ifndef MF_TESTS_FUZZ_FUZZ_H
#define MF_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Takes any bytes; aborts (or a sanitizer does) when something is wrong. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* For what is read from files: "folder/name" in a folder of this process, which is removed at its end. The
 * path lives until the next call. */
const char *fuzz_path(const char *name);
/* Writes a file of that folder, replacing an older one; aborts when it cannot. Returns its fuzz_path(). */
const char *fuzz_put(const char *name, const void *data, size_t size);
/* The same with a copy of a file of the source tree ("tests/golden/..."). */
const char *fuzz_copy(const char *from, const char *name);

#endif
