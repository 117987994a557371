/* Attention on tensor cores for bf16 and heads of 64 or 128 columns, after FlashAttention-2 (Dao 2023,
 * https://arxiv.org/abs/2307.08691), deterministic: the gradients of queries and of keys are two kernels, and each
 * block owns the rows that it writes. Products of 16 x 8 x 16 (mma.sync), f32 sums; tiles come by cp.async.
 *
 * Fragments (PTX ISA, mma.m16n8k16), g = lane / 4, c = lane % 4:  A: rows g and g + 8, columns 2c, 2c + 1 and
 * 2c + 8, 2c + 9;  B: rows 2c, 2c + 1 and 2c + 8, 2c + 9 of column g;  C: rows g and g + 8 of columns 2c, 2c + 1.
 * So the C of a product, rounded, is the A of the next. */
#include "kernels/cuda/device.cuh"
extern "C" {
#include "kernels/cuda/attention.h"
}

namespace {

typedef __nv_bfloat16 bf16;
enum { WARPS = 4, THREADS = WARPS * mf::WARP };
enum { TILE = 64 }; /* rows that a block owns: 16 a warp */
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

/* Rows of a tile in shared memory lie 16 bytes more than their width apart: eight rows at one column touch all banks. */
template <int D> constexpr int PITCH = D + 8;

[[maybe_unused]] __device__ inline unsigned shared_address(const void *p) {
    return (unsigned)__cvta_generic_to_shared(p);
}
__device__ inline void load_matrices(unsigned (&r)[4], const bf16 *p) {
#if __CUDA_ARCH__ >= 800
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p)));
#endif
}
__device__ inline void load_matrices_transposed(unsigned (&r)[4], const bf16 *p) {
#if __CUDA_ARCH__ >= 800
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p)));
#endif
}
__device__ inline void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
__device__ inline void copy_16_bytes(bf16 *to, const bf16 *from, bool there) { /* else zeros */
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(there ? 16 : 0));
#endif
}
__device__ inline void commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;");
#endif
}
template <int PENDING> __device__ inline void wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING));
#endif
}

/* ROWS rows of D columns to a tile; those from `valid` on become zero. */
template <int ROWS, int D> __device__ inline void fetch(bf16 *to, const bf16 *from, int64_t row, int valid) {
    constexpr int PACKS = D / 8;
#pragma unroll
    for (int i = 0; i < ROWS * PACKS / THREADS; i++) {
        const int at = i * THREADS + threadIdx.x, r = at / PACKS, column = at % PACKS * 8;
        copy_16_bytes(to + r * PITCH<D> + column, from + (r < valid ? r : 0) * row + column, r < valid);
    }
}

/* A of rows first .. first + 15, columns 16 k .. of a tile. */
template <int D> __device__ inline void take_a(unsigned (&a)[4], const bf16 *tile, int first, int k) {
    const int lane = threadIdx.x % mf::WARP;
    load_matrices(a, tile + (first + lane % 16) * PITCH<D> + k * 16 + lane / 16 * 8);
}
/* B whose columns are the tile's rows first .. first + 15 and whose rows are its columns 16 k ..: two of 8 columns. */
template <int D> __device__ inline void take_b(unsigned (&b)[4], const bf16 *tile, int first, int k) {
    const int lane = threadIdx.x % mf::WARP;
    load_matrices(b, tile + (first + lane / 16 * 8 + lane % 8) * PITCH<D> + k * 16 + lane / 8 % 2 * 8);
}
/* B whose rows are the tile's rows first .. first + 15 and whose columns are its columns 16 n ..: two of 8 columns. */
template <int D> __device__ inline void take_b_transposed(unsigned (&b)[4], const bf16 *tile, int first, int n) {
    const int lane = threadIdx.x % mf::WARP;
    load_matrices_transposed(b, tile + (first + lane % 16) * PITCH<D> + n * 16 + lane / 16 * 8);
}

