#include "kernels/cuda/activate.cuh"
#include "kernels/cuda/device.cuh"
extern "C" {
#include "kernels/cuda/convert.h"
}

#include "kernels/random.h"

namespace {

/* ---- dropout: a thread makes the four words of a quad of columns --------------------------------------------- */

__device__ void philox(const uint32_t counter[4], uint64_t key, uint32_t word[4]) { /* random.h, on the device */
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < MF_PHILOX_ROUNDS; round++) {
        const uint64_t product0 = (uint64_t)MF_PHILOX_MULTIPLIER_0 * c0,
                       product1 = (uint64_t)MF_PHILOX_MULTIPLIER_1 * c2;
        const uint32_t n0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)product1;
        c3 = (uint32_t)product0;
        c0 = n0;
        c2 = n2;
        k0 += MF_PHILOX_WEYL_0;
        k1 += MF_PHILOX_WEYL_1;
    }
    word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

__device__ uint64_t mixed(uint64_t value) { /* mf_random_mix */
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

template <typename T>
__global__ void dropout(const T *x, int64_t x_row, int64_t tokens, int64_t D, const int32_t *row,
                        const int32_t *position, uint32_t stream, uint32_t threshold, float scale,
                        const mf_step *step, T *y, int64_t y_row) {
    const uint64_t key = mixed(mixed(step->seed) ^ step->step);
    const int64_t quads = (D + 3) / 4, all = tokens * quads;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t t = i / quads, quad = i % quads;
        const uint32_t counter[4] = {(uint32_t)quad, (uint32_t)position[t], (uint32_t)row[t], stream};
        uint32_t word[4];
        philox(counter, key, word);
        for (int c = 0; c < 4 && quad * 4 + c < D; c++) {
            const float value = mf::as_f32(x[t * x_row + quad * 4 + c]);
            y[t * y_row + quad * 4 + c] = mf::from_f32<T>(word[c] >= threshold ? value * scale : 0.0f);
        }
    }
}

enum mf_status run_dropout(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &x = call->in[0];  // (T, D)
    const mf_array &y = call->out[0]; // (T, D), may be x
    const mf_dropout_attributes &a = call->node->a.dropout;
    const int64_t work = x.dim[0] * ((x.dim[1] + 3) / 4);
    if (work == 0)
        return MF_OK;
    MF_WITH_TYPE(x.dtype, T,
                 dropout<T><<<mf::blocks_for(work, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                     (const T *)x.data, x.stride[0], x.dim[0], x.dim[1], (const int32_t *)call->in[1].data,
                     (const int32_t *)call->in[2].data, a.stream, mf_dropout_threshold(a.rate),
                     mf_dropout_scale(a.rate), backend->step, (T *)y.data, y.stride[0]));
    return mf_cuda_launched(call, error);
}

/* ---- sums ---------------------------------------------------------------------------------------------------- */

template <typename T, int W>
__global__ void add(const T *a, mf::rows a_rows, const T *b, mf::rows b_rows, T *y, mf::rows y_rows) {
    const int64_t packs = y_rows.width / W, all = y_rows.count * packs;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t row = i / packs, column = i % packs * W;
        float left[W], right[W];
        mf::load<T, W>(a + mf::row_start(a_rows, row) + column, left);
        mf::load<T, W>(b + mf::row_start(b_rows, row) + column, right);
#pragma unroll
        for (int c = 0; c < W; c++)
            left[c] += right[c];
        mf::store<T, W>(y + mf::row_start(y_rows, row) + column, left);
    }
}

enum mf_status run_add(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &a = call->in[0], &b = call->in[1], &y = call->out[0];
    const int64_t work = mf_array_elements(&y);
    if (work == 0)
        return MF_OK;
    MF_WITH_TYPE(y.dtype, T, {
        constexpr int W = 16 / sizeof(T);
        if (mf::packs<W>(a) && mf::packs<W>(b) && mf::packs<W>(y))
            add<T, W><<<mf::blocks_for(work / W, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                (const T *)a.data, mf::rows_of(a), (const T *)b.data, mf::rows_of(b), (T *)y.data,
                mf::rows_of(y));
        else
            add<T, 1><<<mf::blocks_for(work, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                (const T *)a.data, mf::rows_of(a), (const T *)b.data, mf::rows_of(b), (T *)y.data,
                mf::rows_of(y));
    });
    return mf_cuda_launched(call, error);
}

