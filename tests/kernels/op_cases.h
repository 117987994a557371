/* The cases that every backend's kernels must pass (op_cases.c). */
#ifndef MF_TESTS_OP_CASES_H
#define MF_TESTS_OP_CASES_H

#include "kernels/kernel.h"

/* The index-th backend under test, which the cases destroy; NULL: there are no more. */
typedef struct mf_backend *op_cases_backend(int index);
void op_cases_use(op_cases_backend *open);
/* Failed cases. */
int op_cases_run(void);

#endif
