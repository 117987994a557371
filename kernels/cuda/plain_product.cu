#include "kernels/cuda/device.cuh"
extern "C" {
#include "kernels/cuda/gemm.h"
}

namespace {

enum { TILE = 16 };

/* One thread an element of C; tiles of A and B in shared memory, summed along K in order. */
template <typename T, typename C> __global__ void product(mf_cuda_product p) {
    __shared__ float a[TILE][TILE + 1], b[TILE][TILE + 1];
    const int64_t n = (int64_t)blockIdx.x * TILE + threadIdx.x, m = (int64_t)blockIdx.y * TILE + threadIdx.y;
    const int64_t m0 = (int64_t)blockIdx.y * TILE, n0 = (int64_t)blockIdx.x * TILE;
    float sum = 0;
    for (int64_t k0 = 0; k0 < p.K; k0 += TILE) {
        const int64_t ax = p.a_transposed ? threadIdx.y : threadIdx.x, ay = p.a_transposed ? threadIdx.x : threadIdx.y;
        const int64_t bx = p.b_transposed ? threadIdx.y : threadIdx.x, by = p.b_transposed ? threadIdx.x : threadIdx.y;
        /* a[row of C][k], b[k][column of C]; neighbours in a warp read neighbours in memory */
        const int64_t am = m0 + ay, ak = k0 + ax, bk = k0 + by, bn = n0 + bx;
        a[ay][ax] = am < p.M && ak < p.K
                        ? mf::as_f32(((const T *)p.a)[p.a_transposed ? ak * p.a_row + am : am * p.a_row + ak])
                        : 0.0f;
        b[by][bx] = bk < p.K && bn < p.N
                        ? mf::as_f32(((const T *)p.b)[p.b_transposed ? bn * p.b_row + bk : bk * p.b_row + bn])
                        : 0.0f;
        __syncthreads();
#pragma unroll
        for (int k = 0; k < TILE; k++)
            sum += a[threadIdx.y][k] * b[k][threadIdx.x];
        __syncthreads();
    }
    if (m >= p.M || n >= p.N)
        return;
    sum *= p.alpha;
    if (p.bias)
        sum += mf::as_f32(((const C *)p.bias)[n]);
    if (p.c0)
        sum += mf::as_f32(((const C *)p.c0)[m * p.c0_row + n]);
    ((C *)p.c)[m * p.c_row + n] = mf::from_f32<C>(sum);
}

} // namespace

extern "C" enum mf_status mf_cuda_plain_product(const struct mf_cuda_backend *backend,
                                                const struct mf_cuda_product *p, struct mf_error *error) {
    const dim3 grid((unsigned)((p->N + TILE - 1) / TILE), (unsigned)((p->M + TILE - 1) / TILE));
    const dim3 block(TILE, TILE);
    if (grid.y > mf::MOST_BLOCKS)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED, "a matrix product of %lld rows is too large",
                            (long long)p->M);
    if (p->dtype == MF_F32)
        product<float, float><<<grid, block, 0, backend->stream>>>(*p);
    else if (p->c_dtype == MF_F32)
        product<__nv_bfloat16, float><<<grid, block, 0, backend->stream>>>(*p);
    else
        product<__nv_bfloat16, __nv_bfloat16><<<grid, block, 0, backend->stream>>>(*p);
    return mf_cuda_check(cudaGetLastError(), "a matrix product", error);
}
