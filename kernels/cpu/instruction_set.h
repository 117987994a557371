/* Which variant of the fast kernels runs here. Private to kernels/cpu. */
#ifndef MF_KERNELS_CPU_INSTRUCTION_SET_H
#define MF_KERNELS_CPU_INSTRUCTION_SET_H

#include "kernels/kernel.h"

/* One table for each instruction set the sources were compiled for, by enum mf_op; NULL: no fast kernel. */
extern const struct mf_kernel *const mf_fast_kernels_sse[MF_OPS];
extern const struct mf_kernel *const mf_fast_kernels_avx2[MF_OPS];
extern const struct mf_kernel *const mf_fast_kernels_avx512[MF_OPS];

struct mf_instruction_set {
    const char *name; /* "avx512": part of the numeric plan */
    const struct mf_kernel *const *kernels;
};

/* The widest that this processor (and its operating system) runs. Pure. */
struct mf_instruction_set mf_instruction_set_choose(void);
/* By name, for tests; kernels NULL when this processor cannot run it or there is none of that name. */
struct mf_instruction_set mf_instruction_set_find(const char *name);

#endif
