#include "kernels/cpu/instruction_set.h"
#include <string.h>

/* Narrowest first. x86-64-v3 and -v4 are what the sources are compiled for. */
static bool runs_here(const char *name) {
    __builtin_cpu_init();
    bool avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (strcmp(name, "avx2") == 0)
        return avx2;
    if (strcmp(name, "avx512") == 0)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    return true;
}

static const struct mf_instruction_set sets[] = {
    {"sse", mf_fast_kernels_sse}, {"avx2", mf_fast_kernels_avx2}, {"avx512", mf_fast_kernels_avx512}};
enum { SETS = sizeof sets / sizeof sets[0] };

struct mf_instruction_set mf_instruction_set_choose(void) {
    int best = SETS - 1;
    while (!runs_here(sets[best].name))
        best--;
    return sets[best];
}

struct mf_instruction_set mf_instruction_set_find(const char *name) {
    for (int i = 0; i < SETS; i++)
        if (strcmp(sets[i].name, name) == 0 && runs_here(name))
            return sets[i];
    return (struct mf_instruction_set){name, NULL};
}