__device__ inline unsigned pack_two(float low, float high) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *(const unsigned *)&both;
}
/* The A of two neighbouring C: columns 16 k .. of what they hold. */
__device__ inline void as_a(unsigned (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack_two(left[0], left[1]);
    a[1] = pack_two(left[2], left[3]);
    a[2] = pack_two(right[0], right[1]);
    a[3] = pack_two(right[2], right[3]);
}

/* 2^x; 0 for what is denormal. */
__device__ inline float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

template <int N> __device__ inline void clear(float (&c)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++)
        c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0;
}

/* c (16, 8 N) = rows first .. of `left` times all rows of `right`, transposed. */
template <int D, int N>
__device__ inline void product(float (&c)[N][4], const bf16 *left, int first, const bf16 *right) {
    clear(c);
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        unsigned a[4], b[4];
        take_a<D>(a, left, first, k);
#pragma unroll
        for (int n = 0; n < N / 2; n++) {
            take_b<D>(b, right, n * 16, k);
            multiply(c[2 * n], a, b[0], b[1]);
            multiply(c[2 * n + 1], a, b[2], b[3]);
        }
    }
}

/* sum (16, D) += weights (16, 8 N), rounded, times the N * 8 rows of `tile`. */
template <int D, int N>
__device__ inline void accumulate(float (&sum)[D / 8][4], const float (&weight)[N][4], const bf16 *tile) {
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        unsigned a[4], b[4];
        as_a(a, weight[2 * k], weight[2 * k + 1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            take_b_transposed<D>(b, tile, k * 16, n);
            multiply(sum[2 * n], a, b[0], b[1]);
            multiply(sum[2 * n + 1], a, b[2], b[3]);
        }
    }
}

/* Rows of C to memory: first .. first + 15 of which `valid` are there in all. */
template <int D>
__device__ inline void write_rows(bf16 *to, int64_t row, int first, int valid, const float (&sum)[D / 8][4],
                                  float low_factor, float high_factor) {
    const int lane = threadIdx.x % mf::WARP, low = first + lane / 4, high = low + 8;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const int column = n * 8 + lane % 4 * 2;
        if (low < valid)
            *(unsigned *)(to + low * row + column) = pack_two(sum[n][0] * low_factor, sum[n][1] * low_factor);
        if (high < valid)
            *(unsigned *)(to + high * row + column) = pack_two(sum[n][2] * high_factor, sum[n][3] * high_factor);
    }
}

/* ---- which tile ---------------------------------------------------------------------------------------------- */

struct tile {
    int query, queries, key, keys; /* of its sequence */
    int first;                     /* row of the sequence where it begins */
};

/* The `index`-th tile of all sequences, of queries or of keys; those with most work first within a sequence. */
__device__ bool find_tile(const mf_cuda_heads &a, bool of_keys, int index, tile *t) {
    const int32_t *offsets = of_keys ? a.key_offsets : a.query_offsets;
    for (int s = 0; s < a.S; s++) {
        const int rows = offsets[s + 1] - offsets[s], tiles = (rows + TILE - 1) / TILE;
        if (index >= tiles) {
            index -= tiles;
            continue;
        }
        t->query = a.query_offsets[s];
        t->queries = a.query_offsets[s + 1] - t->query;
        t->key = a.key_offsets[s];
        t->keys = a.key_lengths ? a.key_lengths[s] : a.key_offsets[s + 1] - t->key;
        t->first = (of_keys ? index : tiles - 1 - index) * TILE;
        return true;
    }
    return false;
}

__device__ inline bool sees(const mf_cuda_heads &a, int place, int j) {
    return (!a.causal || j <= place) && (a.window <= 0 || j > place - a.window);
}

/* Keys that queries first .. first + count - 1 see, [*begin, *end): begin at a multiple of `step`. */
__device__ inline void key_range(const mf_cuda_heads &a, const tile &t, int count, int step, int *begin,
                                 int *end) {
    const int place = t.keys - t.queries + t.first;
    *end = a.causal ? min(t.keys, place + count) : t.keys;
    *begin = a.window > 0 ? max(0, place - a.window + 1) / step * step : 0;
}

/* The score of a product in units of log 2, and the score's derivative by the product. */
__device__ inline float score_of(const mf_cuda_heads &a, float product, float *slope) {
    *slope = a.scale;
    if (a.soft_cap > 0) {
        const float t = tanhf(a.scale * product / a.soft_cap);
        *slope *= 1.0f - t * t;
        return a.soft_cap * LOG2_E * t;
    }
    return a.scale * LOG2_E * product;
}

