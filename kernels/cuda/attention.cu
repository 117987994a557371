#include "kernels/cuda/device.cuh"
extern "C" {
#include "kernels/cuda/attention.h"
#include "kernels/cuda/fused_attention.h"
}

namespace {

enum { WARPS = 4, MOST = 256, PARTS = MOST / mf::WARP }; /* of a head: columns a lane holds, WARP apart */

struct sequence {
    int query, queries, key, keys;
};

/* The sequence that row `t` of `offsets` lies in; false: none, it is tail. */
__device__ bool find_sequence(const mf_cuda_heads &a, const int32_t *offsets, int t, sequence *s) {
    int low = 0, high = a.S; /* offsets[low] <= t < offsets[high] */
    if (a.S == 0 || t >= offsets[a.S])
        return false;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (offsets[middle] <= t)
            low = middle;
        else
            high = middle;
    }
    s->query = a.query_offsets[low];
    s->queries = a.query_offsets[low + 1] - s->query;
    s->key = a.key_offsets[low];
    s->keys = a.key_lengths ? a.key_lengths[low] : a.key_offsets[low + 1] - s->key;
    return true;
}

__device__ inline bool sees(const mf_cuda_heads &a, int place, int j) {
    return (!a.causal || j <= place) && (a.window <= 0 || j > place - a.window);
}

/* score = the capped scale * product, and its derivative by the product. */
__device__ inline float score_of(const mf_cuda_heads &a, float product, float *slope) {
    float value = a.scale * product;
    *slope = a.scale;
    if (a.soft_cap > 0) {
        const float t = tanhf(value / a.soft_cap);
        value = a.soft_cap * t;
        *slope *= 1.0f - t * t;
    }
    return value;
}

template <typename T> __device__ inline float dot(const float *left, const T *right, int d) {
    float sum = 0;
    for (int i = 0; i < d; i++)
        sum += left[i] * mf::as_f32(right[i]);
    return sum;
}

/* A head's row to shared memory, as f32. */
template <typename T> __device__ inline void keep(float *to, const T *from, int d) {
    for (int i = threadIdx.x % mf::WARP; i < d; i += mf::WARP)
        to[i] = mf::as_f32(from[i]);
}

/* columns[] += Σ over the warp's lanes of their weight * their row; lanes share out columns. Lanes' rows are `row`
 * elements apart from `first` on; `count` of them are there. */
template <typename T>
__device__ inline void accumulate(float (&columns)[PARTS], float weight, const T *first, int64_t row, int count,
                                  int d) {
    const int lane = threadIdx.x % mf::WARP;
    for (int other = 0; other < count; other++) {
        const float factor = __shfl_sync(0xffffffffu, weight, other);
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            if (part * mf::WARP + lane < d)
                columns[part] += factor * mf::as_f32(first[other * row + part * mf::WARP + lane]);
    }
}

template <typename T>
__device__ inline void write_row(T *to, const float (&columns)[PARTS], float factor, int d) {
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        const int i = part * mf::WARP + threadIdx.x % mf::WARP;
        if (i < d)
            to[i] = mf::from_f32<T>(columns[part] * factor);
    }
}

/* A warp a query row and head; lanes take keys in turn. */
template <typename T> __global__ void attend(mf_cuda_heads a, mf_cuda_heads_out y, float *lse) {
    __shared__ float query[WARPS][MOST];
    const int warp = threadIdx.x / mf::WARP, lane = threadIdx.x % mf::WARP;
    const int64_t item = (int64_t)blockIdx.x * WARPS + warp;
    const int t = (int)(item / a.H), head = (int)(item % a.H), key_head = head / (a.H / a.G);
    float columns[PARTS] = {}, greatest = -INFINITY, sum = 0, slope;
    sequence s;
    if (t >= a.T)
        return;
    T *to = (T *)y.data + t * y.row + head * y.head;
    if (!find_sequence(a, a.query_offsets, t, &s)) {
        write_row(to, columns, 0, a.d);
        if (lane == 0)
            lse[(int64_t)t * a.H + head] = 0;
        return;
    }
    const int place = s.keys - s.queries + t - s.query;
    const int end = a.causal && place + 1 < s.keys ? place + 1 : s.keys;
    const int begin = a.window > 0 && place - a.window + 1 > 0 ? place - a.window + 1 : 0;
    const T *k = (const T *)a.k + s.key * a.k_row + key_head * a.k_head;
    const T *v = (const T *)a.v + s.key * a.v_row + key_head * a.v_head;
    keep(query[warp], (const T *)a.q + t * a.q_row + head * a.q_head, a.d);
    __syncwarp();
    for (int first = begin; first < end; first += mf::WARP) {
        const int j = first + lane, count = min(mf::WARP, end - first);
        const float value = j < end ? score_of(a, dot(query[warp], k + j * a.k_row, a.d), &slope) : -INFINITY;
        const float next = fmaxf(greatest, mf::warp_max(value)), factor = expf(greatest - next);
        const float p = expf(value - next);
        sum = sum * factor + mf::warp_sum(p);
        greatest = next;
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            columns[part] *= factor;
        accumulate(columns, p, v + first * a.v_row, a.v_row, count, a.d);
    }
    write_row(to, columns, sum > 0 ? 1.0f / sum : 0.0f, a.d);
    if (lane == 0)
        lse[(int64_t)t * a.H + head] = sum > 0 ? greatest + logf(sum) : -INFINITY;
}

