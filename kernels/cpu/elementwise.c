#include "kernels/cpu/fast.h"
#include "kernels/cpu/rows.h"
#include "kernels/random.h"

/* An array of any rank as `rows` rows of `width` contiguous elements. */
struct row_walk {
    int64_t rows, width;
};

static struct row_walk walk(const struct mf_array *array) {
    int64_t width = array->dim[array->rank - 1];
    return (struct row_walk){width > 0 ? mf_array_elements(array) / width : 0, width};
}

/* Where row `row` of the walk begins. */
static int64_t row_at(const struct mf_array *array, int64_t row) {
    int64_t at = 0;
    for (int axis = array->rank - 2; axis >= 0; axis--) {
        at += row % array->dim[axis] * array->stride[axis];
        row /= array->dim[axis];
    }
    return at;
}

static enum mf_status add(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *a = &call->in[0], *b = &call->in[1], *y = &call->out[0]; // y may be a
    struct row_walk all = walk(y);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < all.rows; r++) {
        int64_t from_a = row_at(a, r), from_b = row_at(b, r), to = row_at(y, r);
        float left[MF_STRETCH], right[MF_STRETCH];
        for (int64_t start = 0; start < all.width; start += MF_STRETCH) {
            int64_t n = mf_stretch_length(start, all.width);
            mf_load(a, from_a + start, left, n);
            mf_load(b, from_b + start, right, n);
            for (int64_t i = 0; i < n; i++)
                left[i] += right[i];
            mf_store(y, to + start, left, n);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_add[1] = {{.function = add}};

/* y[to ..) (n) = addend[at ..), 0 without an addend. In place there is nothing to do. */
static void copy_columns(const struct mf_array *addend, int64_t at, const struct mf_array *y, int64_t to,
                         int64_t n) {
    float value[MF_STRETCH] = {0};
    if (addend->data == y->data)
        return;
    for (int64_t start = 0; start < n; start += MF_STRETCH) {
        int64_t length = mf_stretch_length(start, n);
        if (addend->data)
            mf_load(addend, at + start, value, length);
        mf_store(y, to + start, value, length);
    }
}

static enum mf_status add_columns(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *part = &call->in[0];   // (T, W)
    const struct mf_array *addend = &call->in[1]; // (T, M) or none
    const struct mf_array *y = &call->out[0];     // (T, M), may be addend
    const int64_t first = call->node->a.columns.first, W = part->dim[1], end = first + W;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < y->dim[0]; t++) {
        int64_t at = t * addend->stride[0], to = t * y->stride[0];
        float sum[MF_STRETCH] = {0}, more[MF_STRETCH];
        copy_columns(addend, at, y, to, first);
        for (int64_t start = 0; start < W; start += MF_STRETCH) {
            int64_t n = mf_stretch_length(start, W);
            mf_load(part, t * part->stride[0] + start, more, n);
            if (addend->data)
                mf_load(addend, at + first + start, sum, n);
            for (int64_t i = 0; i < n; i++)
                more[i] += sum[i];
            mf_store(y, to + first + start, more, n);
        }
        copy_columns(addend, at + end, y, to + end, y->dim[1] - end);
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_add_columns[1] = {{.function = add_columns}};

/* Value of the activation at g and its slope. */
static inline float silu(float g, float *slope) {
    float sigmoid = 1.0f / (1.0f + mf_exp(-g));
    *slope = sigmoid * (1.0f + g * (1.0f - sigmoid));
    return g * sigmoid;
}
static inline float gelu(float g, float *slope) {
    const float root = 0.79788456f, cubic = 0.044715f; /* sqrt(2 / pi) */
    float t = mf_tanh(root * (g + cubic * g * g * g));
    *slope = 0.5f * (1.0f + t) + 0.5f * g * (1.0f - t * t) * root * (1.0f + 3.0f * cubic * g * g);
    return 0.5f * g * (1.0f + t);
}

/* value, slope (n) of gate (n). */
static void activate(enum mf_activation activation, const float *restrict gate, float *restrict value,
                     float *restrict slope, int64_t n) {
    if (activation == MF_ACTIVATION_SILU)
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            value[i] = silu(gate[i], &slope[i]);
    else
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            value[i] = gelu(gate[i], &slope[i]);
}

static enum mf_status gated_activation(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *gate = &call->in[0], *up = &call->in[1]; // (T, F)
    const struct mf_array *y = &call->out[0];                       // (T, F), may be gate
    enum mf_activation activation = call->node->a.gated.activation;
    int64_t T = gate->dim[0], F = gate->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; t++) {
        float g[MF_STRETCH], u[MF_STRETCH], value[MF_STRETCH], slope[MF_STRETCH];
        for (int64_t start = 0; start < F; start += MF_STRETCH) {
            int64_t n = mf_stretch_length(start, F);
            mf_load(gate, t * gate->stride[0] + start, g, n);
            mf_load(up, t * up->stride[0] + start, u, n);
            activate(activation, g, value, slope, n);
            for (int64_t i = 0; i < n; i++)
                value[i] *= u[i];
            mf_store(y, t * y->stride[0] + start, value, n);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_gated_activation[1] = {{.function = gated_activation}};

static enum mf_status gated_activation_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *gate = &call->in[0], *up = &call->in[1], *dy = &call->in[2]; // (T, F)
    const struct mf_array *dgate = &call->out[0], *dup = &call->out[1]; // (T, F), dgate may be gate
    enum mf_activation activation = call->node->a.gated.activation;
    int64_t T = gate->dim[0], F = gate->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; t++) {
        float g[MF_STRETCH], u[MF_STRETCH], out[MF_STRETCH], value[MF_STRETCH], slope[MF_STRETCH];
        for (int64_t start = 0; start < F; start += MF_STRETCH) {
            int64_t n = mf_stretch_length(start, F);
            mf_load(gate, t * gate->stride[0] + start, g, n);
            mf_load(up, t * up->stride[0] + start, u, n);
            mf_load(dy, t * dy->stride[0] + start, out, n);
            activate(activation, g, value, slope, n);
            for (int64_t i = 0; i < n; i++) {
                slope[i] *= u[i] * out[i];
                value[i] *= out[i];
            }
            mf_store(dgate, t * dgate->stride[0] + start, slope, n);
            mf_store(dup, t * dup->stride[0] + start, value, n);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_gated_activation_gradient[1] = {{.function = gated_activation_gradient}};

static enum mf_status activation(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *y = &call->out[0]; // (T, F), y may be x
    int64_t T = x->dim[0], F = x->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; t++) {
        float from[MF_STRETCH], value[MF_STRETCH], slope[MF_STRETCH];
        for (int64_t start = 0; start < F; start += MF_STRETCH) {
            int64_t n = mf_stretch_length(start, F);
            mf_load(x, t * x->stride[0] + start, from, n);
            activate(call->node->a.gated.activation, from, value, slope, n);
            mf_store(y, t * y->stride[0] + start, value, n);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_activation[1] = {{.function = activation}};

static enum mf_status activation_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *dy = &call->in[1]; // (T, F)
    const struct mf_array *dx = &call->out[0];                   // (T, F), may be x
    int64_t T = x->dim[0], F = x->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; t++) {
        float from[MF_STRETCH], out[MF_STRETCH], value[MF_STRETCH], slope[MF_STRETCH];
        for (int64_t start = 0; start < F; start += MF_STRETCH) {
            int64_t n = mf_stretch_length(start, F);
            mf_load(x, t * x->stride[0] + start, from, n);
            mf_load(dy, t * dy->stride[0] + start, out, n);
            activate(call->node->a.gated.activation, from, value, slope, n);
            for (int64_t i = 0; i < n; i++)
                slope[i] *= out[i];
            mf_store(dx, t * dx->stride[0] + start, slope, n);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_activation_gradient[1] = {{.function = activation_gradient}};

enum { QUADS = MF_STRETCH / 4 };

/* Upper and lower words of the products of `c` and `multiplier`. */
static inline void multiply_words(mf_words c, uint32_t multiplier, mf_words *upper, mf_words *lower) {
    const mf_word_pairs all = (mf_word_pairs)(multiplier - (mf_words){0});
    const mf_word_pairs even = mf_multiply_lower((mf_word_pairs)c, all);
    const mf_word_pairs odd = mf_multiply_lower((mf_word_pairs)c >> 32, all);
    *lower = (mf_words)((even & 0xffffffffu) | (odd << 32));
    *upper = (mf_words)((even >> 32) | (odd & 0xffffffff00000000u));
}

enum { MOST_VECTORS = 4 }; /* side by side: a round waits for its products */

/* mf_random_words of `vectors` times MF_LANES groups of four columns from group `first` on: word[w][q] is for
 * column 4 * (first + q) + w. */
static inline void random_vectors(uint64_t key, uint32_t stream, uint32_t row, uint32_t position,
                                  uint32_t first, uint32_t *word[4], int vectors) {
    static const uint32_t count[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    mf_words c[4][MOST_VECTORS], upper[2], lower[2];
    uint32_t key0 = (uint32_t)key, key1 = (uint32_t)(key >> 32);
    MF_UNROLL
    for (int v = 0; v < vectors; v++) {
        memcpy(&c[0][v], count, sizeof c[0][v]);
        c[0][v] += first + (uint32_t)(v * MF_LANES);
        c[1][v] = position - (mf_words){0};
        c[2][v] = row - (mf_words){0};
        c[3][v] = stream - (mf_words){0};
    }
    for (int round = 0; round < MF_PHILOX_ROUNDS; round++) {
        MF_UNROLL
        for (int v = 0; v < vectors; v++) {
            multiply_words(c[0][v], MF_PHILOX_MULTIPLIER_0, &upper[0], &lower[0]);
            multiply_words(c[2][v], MF_PHILOX_MULTIPLIER_1, &upper[1], &lower[1]);
            c[0][v] = upper[1] ^ c[1][v] ^ key0;
            c[2][v] = upper[0] ^ c[3][v] ^ key1;
            c[1][v] = lower[1];
            c[3][v] = lower[0];
        }
        key0 += MF_PHILOX_WEYL_0;
        key1 += MF_PHILOX_WEYL_1;
    }
    MF_UNROLL
    for (int v = 0; v < vectors; v++)
        for (int w = 0; w < 4; w++)
            memcpy(word[w] + v * MF_LANES, &c[w][v], sizeof c[w][v]);
}

/* The words of at least `quads` groups from `first` on. */
static void random_words(uint64_t key, uint32_t stream, uint32_t row, uint32_t position, uint32_t first,
                         uint32_t word[restrict 4][QUADS], int64_t quads) {
    int64_t q = 0;
    while (q < quads) {
        const bool many = quads - q >= MOST_VECTORS * MF_LANES;
        uint32_t *to[4] = {word[0] + q, word[1] + q, word[2] + q, word[3] + q};
        if (many)
            random_vectors(key, stream, row, position, first + (uint32_t)q, to, MOST_VECTORS);
        else
            random_vectors(key, stream, row, position, first + (uint32_t)q, to, 1);
        q += many ? MOST_VECTORS * MF_LANES : MF_LANES;
    }
}

/* The four columns are written out: so the compiler interleaves vectors instead of picking elements. */
static void keep_or_zero(uint32_t word[restrict 4][QUADS], int64_t quads, uint32_t threshold, float scale,
                         float *restrict value) {
    const uint32_t *restrict c0 = word[0], *restrict c1 = word[1], *restrict c2 = word[2],
                             *restrict c3 = word[3];
#pragma omp simd
    for (int64_t q = 0; q < quads; q++) {
        float v0 = value[4 * q] * scale, v1 = value[4 * q + 1] * scale;
        float v2 = value[4 * q + 2] * scale, v3 = value[4 * q + 3] * scale;
        value[4 * q] = c0[q] >= threshold ? v0 : 0.0f;
        value[4 * q + 1] = c1[q] >= threshold ? v1 : 0.0f;
        value[4 * q + 2] = c2[q] >= threshold ? v2 : 0.0f;
        value[4 * q + 3] = c3[q] >= threshold ? v3 : 0.0f;
    }
}

static enum mf_status dropout(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *y = &call->out[0];           // (T, D), y may be x
    const int32_t *rows = call->in[1].data, *positions = call->in[2].data; // (T)
    const struct mf_dropout_attributes *a = &call->node->a.dropout;
    uint64_t key = mf_random_key(call->step->seed, call->step->step);
    uint32_t threshold = mf_dropout_threshold(a->rate);
    float scale = mf_dropout_scale(a->rate);
    int64_t T = x->dim[0], D = x->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; t++) {
        float value[MF_STRETCH] = {0};
        uint32_t word[4][QUADS];
        for (int64_t start = 0; start < D; start += MF_STRETCH) {
            int64_t n = mf_stretch_length(start, D), quads = (n + 3) / 4;
            mf_load(x, t * x->stride[0] + start, value, n);
            random_words(key, a->stream, (uint32_t)rows[t], (uint32_t)positions[t], (uint32_t)(start / 4),
                         word, quads);
            keep_or_zero(word, quads, threshold, scale, value);
            mf_store(y, t * y->stride[0] + start, value, n);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_dropout[1] = {{.function = dropout}};

static enum mf_status rope(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *y = &call->out[0]; // (T, H, d), y may be x
    const struct mf_array *table = &call->in[1];                 // (T, R)
    int64_t T = x->dim[0], H = x->dim[1], d = x->dim[2], half = table->dim[1] / 2;
    float sign = call->node->a.rope.inverse ? -1.0f : 1.0f;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; t++)
        for (int64_t start = 0; start < half; start += MF_STRETCH) {
            int64_t n = mf_stretch_length(start, half);
            float cosine[MF_STRETCH], sine[MF_STRETCH], a[MF_STRETCH], b[MF_STRETCH];
            mf_load(table, t * table->stride[0] + start, cosine, n);
            mf_load(table, t * table->stride[0] + half + start, sine, n);
            for (int64_t h = 0; h < H; h++) {
                int64_t from = t * x->stride[0] + h * x->stride[1] + start;
                int64_t to = t * y->stride[0] + h * y->stride[1] + start;
                mf_load(x, from, a, n);
                mf_load(x, from + half, b, n);
#pragma omp simd
                for (int64_t i = 0; i < n; i++) {
                    float first = a[i], second = b[i], turned = sign * sine[i];
                    a[i] = first * cosine[i] - second * turned;
                    b[i] = second * cosine[i] + first * turned;
                }
                mf_store(y, to, a, n);
                mf_store(y, to + half, b, n);
            }
        }
    if (2 * half < d && y->data != x->data)
        for (int64_t t = 0; t < T; t++)
            for (int64_t h = 0; h < H; h++)
                for (int64_t i = 2 * half; i < d; i++)
                    mf_array_set(y, t * y->stride[0] + h * y->stride[1] + i,
                                 mf_array_get(x, t * x->stride[0] + h * x->stride[1] + i));
    return MF_OK;
}
const struct mf_kernel mf_fast_rope[1] = {{.function = rope}};
