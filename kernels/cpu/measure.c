/* What this machine gives: the rates that the ledger of a step is held against. */
#include "kernels/cpu/backend.h"
#include "kernels/cpu/fast_backend.h"
#include "kernels/cpu/threads.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS = MF_ROW_BLOCK, SIDE = 2048, ROUNDS = 8, COPY_BYTES = 64 << 20 };

/* Of the processors, shared out among the threads: what a machine that others use too would take alone. */
static double processor_seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return ((double)time.tv_sec + 1e-9 * (double)time.tv_nsec) / mf_threads();
}

/* Best of some rounds of (ROWS, SIDE) times (SIDE, SIDE). */
static enum mf_status measure_product(struct mf_gemm *gemm, bool bf16, char *memory, struct mf_rates *rates,
                                      struct mf_error *error) {
    const size_t width = bf16 ? 2 : 4, square = (size_t)SIDE * SIDE * width,
                 left = (size_t)ROWS * SIDE * width;
    struct mf_operand plain = {
        .data = memory, .K = SIDE, .N = SIDE, .k_stride = SIDE, .n_stride = 1, .bf16 = bf16};
    struct mf_operand packed;
    double best = 1e9;
    enum mf_status status = mf_gemm_pack(gemm, &plain, bf16, memory + square, &packed, error);
    struct mf_product product = {.M = ROWS,
                                 .a = memory,
                                 .a_row = SIDE,
                                 .a_column = 1,
                                 .b = &packed,
                                 .c = memory + 2 * square + left,
                                 .c_row = SIDE,
                                 .c_bf16 = bf16,
                                 .alpha = 1};
    for (int i = 0; i < ROUNDS && status == MF_OK; i++) {
        const double start = processor_seconds();
        status = mf_gemm_run(gemm, &product, error);
        const double seconds = processor_seconds() - start;
        best = seconds < best ? seconds : best;
    }
    rates->flop_per_second = 2.0 * ROWS * SIDE * SIDE / best;
    return status;
}

static void measure_copy(char *memory, struct mf_rates *rates) {
    enum { PIECE = 1 << 20, PIECES = COPY_BYTES / PIECE };
    double best = 1e9;
    for (int i = 0; i < ROUNDS; i++) {
        const double start = processor_seconds();
#pragma omp parallel for schedule(static)
        for (int piece = 0; piece < PIECES; piece++)
            memcpy(memory + COPY_BYTES + (size_t)piece * PIECE, memory + (size_t)piece * PIECE, PIECE);
        const double seconds = processor_seconds() - start;
        best = seconds < best ? seconds : best;
    }
    rates->bytes_per_second = 2.0 * COPY_BYTES / best;
}

enum mf_status mf_cpu_measure(struct mf_backend *backend, enum mf_dtype dtype, struct mf_rates *rates,
                              struct mf_error *error) {
    *rates = (struct mf_rates){0};
    if (strcmp(backend->name, "cpu") != 0)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED, "the %s backend has no rates",
                            backend->name);
    char *memory = aligned_alloc(64, 2 * (size_t)COPY_BYTES);
    if (!memory)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to measure this machine");
    memset(memory, 0, 2 * (size_t)COPY_BYTES);
    const enum mf_status status =
        measure_product(((struct mf_fast_backend *)backend)->gemm, dtype == MF_BF16, memory, rates, error);
    if (status == MF_OK)
        measure_copy(memory, rates);
    free(memory);
    return status;
}
