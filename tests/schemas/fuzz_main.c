/* Drives a fuzzing entry where there is no libFuzzer: fuzz_NAME [-runs=N] [-seed=S] FILE... feeds each file,
 * then N mutations of files chosen by the seed. The run that fails is repeated by the same arguments. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "tests/schemas/fuzz.h"

enum { FILES = 64, LONGEST = 1 << 20 };

static struct {
    char *data;
    size_t size;
} corpus[FILES];
static size_t corpus_count;

/* splitmix64 */
static uint64_t next_random(uint64_t *seed) {
    uint64_t z = (*seed += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

/* Replaces, inserts, removes, cuts or repeats a few bytes; the buffer has room for 64 more. */
static size_t mutate(uint8_t *bytes, size_t size, uint64_t *seed) {
    for (uint64_t edits = 1 + next_random(seed) % 6; edits && size; edits--) {
        size_t at = next_random(seed) % size, length = 1 + next_random(seed) % 8;
        length = length < size - at ? length : size - at;
        switch (next_random(seed) % 5) {
        case 0:
            bytes[at] = (uint8_t)next_random(seed);
            break;
        case 1:
            bytes[at] ^= (uint8_t)(1U << next_random(seed) % 8);
            break;
        case 2:
            memmove(bytes + at, bytes + at + length, size - at - length);
            size -= length;
            break;
        case 3:
            memmove(bytes + at + length, bytes + at, size - at);
            size += length;
            break;
        default:
            if (next_random(seed) % 4 == 0)
                size = at;
            break;
        }
    }
    return size;
}

static void run_mutations(uint64_t runs, uint64_t seed) {
    for (uint64_t i = 0; i < runs && corpus_count; i++) {
        size_t file = next_random(&seed) % corpus_count, size = corpus[file].size;
        uint8_t *copy = malloc(size + 64);
        if (!copy)
            abort();
        memcpy(copy, corpus[file].data, size);
        size = mutate(copy, size, &seed);
        uint8_t *exact = malloc(size ? size : 1); /* so that a byte read too far shows */
        if (!exact)
            abort();
        memcpy(exact, copy, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        free(copy);
    }
}

int main(int argc, char **argv) {
    uint64_t runs = 0, seed = 1;
    for (int i = 1; i < argc; i++) {
        struct mf_error error;
        if (!strncmp(argv[i], "-runs=", 6)) {
            runs = strtoull(argv[i] + 6, NULL, 10);
        } else if (!strncmp(argv[i], "-seed=", 6)) {
            seed = strtoull(argv[i] + 6, NULL, 10);
        } else if (corpus_count < FILES) {
            if (mf_file_read(argv[i], LONGEST, &corpus[corpus_count].data, &corpus[corpus_count].size,
                             &error)) {
                fprintf(stderr, "%s\n", error.message);
                return 1;
            }
            LLVMFuzzerTestOneInput((const uint8_t *)corpus[corpus_count].data, corpus[corpus_count].size);
            corpus_count++;
        }
    }
    run_mutations(runs, seed);
    printf("%zu files, %llu mutations\n", corpus_count, (unsigned long long)runs);
    for (size_t i = 0; i < corpus_count; i++)
        free(corpus[i].data);
    return corpus_count ? 0 : 1;
}
