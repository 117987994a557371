/* C (M, N) = or += A (M, K) · B (K, N) for blocks that fit in cache, one thread, f32.
 *
 * A is read by broadcast, so its strides are free (a transposed A costs nothing); the rows of B and C are
 * contiguous. Attention and the adapters' small products are built from this. The order of the sum over K is
 * fixed: k = 0, 1, ... one product at a time for each element, whatever M and N are, so a result does not
 * depend on how the caller cut its blocks. Private to kernels/cpu. */
#ifndef MF_KERNELS_CPU_BLOCK_PRODUCT_H
#define MF_KERNELS_CPU_BLOCK_PRODUCT_H

#include "kernels/cpu/simd.h"

struct mf_block {
    const float *a; /* (M, K) */
    ptrdiff_t a_row, a_column;
    const float *b; /* (K, N), rows b_row apart */
    ptrdiff_t b_row;
    float *c; /* (M, N), rows c_row apart */
    ptrdiff_t c_row;
};

/* One register tile: `rows` x `vectors` accumulators; both are constants after inlining. */
static inline __attribute__((always_inline)) void mf_block_tile(const struct mf_block *block, ptrdiff_t K,
                                                                int rows, int vectors, int accumulate) {
    mf_lanes sum[8][4];
    const float *a = block->a, *b = block->b;
    MF_UNROLL
    for (int i = 0; i < rows; i++)
        MF_UNROLL
    for (int j = 0; j < vectors; j++)
        sum[i][j] = accumulate ? mf_lanes_load(block->c + i * block->c_row + j * MF_LANES) : (mf_lanes){0};
    for (ptrdiff_t k = 0; k < K; k++) {
        mf_lanes right[4];
        MF_UNROLL
        for (int j = 0; j < vectors; j++)
            right[j] = mf_lanes_load(b + k * block->b_row + j * MF_LANES);
        MF_UNROLL
        for (int i = 0; i < rows; i++) {
            mf_lanes left = mf_lanes_all(a[i * block->a_row + k * block->a_column]);
            MF_UNROLL
            for (int j = 0; j < vectors; j++)
                sum[i][j] += left * right[j];
        }
    }
    MF_UNROLL
    for (int i = 0; i < rows; i++)
        MF_UNROLL
    for (int j = 0; j < vectors; j++)
        mf_lanes_store(block->c + i * block->c_row + j * MF_LANES, sum[i][j]);
}

/* The columns that do not fill a vector, in the same order of additions. */
static inline void mf_block_edge(const struct mf_block *block, ptrdiff_t M, ptrdiff_t N, ptrdiff_t K,
                                 int accumulate) {
    for (ptrdiff_t i = 0; i < M; i++) {
        float *restrict c = block->c + i * block->c_row;
        if (!accumulate)
            for (ptrdiff_t j = 0; j < N; j++)
                c[j] = 0.0f;
        for (ptrdiff_t k = 0; k < K; k++) {
            float left = block->a[i * block->a_row + k * block->a_column];
            const float *b = block->b + k * block->b_row;
            for (ptrdiff_t j = 0; j < N; j++)
                c[j] += left * b[j];
        }
    }
}

/* One tile, and on to the rows below it. */
static inline __attribute__((always_inline)) void mf_block_step(struct mf_block *block, ptrdiff_t K, int rows,
                                                                int vectors, int accumulate) {
    mf_block_tile(block, K, rows, vectors, accumulate);
    block->a += rows * block->a_row;
    block->c += rows * block->c_row;
}

static inline __attribute__((always_inline)) void mf_block_rows(struct mf_block block, ptrdiff_t M,
                                                                ptrdiff_t K, int vectors, int accumulate) {
    ptrdiff_t i = 0;
    const int tall = MF_LANES == 16 ? (vectors > 2 ? 6 : 8) : (vectors > 1 ? 4 : 8);
    for (; i + tall <= M; i += tall)
        mf_block_step(&block, K, tall, vectors, accumulate);
    for (; i + 2 <= M; i += 2)
        mf_block_step(&block, K, 2, vectors, accumulate);
    if (i < M)
        mf_block_step(&block, K, 1, vectors, accumulate);
}

static __attribute__((noinline, unused)) void mf_block_product(const struct mf_block *whole, ptrdiff_t M,
                                                               ptrdiff_t N, ptrdiff_t K, int accumulate) {
    enum { WIDE = MF_LANES == 16 ? 4 : 2 };
    struct mf_block block = *whole;
    ptrdiff_t j = 0;
    for (; j + WIDE * MF_LANES <= N; j += WIDE * MF_LANES) {
        mf_block_rows(block, M, K, WIDE, accumulate);
        block.b += WIDE * MF_LANES;
        block.c += WIDE * MF_LANES;
    }
    for (; j + MF_LANES <= N; j += MF_LANES) {
        mf_block_rows(block, M, K, 1, accumulate);
        block.b += MF_LANES;
        block.c += MF_LANES;
    }
    if (j < N)
        mf_block_edge(&block, M, N - j, K, accumulate);
}

#endif