template <typename T>
__global__ void add_columns(const T *part, int64_t part_row, int64_t width, const T *addend, int64_t addend_row,
                            int64_t first, int64_t tokens, int64_t M, T *y, int64_t y_row) {
    const int64_t all = tokens * M;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t t = i / M, m = i % M;
        float value = addend ? mf::as_f32(addend[t * addend_row + m]) : 0.0f;
        if (m >= first && m < first + width)
            value += mf::as_f32(part[t * part_row + m - first]);
        y[t * y_row + m] = mf::from_f32<T>(value);
    }
}

enum mf_status run_add_columns(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &part = call->in[0];   // (T, W)
    const mf_array &addend = call->in[1]; // (T, M) or none
    const mf_array &y = call->out[0];     // (T, M), may be addend
    const int64_t work = mf_array_elements(&y);
    if (work == 0)
        return MF_OK;
    MF_WITH_TYPE(y.dtype, T,
                 add_columns<T><<<mf::blocks_for(work, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                     (const T *)part.data, part.stride[0], part.dim[1], (const T *)addend.data,
                     addend.stride[0], call->node->a.columns.first, y.dim[0], y.dim[1], (T *)y.data,
                     y.stride[0]));
    return mf_cuda_launched(call, error);
}

enum mf_status run_set_rows(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &part = call->in[0];   // (t, ...), rows from `first` on
    const mf_array &addend = call->in[1]; // (T, ...) or none
    const mf_array &y = call->out[0];     // (T, ...), may be addend; all are contiguous
    const size_t width = mf_dtype_bytes((mf_dtype)y.dtype), bytes = (size_t)mf_array_elements(&y) * width;
    char *to = (char *)y.data;
    cudaError_t code = cudaSuccess;
    if (!addend.data)
        code = cudaMemsetAsync(to, 0, bytes, backend->stream);
    else if (addend.data != y.data)
        code = cudaMemcpyAsync(to, addend.data, bytes, cudaMemcpyDeviceToDevice, backend->stream);
    if (code == cudaSuccess && part.dim[0] > 0)
        code = cudaMemcpyAsync(to + (size_t)(call->node->a.rows.first * y.stride[0]) * width, part.data,
                               (size_t)mf_array_elements(&part) * width, cudaMemcpyDeviceToDevice,
                               backend->stream);
    return mf_cuda_check(code, "set_rows", error);
}

enum mf_status run_zero(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &state = call->out[0];
    const size_t width = mf_dtype_bytes((mf_dtype)state.dtype);
    const size_t row = (size_t)state.dim[state.rank - 1] * width; /* all bits 0 is 0 in every dtype */
    const mf::rows all = mf::rows_of(state);
    for (int64_t a = 0; a < all.count; a++) {
        const int64_t last = a % all.dim[1], rest = a / all.dim[1];
        const int64_t at = rest / all.dim[0] * all.stride[0] + rest % all.dim[0] * all.stride[1] + last * all.stride[2];
        const enum mf_status status = mf_cuda_check(
            cudaMemsetAsync((char *)state.data + (size_t)at * width, 0, row, backend->stream), "zero", error);
        if (status != MF_OK)
            return status;
    }
    return MF_OK;
}

/* ---- gated activations --------------------------------------------------------------------------------------- */

template <typename T, int W>
__global__ void gated(mf_activation activation, const T *gate, int64_t gate_row, const T *up, int64_t up_row,
                      int64_t tokens, int64_t F, T *y, int64_t y_row) {
    const int64_t packs = F / W, all = tokens * packs;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t t = i / packs, f = i % packs * W;
        float g[W], u[W], slope;
        mf::load<T, W>(gate + t * gate_row + f, g);
        mf::load<T, W>(up + t * up_row + f, u);
#pragma unroll
        for (int c = 0; c < W; c++)
            u[c] *= mf::activate(activation, g[c], &slope);
        mf::store<T, W>(y + t * y_row + f, u);
    }
}