/* ---- forward ------------------------------------------------------------------------------------------------- */

__device__ inline float quad_max(float value) { /* over the four lanes that share rows of C */
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
__device__ inline float quad_sum(float value) {
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

/* Scores of one tile of keys become weights; sums so far are scaled to the new maximum. `greatest` is in log 2. */
template <int D>
__device__ inline void soften(const mf_cuda_heads &a, float (&p)[TILE / 8][4], float (&sum)[D / 8][4],
                              float (&greatest)[2], float (&total)[2], bool whole, int place, int j, int keys) {
    const int lane = threadIdx.x % mf::WARP;
    float next[2] = {greatest[0], greatest[1]}, factor[2], base[2], part[2] = {0, 0}, slope;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int key = j + n * 8 + lane % 4 * 2 + e % 2;
            p[n][e] = score_of(a, p[n][e], &slope);
            if (!whole && (key >= keys || !sees(a, place + e / 2 * 8, key)))
                p[n][e] = -INFINITY;
            next[e / 2] = fmaxf(next[e / 2], p[n][e]);
        }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        next[r] = quad_max(next[r]);
        base[r] = next[r] == -INFINITY ? 0 : next[r]; /* a row that sees nothing yet */
        factor[r] = power_of_two(greatest[r] - base[r]);
        greatest[r] = next[r];
    }
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            p[n][e] = power_of_two(p[n][e] - base[e / 2]);
            part[e / 2] += p[n][e];
        }
#pragma unroll
    for (int r = 0; r < 2; r++)
        total[r] = total[r] * factor[r] + part[r];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            sum[n][e] *= factor[e / 2];
}

template <int D>
__global__ void __launch_bounds__(THREADS) forward(mf_cuda_heads a, mf_cuda_heads_out y, float *lse) {
    extern __shared__ bf16 room[];
    bf16 *queries = room, *keys = queries + TILE * PITCH<D>, *values = keys + TILE * PITCH<D>;
    const int head = blockIdx.y, key_head = head / (a.H / a.G), lane = threadIdx.x % mf::WARP;
    const int own = threadIdx.x / mf::WARP * 16; /* this warp's first row of the tile */
    tile t;
    if (!find_tile(a, false, blockIdx.x, &t))
        return;
    const int count = min(TILE, t.queries - t.first), place = t.keys - t.queries + t.first;
    const bf16 *q = (const bf16 *)a.q + (int64_t)(t.query + t.first) * a.q_row + head * a.q_head;
    const bf16 *k = (const bf16 *)a.k + (int64_t)t.key * a.k_row + key_head * a.k_head;
    const bf16 *v = (const bf16 *)a.v + (int64_t)t.key * a.v_row + key_head * a.v_head;
    int begin, end;
    key_range(a, t, count, TILE, &begin, &end);
    float sum[D / 8][4], greatest[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
    unsigned query[D / 16][4];
    clear(sum);
    fetch<TILE, D>(queries, q, a.q_row, count);
    commit();
    if (begin < end)
        fetch<TILE, D>(keys, k + (int64_t)begin * a.k_row, a.k_row, t.keys - begin);
    commit();
    wait<1>();
    __syncthreads();
#pragma unroll
    for (int step = 0; step < D / 16; step++)
        take_a<D>(query[step], queries, own, step);
    for (int j = begin; j < end; j += TILE) {
        fetch<TILE, D>(values, v + (int64_t)j * a.v_row, a.v_row, t.keys - j);
        commit();
        wait<1>();
        __syncthreads();
        float p[TILE / 8][4];
        clear(p);
#pragma unroll
        for (int step = 0; step < D / 16; step++)
#pragma unroll
            for (int n = 0; n < TILE / 16; n++) {
                unsigned b[4];
                take_b<D>(b, keys, n * 16, step);
                multiply(p[2 * n], query[step], b[0], b[1]);
                multiply(p[2 * n + 1], query[step], b[2], b[3]);
            }
        __syncthreads(); /* all have read the keys */
        if (j + TILE < end)
            fetch<TILE, D>(keys, k + (int64_t)(j + TILE) * a.k_row, a.k_row, t.keys - j - TILE);
        commit();
        /* Tiles that every query of the block sees as a whole need no mask. */
        const bool whole = j + TILE <= t.keys && (!a.causal || j + TILE - 1 <= place) &&
                           (a.window <= 0 || j > place + count - 1 - a.window);
        soften<D>(a, p, sum, greatest, total, whole, place + own + lane / 4, j, t.keys);
        wait<1>();
        __syncthreads();
        accumulate<D, TILE / 8>(sum, p, values);
        __syncthreads(); /* all have read the values */
    }
    wait<0>();
    total[0] = quad_sum(total[0]);
    total[1] = quad_sum(total[1]);
    write_rows<D>((bf16 *)y.data + (int64_t)(t.query + t.first) * y.row + head * y.head, y.row, own, count, sum,
                  total[0] > 0 ? 1.0f / total[0] : 0.0f, total[1] > 0 ? 1.0f / total[1] : 0.0f);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = own + lane / 4 + r * 8;
        if (lane % 4 == 0 && row < count)
            lse[(int64_t)(t.query + t.first + row) * a.H + head] =
                total[r] > 0 ? greatest[r] * LN_2 + logf(total[r]) : -INFINITY;
    }
}

