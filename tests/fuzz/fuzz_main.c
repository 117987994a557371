/* Drives a fuzzing entry where there is no libFuzzer: fuzz_NAME [-runs=N] [-seed=S] [-keep=INPUT] FILE...
 * feeds each file, then N mutations of files chosen by the seed. The run that fails is repeated by the same
 * arguments; with -keep each input is written to INPUT before it is tried, so that the last one is at hand.
 * An input that takes longer than LONGEST_SECONDS ends the process by SIGALRM. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "tests/fuzz/fuzz.h"

enum { FILES = 64, LONGEST = 1 << 20, ROOM = 256, LONGEST_SECONDS = 20 };

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

/* Puts `length` bytes in the place of `old` bytes at `at`, as far as there is room; returns the new size. */
static size_t replace(uint8_t *bytes, size_t size, size_t room, size_t at, size_t old, const void *data,
                      size_t length) {
    if (size - old + length > room)
        return size;
    memmove(bytes + at + length, bytes + at + old, size - at - old);
    memcpy(bytes + at, data, length);
    return size - old + length;
}

/* The number in digits that begins at or after `at` becomes one that readers are often wrong about. */
static size_t replace_number(uint8_t *bytes, size_t size, size_t room, size_t at, uint64_t *seed) {
    static const char *const numbers[] = {"0",          "-1",         "1",
                                          "2147483647", "2147483648", "4294967296",
                                          "1e308",      "0.5",        "9223372036854775807",
                                          "1e-320",     "null",       "18446744073709551616",
                                          "\"7\"",      "[]",         "-9223372036854775808",
                                          "65535",      "{}",         "true"};
    while (at < size && (bytes[at] < '0' || bytes[at] > '9'))
        at++;
    size_t end = at;
    while (end < size && bytes[end] >= '0' && bytes[end] <= '9')
        end++;
    const char *number = numbers[next_random(seed) % (sizeof numbers / sizeof *numbers)];
    return at < end ? replace(bytes, size, room, at, end - at, number, strlen(number)) : size;
}

/* A stretch of a file of the corpus is put in. */
static size_t splice(uint8_t *bytes, size_t size, size_t room, size_t at, uint64_t *seed) {
    const size_t file = next_random(seed) % corpus_count;
    if (!corpus[file].size)
        return size;
    const size_t first = next_random(seed) % corpus[file].size, left = corpus[file].size - first;
    const size_t length = 1 + next_random(seed) % (left < 64 ? left : 64);
    return replace(bytes, size, room, at, 0, corpus[file].data + first, length);
}

/* Replaces, inserts, removes, cuts or repeats a few bytes. */
static size_t mutate(uint8_t *bytes, size_t size, size_t room, uint64_t *seed) {
    for (uint64_t edits = 1 + next_random(seed) % 6; edits && size; edits--) {
        size_t at = next_random(seed) % size, length = 1 + next_random(seed) % 8;
        length = length < size - at ? length : size - at;
        switch (next_random(seed) % 8) {
        case 0:
            bytes[at] = (uint8_t)next_random(seed);
            break;
        case 1:
            bytes[at] ^= (uint8_t)(1U << next_random(seed) % 8);
            break;
        case 2:
            size = replace(bytes, size, room, at, length, "", 0);
            break;
        case 3: {
            uint8_t repeated[8];
            memcpy(repeated, bytes + at, length);
            size = replace(bytes, size, room, at, 0, repeated, length);
            break;
        }
        case 4:
        case 5:
            size = replace_number(bytes, size, room, at, seed);
            break;
        case 6:
            size = splice(bytes, size, room, at, seed);
            break;
        default:
            if (next_random(seed) % 4 == 0)
                size = at;
            break;
        }
    }
    return size;
}

static void try_input(const uint8_t *data, size_t size, const char *keep) {
    FILE *file = keep ? fopen(keep, "wb") : NULL;
    if (file)
        fwrite(data, 1, size, file);
    if (keep && (!file || fclose(file)))
        abort();
    alarm(LONGEST_SECONDS);
    LLVMFuzzerTestOneInput(data, size);
    alarm(0);
}

static void run_mutations(uint64_t runs, uint64_t seed, const char *keep) {
    for (uint64_t i = 0; i < runs && corpus_count; i++) {
        size_t file = next_random(&seed) % corpus_count, size = corpus[file].size;
        uint8_t *copy = malloc(size + ROOM);
        if (!copy)
            abort();
        memcpy(copy, corpus[file].data, size);
        size = mutate(copy, size, size + ROOM, &seed);
        uint8_t *exact = malloc(size ? size : 1); /* so that a byte read too far shows */
        if (!exact)
            abort();
        memcpy(exact, copy, size);
        try_input(exact, size, keep);
        free(exact);
        free(copy);
    }
}

int main(int argc, char **argv) {
    uint64_t runs = 0, seed = 1;
    const char *keep = NULL;
    for (int i = 1; i < argc; i++) {
        struct mf_error error;
        if (!strncmp(argv[i], "-runs=", 6)) {
            runs = strtoull(argv[i] + 6, NULL, 10);
        } else if (!strncmp(argv[i], "-seed=", 6)) {
            seed = strtoull(argv[i] + 6, NULL, 10);
        } else if (!strncmp(argv[i], "-keep=", 6)) {
            keep = argv[i] + 6;
        } else if (corpus_count < FILES) {
            if (mf_file_read(argv[i], LONGEST, &corpus[corpus_count].data, &corpus[corpus_count].size,
                             &error)) {
                fprintf(stderr, "%s\n", error.message);
                return 1;
            }
            try_input((const uint8_t *)corpus[corpus_count].data, corpus[corpus_count].size, keep);
            corpus_count++;
        }
    }
    run_mutations(runs, seed, keep);
    printf("%zu files, %llu mutations\n", corpus_count, (unsigned long long)runs);
    for (size_t i = 0; i < corpus_count; i++)
        free(corpus[i].data);
    return corpus_count ? 0 : 1;
}