enum mf_status run_gated(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &gate = call->in[0], &up = call->in[1]; // (T, F)
    const mf_array &y = call->out[0];                      // (T, F), may be gate
    const mf_activation activation = call->node->a.gated.activation;
    const int64_t tokens = gate.dim[0], F = gate.dim[1];
    if (tokens * F == 0)
        return MF_OK;
    MF_WITH_TYPE(y.dtype, T, {
        constexpr int W = 16 / sizeof(T);
        if (mf::packs<W>(gate) && mf::packs<W>(up) && mf::packs<W>(y))
            gated<T, W><<<mf::blocks_for(tokens * F / W, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                activation, (const T *)gate.data, gate.stride[0], (const T *)up.data, up.stride[0], tokens, F,
                (T *)y.data, y.stride[0]);
        else
            gated<T, 1><<<mf::blocks_for(tokens * F, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                activation, (const T *)gate.data, gate.stride[0], (const T *)up.data, up.stride[0], tokens, F,
                (T *)y.data, y.stride[0]);
    });
    return mf_cuda_launched(call, error);
}

template <typename T, int W>
__global__ void gated_gradient(mf_activation activation, const T *gate, int64_t gate_row, const T *up,
                               int64_t up_row, const T *dy, int64_t dy_row, int64_t tokens, int64_t F, T *dgate,
                               int64_t dgate_row, T *dup, int64_t dup_row) {
    const int64_t packs = F / W, all = tokens * packs;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t t = i / packs, f = i % packs * W;
        float g[W], u[W], out[W];
        mf::load<T, W>(gate + t * gate_row + f, g);
        mf::load<T, W>(up + t * up_row + f, u);
        mf::load<T, W>(dy + t * dy_row + f, out);
#pragma unroll
        for (int c = 0; c < W; c++) {
            float slope;
            const float value = mf::activate(activation, g[c], &slope);
            g[c] = out[c] * u[c] * slope;
            u[c] = out[c] * value;
        }
        mf::store<T, W>(dgate + t * dgate_row + f, g);
        mf::store<T, W>(dup + t * dup_row + f, u);
    }
}

enum mf_status run_gated_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &gate = call->in[0], &up = call->in[1], &dy = call->in[2]; // (T, F)
    const mf_array &dgate = call->out[0], &dup = call->out[1];                // (T, F), dgate may be gate
    const mf_activation activation = call->node->a.gated.activation;
    const int64_t tokens = gate.dim[0], F = gate.dim[1];
    if (tokens * F == 0)
        return MF_OK;
    MF_WITH_TYPE(dy.dtype, T, {
        constexpr int W = 16 / sizeof(T);
        if (mf::packs<W>(gate) && mf::packs<W>(up) && mf::packs<W>(dy) && mf::packs<W>(dgate) &&
            mf::packs<W>(dup))
            gated_gradient<T, W><<<mf::blocks_for(tokens * F / W, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                activation, (const T *)gate.data, gate.stride[0], (const T *)up.data, up.stride[0],
                (const T *)dy.data, dy.stride[0], tokens, F, (T *)dgate.data, dgate.stride[0], (T *)dup.data,
                dup.stride[0]);
        else
            gated_gradient<T, 1><<<mf::blocks_for(tokens * F, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                activation, (const T *)gate.data, gate.stride[0], (const T *)up.data, up.stride[0],
                (const T *)dy.data, dy.stride[0], tokens, F, (T *)dgate.data, dgate.stride[0], (T *)dup.data,
                dup.stride[0]);
    });
    return mf_cuda_launched(call, error);
}

/* A new tensor, or the copy of a parameter. */
enum mf_status run_cast(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_array &x = call->in[0], &y = call->out[0]; // (n)
    mf_array row = x;
    row.stride[0] = 0; /* all in one row */
    return mf_cuda_convert(mf_cuda_backend_of(call), &row, 1, x.dim[0], 1, y.data, x.dim[0], y.dtype, error);
}