/* ---- gradients ----------------------------------------------------------------------------------------------- */

/* Keys (or queries) of one step of the gradients: fewer where a head's sums take most registers. */
template <int D> constexpr int STEP = D == 64 ? 64 : 32;

/* dk and dv of a tile of keys: a warp owns 16 keys; products are transposed, with keys as rows. */
template <int D>
__global__ void __launch_bounds__(THREADS)
    key_gradient(mf_cuda_heads a, mf_cuda_heads_out dk, mf_cuda_heads_out dv) {
    constexpr int Q = STEP<D>, PART = Q * PITCH<D>;
    extern __shared__ bf16 room[];
    __shared__ float lse[2][Q], delta[2][Q];
    bf16 *keys = room, *values = keys + TILE * PITCH<D>, *steps = values + TILE * PITCH<D>;
    const int key_head = blockIdx.y, group = a.H / a.G, lane = threadIdx.x % mf::WARP;
    const int own = threadIdx.x / mf::WARP * 16;
    tile t;
    if (!find_tile(a, true, blockIdx.x, &t))
        return;
    const int count = min(TILE, t.keys - t.first), shift = t.keys - t.queries;
    /* queries [begin, end) see keys of this tile */
    const int begin = a.causal ? max(0, t.first - shift) / Q * Q : 0;
    const int end = a.window > 0 ? min(t.queries, t.first + count - 1 + a.window - shift) : t.queries;
    const int tiles = end > begin ? (end - begin + Q - 1) / Q : 0;
    float key_sum[D / 8][4], value_sum[D / 8][4];
    clear(key_sum);
    clear(value_sum);
    auto prefetch = [&](int index) {
        const int head = key_head * group + index / tiles, i = begin + index % tiles * Q;
        const int64_t row = t.query + i;
        bf16 *to = steps + index % 2 * 2 * PART;
        fetch<Q, D>(to, (const bf16 *)a.q + row * a.q_row + head * a.q_head, a.q_row, t.queries - i);
        fetch<Q, D>(to + PART, (const bf16 *)a.dy + row * a.dy_row + head * a.dy_head, a.dy_row, t.queries - i);
        if (threadIdx.x < Q) {
            const bool there = i + (int)threadIdx.x < t.queries;
            const int64_t at = there ? (row + threadIdx.x) * a.H + head : 0;
            lse[index % 2][threadIdx.x] = there ? a.lse[at] * LOG2_E : 0.0f;
            delta[index % 2][threadIdx.x] = there ? a.delta[at] : 0.0f;
        }
    };
    fetch<TILE, D>(keys, (const bf16 *)a.k + (int64_t)(t.key + t.first) * a.k_row + key_head * a.k_head, a.k_row,
                   count);
    fetch<TILE, D>(values, (const bf16 *)a.v + (int64_t)(t.key + t.first) * a.v_row + key_head * a.v_head,
                   a.v_row, count);
    if (tiles)
        prefetch(0);
    commit();
    for (int index = 0; index < tiles * group; index++) {
        wait<0>();
        __syncthreads(); /* this step is there, and the one before it has been read */
        if (index + 1 < tiles * group)
            prefetch(index + 1);
        commit();
        const bf16 *q = steps + index % 2 * 2 * PART, *dy = q + PART;
        const int i = begin + index % tiles * Q;
        const bool whole = i + Q <= t.queries && (!a.causal || t.first + TILE - 1 <= shift + i) &&
                           (a.window <= 0 || t.first > shift + i + Q - 1 - a.window) && count == TILE;
        float p[Q / 8][4], ds[Q / 8][4];
        product<D, Q / 8>(p, keys, own, q);
        product<D, Q / 8>(ds, values, own, dy);
#pragma unroll
        for (int n = 0; n < Q / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int query = n * 8 + lane % 4 * 2 + e % 2, key = t.first + own + lane / 4 + e / 2 * 8;
                float slope;
                const float score = score_of(a, p[n][e], &slope);
                const bool seen = whole || (i + query < t.queries && key < t.keys && sees(a, shift + i + query, key));
                p[n][e] = seen ? power_of_two(score - lse[index % 2][query]) : 0.0f;
                ds[n][e] = seen ? p[n][e] * (ds[n][e] - delta[index % 2][query]) * slope : 0.0f;
            }
        accumulate<D, Q / 8>(value_sum, p, dy);
        accumulate<D, Q / 8>(key_sum, ds, q);
    }
    wait<0>();
    const int64_t row = t.key + t.first;
    write_rows<D>((bf16 *)dk.data + row * dk.row + key_head * dk.head, dk.row, own, count, key_sum, 1, 1);
    write_rows<D>((bf16 *)dv.data + row * dv.row + key_head * dv.head, dv.row, own, count, value_sum, 1, 1);
}