/* delta (T, H) = rowsum(dy * y): a warp each. */
template <typename T> __global__ void row_products(mf_cuda_heads a, float *delta) {
    const int lane = threadIdx.x % mf::WARP;
    const int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / mf::WARP;
    const int64_t t = item / a.H, head = item % a.H;
    if (t >= a.T)
        return;
    const T *y = (const T *)a.y + t * a.y_row + head * a.y_head;
    const T *dy = (const T *)a.dy + t * a.dy_row + head * a.dy_head;
    float sum = 0;
    for (int i = lane; i < a.d; i += mf::WARP)
        sum += mf::as_f32(y[i]) * mf::as_f32(dy[i]);
    sum = mf::warp_sum(sum);
    if (lane == 0)
        delta[t * a.H + head] = sum;
}

/* dq: a warp a query row and head; lanes take keys in turn. */
template <typename T> __global__ void query_gradient(mf_cuda_heads a, mf_cuda_heads_out dq) {
    __shared__ float query[WARPS][MOST], slopes[WARPS][MOST];
    const int warp = threadIdx.x / mf::WARP, lane = threadIdx.x % mf::WARP;
    const int64_t item = (int64_t)blockIdx.x * WARPS + warp;
    const int t = (int)(item / a.H), head = (int)(item % a.H), key_head = head / (a.H / a.G);
    float columns[PARTS] = {};
    sequence s;
    if (t >= a.T)
        return;
    T *to = (T *)dq.data + t * dq.row + head * dq.head;
    if (!find_sequence(a, a.query_offsets, t, &s)) {
        write_row(to, columns, 0, a.d);
        return;
    }
    const int place = s.keys - s.queries + t - s.query;
    const int end = a.causal && place + 1 < s.keys ? place + 1 : s.keys;
    const int begin = a.window > 0 && place - a.window + 1 > 0 ? place - a.window + 1 : 0;
    const T *k = (const T *)a.k + s.key * a.k_row + key_head * a.k_head;
    const T *v = (const T *)a.v + s.key * a.v_row + key_head * a.v_head;
    const float total = a.lse[(int64_t)t * a.H + head], delta = a.delta[(int64_t)t * a.H + head];
    keep(query[warp], (const T *)a.q + t * a.q_row + head * a.q_head, a.d);
    keep(slopes[warp], (const T *)a.dy + t * a.dy_row + head * a.dy_head, a.d);
    __syncwarp();
    for (int first = begin; first < end; first += mf::WARP) {
        const int j = first + lane, count = min(mf::WARP, end - first);
        float ds = 0, slope;
        if (j < end) {
            const float p = expf(score_of(a, dot(query[warp], k + j * a.k_row, a.d), &slope) - total);
            ds = p * (dot(slopes[warp], v + j * a.v_row, a.d) - delta) * slope;
        }
        accumulate(columns, ds, k + first * a.k_row, a.k_row, count, a.d);
    }
    write_row(to, columns, 1, a.d);
}