/* Parts of a matrix that are copied into it at once. Elements of one part are counted in 32 bits: dividing by 64
 * takes longer than the copy. */
struct parts {
    const float *from[MF_FOLDED + 1];
    uint32_t from_row[MF_FOLDED + 1], columns[MF_FOLDED + 1];
    int64_t at[MF_FOLDED + 1];   /* of its first element */
    uint32_t end[MF_FOLDED + 1]; /* elements up to here */
    float scale[MF_FOLDED + 1];
    int count;
};

template <typename T> __global__ void place_parts(parts part, T *to, uint32_t to_row) {
    const uint32_t all = part.end[part.count - 1], step = gridDim.x * blockDim.x;
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < all; i += step) {
        int p = 0;
        while (i >= part.end[p])
            p++;
        const uint32_t element = i - (p ? part.end[p - 1] : 0);
        const uint32_t row = element / part.columns[p], column = element % part.columns[p];
        to[part.at[p] + (int64_t)row * to_row + column] =
            mf::from_f32<T>(part.scale[p] * part.from[p][(int64_t)row * part.from_row[p] + column]);
    }
}

void add_part(parts &list, const mf_array &from, float scale, int64_t at) {
    const int n = list.count++;
    list.from[n] = (const float *)from.data;
    list.from_row[n] = (uint32_t)from.stride[0];
    list.columns[n] = (uint32_t)from.dim[1];
    list.at[n] = at;
    list.end[n] = (n ? list.end[n - 1] : 0) + (uint32_t)(from.dim[0] * from.dim[1]);
    list.scale[n] = scale;
}

enum mf_status run_fold_adapters(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_array &whole = call->out[0]; // (N + R, K + R)
    const mf_array &a = call->in[2];      // (R, K) f32 or none
    int64_t rank = 0;
    parts list{};
    for (int i = 0; i < MF_FOLDED; i++)
        rank += call->in[i ? i + 2 : 1].data ? call->in[i ? i + 2 : 1].dim[1] : 0;
    int64_t column = whole.dim[1] - rank;
    if (a.data)
        add_part(list, a, 1, (whole.dim[0] - rank) * whole.stride[0]);
    for (int i = 0; i < MF_FOLDED && call->in[i ? i + 2 : 1].data; i++) {
        const mf_array &b = call->in[i ? i + 2 : 1]; // (N_i, r_i) f32
        add_part(list, b, call->node->a.fold.scale[i], call->node->a.fold.first[i] * whole.stride[0] + column);
        column += b.dim[1];
    }
    MF_WITH_TYPE(whole.dtype, T,
                 place_parts<T><<<mf::blocks_for(list.end[list.count - 1], mf::BLOCK), mf::BLOCK, 0,
                                  mf_cuda_backend_of(call)->stream>>>(list, (T *)whole.data, (uint32_t)whole.stride[0]));
    return mf_cuda_launched(call, error);
}

} // namespace

extern "C" {
const struct mf_kernel mf_cuda_dropout[1] = {{run_dropout, NULL, 0}};
const struct mf_kernel mf_cuda_add[1] = {{run_add, NULL, 0}};
const struct mf_kernel mf_cuda_add_columns[1] = {{run_add_columns, NULL, 0}};
const struct mf_kernel mf_cuda_zero[1] = {{run_zero, NULL, 0}};
const struct mf_kernel mf_cuda_cast[1] = {{run_cast, NULL, 0}};
const struct mf_kernel mf_cuda_fold_adapters[1] = {{run_fold_adapters, NULL, 0}};
const struct mf_kernel mf_cuda_round_copy[1] = {{run_cast, NULL, 0}};
const struct mf_kernel mf_cuda_set_rows[1] = {{run_set_rows, NULL, 0}};
const struct mf_kernel mf_cuda_gated_activation[1] = {{run_gated, NULL, 0}};
const struct mf_kernel mf_cuda_gated_activation_gradient[1] = {{run_gated_gradient, NULL, 0}};
}