/* dq of a tile of queries: a warp owns 16 queries. */
template <int D>
__global__ void __launch_bounds__(THREADS) query_gradient(mf_cuda_heads a, mf_cuda_heads_out dq) {
    constexpr int K = STEP<D>, PART = K * PITCH<D>;
    extern __shared__ bf16 room[];
    bf16 *queries = room, *slopes = queries + TILE * PITCH<D>, *steps = slopes + TILE * PITCH<D>;
    const int head = blockIdx.y, key_head = head / (a.H / a.G), lane = threadIdx.x % mf::WARP;
    const int own = threadIdx.x / mf::WARP * 16;
    tile t;
    if (!find_tile(a, false, blockIdx.x, &t))
        return;
    const int count = min(TILE, t.queries - t.first), place = t.keys - t.queries + t.first;
    const int64_t row = t.query + t.first;
    int begin, end;
    key_range(a, t, count, K, &begin, &end);
    float sum[D / 8][4], lse[2], delta[2];
    clear(sum);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int at = own + lane / 4 + r * 8;
        lse[r] = at < count ? a.lse[(row + at) * a.H + head] * LOG2_E : 0.0f;
        delta[r] = at < count ? a.delta[(row + at) * a.H + head] : 0.0f;
    }
    auto prefetch = [&](int j) {
        const int64_t key = t.key + j;
        bf16 *to = steps + (j - begin) / K % 2 * 2 * PART;
        fetch<K, D>(to, (const bf16 *)a.k + key * a.k_row + key_head * a.k_head, a.k_row, t.keys - j);
        fetch<K, D>(to + PART, (const bf16 *)a.v + key * a.v_row + key_head * a.v_head, a.v_row, t.keys - j);
    };
    fetch<TILE, D>(queries, (const bf16 *)a.q + row * a.q_row + head * a.q_head, a.q_row, count);
    fetch<TILE, D>(slopes, (const bf16 *)a.dy + row * a.dy_row + head * a.dy_head, a.dy_row, count);
    if (begin < end)
        prefetch(begin);
    commit();
    for (int j = begin; j < end; j += K) {
        wait<0>();
        __syncthreads();
        if (j + K < end)
            prefetch(j + K);
        commit();
        const bf16 *k = steps + (j - begin) / K % 2 * 2 * PART, *v = k + PART;
        const bool whole = count == TILE && j + K <= t.keys && (!a.causal || j + K - 1 <= place) &&
                           (a.window <= 0 || j > place + count - 1 - a.window);
        float p[K / 8][4], ds[K / 8][4];
        product<D, K / 8>(p, queries, own, k);
        product<D, K / 8>(ds, slopes, own, v);
#pragma unroll
        for (int n = 0; n < K / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int key = j + n * 8 + lane % 4 * 2 + e % 2, at = own + lane / 4 + e / 2 * 8;
                float slope;
                const float score = score_of(a, p[n][e], &slope);
                const bool seen = whole || (at < count && key < t.keys && sees(a, place + at, key));
                ds[n][e] = seen ? power_of_two(score - lse[e / 2]) * (ds[n][e] - delta[e / 2]) * slope
                                : 0.0f;
            }
        accumulate<D, K / 8>(sum, ds, k);
    }
    wait<0>();
    write_rows<D>((bf16 *)dq.data + row * dq.row + head * dq.head, dq.row, own, count, sum, 1, 1);
}