/* dk and dv: a warp a key row and key head; lanes take queries in turn, heads of the group one after another. */
template <typename T>
__global__ void key_gradient(mf_cuda_heads a, mf_cuda_heads_out dk, mf_cuda_heads_out dv) {
    __shared__ float key[WARPS][MOST], value[WARPS][MOST];
    const int warp = threadIdx.x / mf::WARP, lane = threadIdx.x % mf::WARP, group = a.H / a.G;
    const int64_t item = (int64_t)blockIdx.x * WARPS + warp;
    const int c = (int)(item / a.G), key_head = (int)(item % a.G);
    float key_columns[PARTS] = {}, value_columns[PARTS] = {};
    sequence s;
    if (c >= a.C)
        return;
    const bool found = find_sequence(a, a.key_offsets, c, &s);
    if (found) {
        keep(key[warp], (const T *)a.k + c * a.k_row + key_head * a.k_head, a.d);
        keep(value[warp], (const T *)a.v + c * a.v_row + key_head * a.v_head, a.d);
    }
    __syncwarp();
    for (int head = key_head * group; found && head < (key_head + 1) * group; head++) {
        const T *q = (const T *)a.q + s.query * a.q_row + head * a.q_head;
        const T *dy = (const T *)a.dy + s.query * a.dy_row + head * a.dy_head;
        for (int first = 0; first < s.queries; first += mf::WARP) {
            const int i = first + lane, count = min(mf::WARP, s.queries - first);
            float p = 0, ds = 0, slope;
            if (i < s.queries && sees(a, s.keys - s.queries + i, c - s.key)) {
                const int64_t row = (int64_t)(s.query + i) * a.H + head;
                p = expf(score_of(a, dot(key[warp], q + i * a.q_row, a.d), &slope) - a.lse[row]);
                ds = p * (dot(value[warp], dy + i * a.dy_row, a.d) - a.delta[row]) * slope;
            }
            accumulate(key_columns, ds, q + first * a.q_row, a.q_row, count, a.d);
            accumulate(value_columns, p, dy + first * a.dy_row, a.dy_row, count, a.d);
        }
    }
    write_row((T *)dk.data + c * dk.row + key_head * dk.head, key_columns, 1, a.d);
    write_row((T *)dv.data + c * dv.row + key_head * dv.head, value_columns, 1, a.d);
}

/* Rows that belong to no sequence become zero; lse NULL: there is none. */
template <typename T>
__global__ void zero_tail(const int32_t *last, int rows, int heads, int d, mf_cuda_heads_out y, float *lse) {
    for (int t = *last + blockIdx.x; t < rows; t += gridDim.x)
        for (int i = threadIdx.x; i < heads * d; i += blockDim.x) {
            ((T *)y.data)[t * y.row + i / d * y.head + i % d] = mf::from_f32<T>(0.0f);
            if (lse && i < heads)
                lse[(int64_t)t * heads + i] = 0;
        }
}

void clear_tail(const mf_cuda_backend *backend, const int32_t *offsets, const mf_cuda_heads &a, int rows,
                int heads, mf_cuda_heads_out y, float *lse) {
    zero_tail<__nv_bfloat16><<<16, mf::BLOCK, 0, backend->stream>>>(offsets + a.S, rows, heads, a.d, y, lse);
}

void clear_gradients(const mf_cuda_backend *backend, const mf_cuda_heads &a, mf_cuda_heads_out dq,
                     mf_cuda_heads_out dk, mf_cuda_heads_out dv) {
    clear_tail(backend, a.query_offsets, a, a.T, a.H, dq, NULL);
    clear_tail(backend, a.key_offsets, a, a.C, a.G, dk, NULL);
    clear_tail(backend, a.key_offsets, a, a.C, a.G, dv, NULL);
}

unsigned warps(int64_t items) {
    return (unsigned)((items + WARPS - 1) / WARPS);
}

mf_cuda_heads attention_of(const struct mf_kernel_call *call, const mf_array &query_offsets,
                               const mf_array &key_offsets) {
    const mf_array &q = call->in[0], &k = call->in[1], &v = call->in[2];
    const mf_attention_attributes &attributes = call->node->a.attention;
    mf_cuda_heads a = {};
    a.q = q.data, a.q_row = q.stride[0], a.q_head = q.stride[1];
    a.k = k.data, a.k_row = k.stride[0], a.k_head = k.stride[1];
    a.v = v.data, a.v_row = v.stride[0], a.v_head = v.stride[1];
    a.query_offsets = (const int32_t *)query_offsets.data;
    a.key_offsets = (const int32_t *)key_offsets.data;
    a.T = (int32_t)q.dim[0], a.H = (int32_t)q.dim[1], a.d = (int32_t)q.dim[2];
    a.C = (int32_t)k.dim[0], a.G = (int32_t)k.dim[1], a.S = (int32_t)query_offsets.dim[0] - 1;
    a.scale = attributes.scale, a.soft_cap = attributes.soft_cap;
    a.window = attributes.window, a.causal = (int32_t)attributes.causal;
    return a;
}

/* All rows and heads begin at multiples of 16 bytes. */
bool packed(const mf_array *array, int count) {
    bool all = true;
    for (int i = 0; i < count; i++)
        all = all && mf::packs<8>(array[i]);
    return all;
}

mf_cuda_heads_out out_of(const mf_array &array) {
    return {array.data, array.stride[0], array.stride[1]};
}

