/* What the files of op_cases share. */
#ifndef MF_TESTS_OP_COMPARE_H
#define MF_TESTS_OP_COMPARE_H

#include "tests/kernels/kernel_bench.h"

#define DIM(...) ((const int64_t[]){__VA_ARGS__})

/* Runs what was made on the oracle and, twice, on every backend under test. Fails the test where an output is
 * farther from the oracle's than `factor` times what rounding to its dtype is worth, or differs between the
 * two runs. */
void op_compare(struct bench *made, enum mf_dtype dtype, double factor);

/* The cases of gradients of whole weights, of update programs, and of weights in few bits. Failed ones. */
int op_cases_weights_run(void);
int op_cases_update_run(void);
int op_cases_quantized_run(void);

#endif