/* ---- launches ------------------------------------------------------------------------------------------------ */

/* No sequence has more tiles than its rows / TILE + 1. */
unsigned most_tiles(int rows, int sequences) {
    return (unsigned)(rows / TILE + sequences);
}

template <typename F> enum mf_status allow_shared(F *kernel, int bytes, struct mf_error *error) {
    return mf_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                         "shared memory for attention", error);
}

template <int D>
enum mf_status run_forward(const mf_cuda_backend *backend, const mf_cuda_heads &a, mf_cuda_heads_out y,
                           float *lse, struct mf_error *error) {
    constexpr int bytes = 3 * TILE * PITCH<D> * (int)sizeof(bf16);
    const enum mf_status status = allow_shared(forward<D>, bytes, error);
    if (status != MF_OK)
        return status;
    forward<D><<<dim3(most_tiles(a.T, a.S), (unsigned)a.H), THREADS, bytes, backend->stream>>>(a, y, lse);
    return mf_cuda_check(cudaGetLastError(), "attention", error);
}

template <int D>
enum mf_status run_gradient(const mf_cuda_backend *backend, const mf_cuda_heads &a, mf_cuda_heads_out dq,
                            mf_cuda_heads_out dk, mf_cuda_heads_out dv, struct mf_error *error) {
    constexpr int bytes = (2 * TILE + 4 * STEP<D>) * PITCH<D> * (int)sizeof(bf16);
    enum mf_status status = allow_shared(key_gradient<D>, bytes, error);
    if (status == MF_OK)
        status = allow_shared(query_gradient<D>, bytes, error);
    if (status != MF_OK)
        return status;
    if (a.C)
        key_gradient<D><<<dim3(most_tiles(a.C, a.S), (unsigned)a.G), THREADS, bytes, backend->stream>>>(a, dk, dv);
    if (a.T)
        query_gradient<D><<<dim3(most_tiles(a.T, a.S), (unsigned)a.H), THREADS, bytes, backend->stream>>>(a, dq);
    return mf_cuda_check(cudaGetLastError(), "attention_gradient", error);
}

} // namespace

extern "C" enum mf_status mf_cuda_attention_tensor(const struct mf_cuda_backend *backend,
                                                   const struct mf_cuda_heads *a,
                                                   struct mf_cuda_heads_out y, float *lse,
                                                   struct mf_error *error) {
    return a->d == 64 ? run_forward<64>(backend, *a, y, lse, error) : run_forward<128>(backend, *a, y, lse, error);
}

extern "C" enum mf_status mf_cuda_attention_gradient_tensor(const struct mf_cuda_backend *backend,
                                                            const struct mf_cuda_heads *a,
                                                            struct mf_cuda_heads_out dq,
                                                            struct mf_cuda_heads_out dk,
                                                            struct mf_cuda_heads_out dv,
                                                            struct mf_error *error) {
    return a->d == 64 ? run_gradient<64>(backend, *a, dq, dk, dv, error)
                      : run_gradient<128>(backend, *a, dq, dk, dv, error);
}