/* ---- by cuDNN ------------------------------------------------------------------------------------------------ */

mf_cuda_fused_bound bound_of(const struct mf_kernel_call *call) {
    const int32_t *most = call->bound ? call->bound : call->step->value;
    return {most[MF_TOKENS], most[MF_SEQUENCES], most[MF_LONGEST]};
}

/* Each sequence's queries are its keys, nothing is cached: what cuDNN is asked for. */
bool is_within_sequences(const mf_array &query_offsets, const mf_array &key_offsets, const mf_array &key_lengths) {
    return query_offsets.tensor == key_offsets.tensor && !key_lengths.data && key_lengths.tensor < 0;
}

void set_rows(mf_cuda_fused_rows &rows, int at, const mf_array &array) {
    rows.row[at] = array.stride[0];
    rows.head[at] = array.stride[1];
}

mf_cuda_fused_rows forward_rows(const struct mf_kernel_call *call) {
    mf_cuda_fused_rows rows = {};
    for (int i = 0; i < 3; i++)
        set_rows(rows, MF_CUDA_FUSED_QUERY + i, call->in[i]);
    set_rows(rows, MF_CUDA_FUSED_OUT, call->out[0]);
    set_rows(rows, MF_CUDA_FUSED_LSE, call->out[1]);
    return rows;
}

mf_cuda_fused_rows gradient_rows(const struct mf_kernel_call *call) {
    mf_cuda_fused_rows rows = {};
    for (int i = 0; i < 4; i++)
        set_rows(rows, MF_CUDA_FUSED_QUERY + i, call->in[i]);
    set_rows(rows, MF_CUDA_FUSED_LSE, call->in[4]);
    set_rows(rows, MF_CUDA_FUSED_OUT_SLOPE, call->in[5]);
    for (int i = 0; i < 3; i++)
        set_rows(rows, MF_CUDA_FUSED_QUERY_SLOPE + i, call->out[i]);
    return rows;
}

/* Sequences beyond the step's are empty and lie at the end. */
__global__ void fill_offsets(const int32_t *offsets, int sequences, int most, mf_cuda_fused_rows rows, int64_t *filled,
                             int64_t between, int32_t *lengths) {
    for (int s = blockIdx.x * blockDim.x + threadIdx.x; s <= most; s += gridDim.x * blockDim.x) {
        const int at = offsets[s < sequences ? s : sequences];
        for (int i = 0; i < MF_CUDA_FUSED_OFFSETS; i++)
            filled[i * between + s] = at * rows.row[i];
        if (s < most)
            lengths[s] = s < sequences ? offsets[s + 1] - at : 0;
    }
}

enum mf_status run_fused(const struct mf_kernel_call *call, const mf_cuda_heads &a, const mf_cuda_fused_rows &rows,
                         void *y, float *lse, void *dq, void *dk, void *dv, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_cuda_fused_bound bound = bound_of(call);
    void *workspace = call->workspace[1].data;
    int64_t *offsets = mf_cuda_fused_offsets(workspace, &bound, 0);
    fill_offsets<<<(unsigned)(bound.sequences / mf::BLOCK + 1), mf::BLOCK, 0, backend->stream>>>(
        a.query_offsets, a.S, bound.sequences, rows, offsets, mf_cuda_fused_offsets(workspace, &bound, 1) - offsets,
        mf_cuda_fused_lengths(workspace, &bound));
    return mf_cuda_fused_run(backend->fused, &a, &rows, &bound, y, lse, dq, dk, dv, workspace, error);
}

enum mf_status refuse_wide_heads(int64_t d, struct mf_error *error) {
    return d <= MOST ? MF_OK
                     : mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED,
                                    "attention on a GPU takes heads of up to %d columns, this model has %d",
                                    (int)MOST, (int)d);
}

enum mf_status run_attention(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &q = call->in[0];  // (T, H, d)
    const mf_array &y = call->out[0]; // (T, H, d)
    float *lse = (float *)call->out[1].data; // (T, H)
    mf_cuda_heads a = attention_of(call, call->in[3], call->in[4]);
    a.key_lengths = (const int32_t *)call->in[5].data;
    enum mf_status status = refuse_wide_heads(a.d, error);
    if (status != MF_OK || a.T == 0)
        return status;
    if (call->workspace[1].data) {
        status = run_fused(call, a, forward_rows(call), y.data, lse, NULL, NULL, NULL, error);
        if (status == MF_OK)
            clear_tail(backend, a.query_offsets, a, a.T, a.H, out_of(y), lse);
        return status == MF_OK ? mf_cuda_launched(call, error) : status;
    }
    if (mf_cuda_attention_on_tensor_cores(backend, q.dtype, a.d, packed(call->in, 3) && packed(call->out, 1))) {
        status = mf_cuda_attention_tensor(backend, &a, out_of(y), lse, error);
        if (status == MF_OK)
            clear_tail(backend, a.query_offsets, a, a.T, a.H, out_of(y), lse);
        return status == MF_OK ? mf_cuda_launched(call, error) : status;
    }
    MF_WITH_TYPE(q.dtype, T,
                 attend<T><<<warps((int64_t)a.T * a.H), WARPS * mf::WARP, 0, backend->stream>>>(a, out_of(y), lse));
    return mf_cuda_launched(call, error);
}

