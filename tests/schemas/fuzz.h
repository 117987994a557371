/* A fuzzing entry: with clang and -DMODELFORGE_FUZZ=ON a libFuzzer target; otherwise fuzz_main.c drives it.
 */
#ifndef MF_TESTS_SCHEMAS_FUZZ_H
#define MF_TESTS_SCHEMAS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Takes any bytes; aborts (or a sanitizer does) when something is wrong. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
