#include "kernels/cuda/device.cuh"

namespace {

template <typename T>
__global__ void rope_table(const void *frequency, uint8_t dtype, int64_t half, const int32_t *positions,
                           int64_t tokens, float factor, T *table, int64_t row) {
    const int64_t all = tokens * half;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t t = i / half, c = i % half;
        const float angle = (float)positions[t] * mf::load_any(frequency, dtype, c);
        table[t * row + c] = mf::from_f32<T>(factor * cosf(angle));
        table[t * row + half + c] = mf::from_f32<T>(factor * sinf(angle));
    }
}

enum mf_status run_rope_table(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &frequency = call->in[0]; // (R/2) f32
    const mf_array &positions = call->in[1]; // (T)
    const mf_array &table = call->out[0];    // (T, R): cosines, then sines
    const int64_t work = positions.dim[0] * frequency.dim[0];
    if (work == 0)
        return MF_OK;
    MF_WITH_TYPE(table.dtype, T,
                 rope_table<T><<<mf::blocks_for(work, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                     frequency.data, frequency.dtype, frequency.dim[0], (const int32_t *)positions.data,
                     positions.dim[0], call->node->a.rope_table.factor, (T *)table.data, table.stride[0]));
    return mf_cuda_launched(call, error);
}

/* A thread a pair (i, i + half) or a column that passes. */
template <typename T>
__global__ void rope(const T *x, int64_t x_row, int64_t x_head, int64_t tokens, int64_t H, int64_t d,
                     const T *table, int64_t table_row, int64_t half, float sign, T *y, int64_t y_row,
                     int64_t y_head) {
    const int64_t items = d - half, all = tokens * H * items; /* half pairs, then d - 2 half single columns */
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < all;
         n += (int64_t)gridDim.x * blockDim.x) {
        const int64_t i = n % items, h = n / items % H, t = n / items / H;
        const T *from = x + t * x_row + h * x_head;
        T *to = y + t * y_row + h * y_head;
        if (i >= half) {
            to[i + half] = from[i + half];
            continue;
        }
        const float cosine = mf::as_f32(table[t * table_row + i]);
        const float sine = sign * mf::as_f32(table[t * table_row + half + i]);
        const float a = mf::as_f32(from[i]), b = mf::as_f32(from[half + i]);
        to[i] = mf::from_f32<T>(a * cosine - b * sine);
        to[half + i] = mf::from_f32<T>(b * cosine + a * sine);
    }
}

/* All columns turn, a thread W pairs: the same products. */
template <typename T, int W>
__global__ void rope_packs(const T *x, int64_t x_row, int64_t x_head, int64_t tokens, int64_t H, const T *table,
                           int64_t table_row, int64_t half, float sign, T *y, int64_t y_row, int64_t y_head) {
    const int packs = (int)(half / W);
    const int64_t all = tokens * H * packs;
    for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < all; n += (int64_t)gridDim.x * blockDim.x) {
        const int i = (int)(n % packs) * W;
        const int64_t row = n / packs, h = row % H, t = row / H;
        const T *from = x + t * x_row + h * x_head, *angle = table + t * table_row;
        T *to = y + t * y_row + h * y_head;
        float cosine[W], sine[W], a[W], b[W], left[W], right[W];
        mf::load<T, W>(angle + i, cosine);
        mf::load<T, W>(angle + half + i, sine);
        mf::load<T, W>(from + i, a);
        mf::load<T, W>(from + half + i, b);
#pragma unroll
        for (int w = 0; w < W; w++) {
            left[w] = a[w] * cosine[w] - b[w] * (sign * sine[w]);
            right[w] = b[w] * cosine[w] + a[w] * (sign * sine[w]);
        }
        mf::store<T, W>(to + i, left);
        mf::store<T, W>(to + half + i, right);
    }
}

enum mf_status run_rope(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &x = call->in[0];     // (T, H, d)
    const mf_array &table = call->in[1]; // (T, R)
    const mf_array &y = call->out[0];    // (T, H, d), may be x
    const int64_t half = table.dim[1] / 2, work = x.dim[0] * x.dim[1] * (x.dim[2] - half);
    if (work == 0)
        return MF_OK;
    const float sign = call->node->a.rope.inverse ? -1.0f : 1.0f;
    if (x.dim[2] == 2 * half && half % 8 == 0 && mf::packs<8>(x) && mf::packs<8>(y) && mf::packs<8>(table)) {
        MF_WITH_TYPE(x.dtype, T,
                     rope_packs<T, 8><<<mf::blocks_for(work / 8, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                         (const T *)x.data, x.stride[0], x.stride[1], x.dim[0], x.dim[1], (const T *)table.data,
                         table.stride[0], half, sign, (T *)y.data, y.stride[0], y.stride[1]));
        return mf_cuda_launched(call, error);
    }
    MF_WITH_TYPE(x.dtype, T,
                 rope<T><<<mf::blocks_for(work, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                     (const T *)x.data, x.stride[0], x.stride[1], x.dim[0], x.dim[1], x.dim[2],
                     (const T *)table.data, table.stride[0], half, sign,
                     (T *)y.data, y.stride[0], y.stride[1]));
    return mf_cuda_launched(call, error);
}

} // namespace

extern "C" {
const struct mf_kernel mf_cuda_rope_table[1] = {{run_rope_table, NULL, 0}};
const struct mf_kernel mf_cuda_rope[1] = {{run_rope, NULL, 0}};
}