enum mf_status run_attention_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &q = call->in[0], &y = call->in[3], &dy = call->in[5]; // (T, H, d)
    const mf_array &dq = call->out[0], &dk = call->out[1], &dv = call->out[2];
    float *delta = (float *)call->workspace[0].data; // (T, H)
    mf_cuda_heads a = attention_of(call, call->in[6], call->in[7]);
    a.y = y.data, a.y_row = y.stride[0], a.y_head = y.stride[1];
    a.dy = dy.data, a.dy_row = dy.stride[0], a.dy_head = dy.stride[1];
    a.lse = (const float *)call->in[4].data;
    a.delta = delta;
    enum mf_status status = refuse_wide_heads(a.d, error);
    if (status != MF_OK)
        return status;
    if (call->workspace[1].data && a.T) {
        status = run_fused(call, a, gradient_rows(call), (void *)a.y, (float *)a.lse, dq.data, dk.data, dv.data, error);
        if (status == MF_OK)
            clear_gradients(backend, a, out_of(dq), out_of(dk), out_of(dv));
        return status == MF_OK ? mf_cuda_launched(call, error) : status;
    }
    if (a.T)
        MF_WITH_TYPE(q.dtype, T,
                     row_products<T><<<warps((int64_t)a.T * a.H), WARPS * mf::WARP, 0, backend->stream>>>(a, delta));
    const bool aligned = packed(call->in, 4) && packed(call->in + 5, 1) && packed(call->out, 3);
    if (mf_cuda_attention_on_tensor_cores(backend, q.dtype, a.d, aligned)) {
        status = mf_cuda_attention_gradient_tensor(backend, &a, out_of(dq), out_of(dk), out_of(dv), error);
        if (status != MF_OK)
            return status;
        clear_gradients(backend, a, out_of(dq), out_of(dk), out_of(dv));
        return mf_cuda_launched(call, error);
    }
    MF_WITH_TYPE(q.dtype, T, {
        if (a.T)
            query_gradient<T>
                <<<warps((int64_t)a.T * a.H), WARPS * mf::WARP, 0, backend->stream>>>(a, out_of(dq));
        if (a.C)
            key_gradient<T><<<warps((int64_t)a.C * a.G), WARPS * mf::WARP, 0, backend->stream>>>(a, out_of(dk),
                                                                                              out_of(dv));
    });
    return mf_cuda_launched(call, error);
}

} // namespace

extern "C" {
static size_t attention_workspace(const struct mf_kernel_call *call) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_cuda_fused_rows rows = forward_rows(call);
    if (!backend->fused || call->in[0].dtype != MF_BF16 ||
        !is_within_sequences(call->in[3], call->in[4], call->in[5]) || !packed(call->in, 3) || !packed(call->out, 1))
        return 0;
    const mf_cuda_heads a = attention_of(call, call->in[3], call->in[4]);
    const mf_cuda_fused_bound bound = bound_of(call);
    return mf_cuda_fused_workspace(backend->fused, &a, &rows, &bound, false);
}

static size_t attention_gradient_workspace(const struct mf_kernel_call *call) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_cuda_fused_rows rows = gradient_rows(call);
    if (!backend->fused || call->in[0].dtype != MF_BF16 || call->in[6].tensor != call->in[7].tensor ||
        !packed(call->in, 4) || !packed(call->in + 5, 1) || !packed(call->out, 3))
        return 0;
    const mf_cuda_heads a = attention_of(call, call->in[6], call->in[7]);
    const mf_cuda_fused_bound bound = bound_of(call);
    return mf_cuda_fused_workspace(backend->fused, &a, &rows, &bound, true);
}

const struct mf_kernel mf_cuda_attention[1] = {{run_attention, attention_workspace, 0}};
const struct mf_kernel mf_cuda_attention_gradient[1] = {{run_attention_gradient, attention_gradient_workspace, 0}};
}
