/* Attention over variable-length sequences, forward and backward, without the (L, L) matrix in memory: online
 * softmax over blocks of keys, the log-sum-exp of every row kept for the backward pass (Dao et al.,
 * "FlashAttention", 2022). A block of scores is held transposed, Sᵀ (keys, queries): then maxima and sums run
 * across whole vectors, and only the block of queries needs a transposed copy, once for all its keys.
 *
 * A task is one (sequence, query head). In the backward pass it owns its dq and a dk and dv of its own head;
 * those of the heads that share a key head are added afterwards in head order. So nothing depends on timing.
 */
#include "kernels/cpu/block_product.h"
#include "kernels/cpu/fast.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/threads.h"
#include <math.h>

enum { QUERIES = 64, KEYS = 64 };         /* a block; both multiples of every MF_LANES */
enum { FEW_QUERIES = 4 };                 /* up to so many are attended one by one, as in decoding */
static const float LOWEST_SCORE = -1e30f; /* the maximum of no scores: finite, so that differences are too */

/* The arrays of a call under one name, forward or backward. */
struct attention {
    const struct mf_array *q, *k, *v;           // (T, H, d), (C, G, d)
    const struct mf_array *y, *lse;             // (T, H, d), (T, H) f32
    const struct mf_array *dy, *dq, *dk, *dv;   // like y, q, k, v; backward only
    const int32_t *query_offsets, *key_offsets; // (S + 1)
    const int32_t *key_lengths;                 // (S) or NULL
    int64_t sequences, heads, group, size;      // S, H, H / G, d
    int64_t longest_key;
    struct mf_attention_attributes a;
    float *scratch;
};

/* One sequence, and in it one block of queries against one block of keys. */
struct block {
    int64_t query_row, query_count, key_row, key_count; /* of the sequence: rows in the arrays */
    int64_t head;
    int64_t first_query, queries; /* of the block: within the sequence */
    int64_t first_key, keys;
    int64_t shift; /* key_count - query_count: query i stands at key position i + shift */
};

/* One thread's scratch. L: longest key length of the call. */
struct scratch {
    float *keys, *values;            /* (L, d): this head's k and v */
    float *query, *query_transposed; /* (QUERIES, d), (d, QUERIES): unused queries are zero */
    float *output;                   /* (QUERIES, d): y, or dq in the backward pass */
    float *dout, *dout_transposed;   /* (QUERIES, d), (d, QUERIES): backward only */
    float *score, *dscore;           /* (KEYS, QUERIES): Sᵀ then Pᵀ; dPᵀ then dSᵀ */
};

static int64_t scratch_floats(bool backward, int64_t longest_key, int64_t size) {
    return 2 * longest_key * size + (backward ? 5 : 3) * QUERIES * size + 2 * KEYS * QUERIES;
}

static struct scratch scratch_of_thread(const struct attention *a, bool backward) {
    int64_t block = QUERIES * a->size;
    struct scratch own = {0};
    own.score = a->scratch + mf_thread() * scratch_floats(backward, a->longest_key, a->size);
    own.dscore = own.score + KEYS * QUERIES;
    own.query = own.dscore + KEYS * QUERIES;
    own.query_transposed = own.query + block;
    own.output = own.query_transposed + block;
    own.dout = own.output + block;
    own.dout_transposed = own.dout + block;
    own.keys = backward ? own.dout_transposed + block : own.output + block;
    own.values = own.keys + a->longest_key * a->size;
    return own;
}

static struct block sequence_block(const struct attention *a, int64_t sequence, int64_t head) {
    struct block b = {
        .query_row = a->query_offsets[sequence], .key_row = a->key_offsets[sequence], .head = head};
    b.query_count = a->query_offsets[sequence + 1] - b.query_row;
    b.key_count = a->key_lengths ? a->key_lengths[sequence] : a->key_offsets[sequence + 1] - b.key_row;
    b.shift = b.key_count - b.query_count;
    return b;
}

static void finish_description(struct attention *a) {
    a->heads = a->q->dim[1];
    a->size = a->q->dim[2];
    a->group = a->heads / a->k->dim[1];
    for (int64_t s = 0; s < a->sequences; s++) {
        int64_t keys = sequence_block(a, s, 0).key_count;
        a->longest_key = keys > a->longest_key ? keys : a->longest_key;
    }
}

static int64_t element(const struct mf_array *array, int64_t row, int64_t head) {
    return row * array->stride[0] + head * array->stride[1];
}

/* The keys that a block of queries sees: [*first, *end) within the sequence, *first a multiple of KEYS. */
static void visible_keys(const struct attention *a, const struct block *b, int64_t *first, int64_t *end) {
    int64_t oldest = a->a.window > 0 ? b->first_query + b->shift - a->a.window + 1 : 0;
    int64_t newest = b->first_query + b->queries - 1 + b->shift;
    *first = oldest > 0 ? oldest / KEYS * KEYS : 0;
    *end = a->a.causal && newest + 1 < b->key_count ? newest + 1 : b->key_count;
}

/* The block's rows as plain (QUERIES, d) and transposed (d, QUERIES); rows past b->queries become zero. */
static void load_queries(const struct attention *a, const struct mf_array *from, const struct block *b,
                         float *restrict plain, float *restrict transposed) {
    int64_t d = a->size;
    for (int64_t i = 0; i < b->queries; i++)
        mf_load(from, element(from, b->query_row + b->first_query + i, b->head), plain + i * d, d);
    memset(plain + b->queries * d, 0, (size_t)((QUERIES - b->queries) * d) * sizeof(float));
    for (int64_t c = 0; c < d; c++)
        for (int64_t i = 0; i < QUERIES; i++)
            transposed[c * QUERIES + i] = plain[i * d + c];
}

static void load_keys(const struct attention *a, const struct block *b, const struct scratch *own) {
    int64_t d = a->size, key_head = b->head / a->group;
    for (int64_t j = 0; j < b->key_count; j++) {
        mf_load(a->k, element(a->k, b->key_row + j, key_head), own->keys + j * d, d);
        mf_load(a->v, element(a->v, b->key_row + j, key_head), own->values + j * d, d);
    }
}

/* out (keys, QUERIES) = rows (keys, d) · transposed (d, QUERIES) */
static void block_scores(const float *rows, const float *transposed, int64_t keys, int64_t d, float *out) {
    struct mf_block product = {
        .a = rows, .a_row = d, .a_column = 1, .b = transposed, .b_row = QUERIES, .c_row = QUERIES};
    product.c = out;
    mf_block_product(&product, keys, QUERIES, d, 0);
}

/* Scales, soft-caps and masks Sᵀ in place; masked scores become -inf. */
static void finish_scores(const struct attention *a, const struct block *b, float *restrict score) {
    int64_t n = b->keys * QUERIES;
    float scale = a->a.scale, cap = a->a.soft_cap;
    for (int64_t x = 0; x < n; x++)
        score[x] *= scale;
    if (cap > 0)
        for (int64_t x = 0; x < n; x++)
            score[x] = cap * mf_tanh(score[x] / cap);
    int64_t place = b->first_query + b->shift, last = b->first_key + b->keys - 1;
    bool future = a->a.causal && last > place;
    bool past = a->a.window > 0 && b->first_key <= place + b->queries - 1 - a->a.window;
    if (!future && !past)
        return;
    for (int64_t j = 0; j < b->keys; j++) {
        float *row = score + j * QUERIES;
        int64_t distance = place - (b->first_key + j); /* of the block's query 0 from this key */
        for (int64_t i = 0; i < QUERIES; i++)
            if ((a->a.causal && distance + i < 0) || (a->a.window > 0 && distance + i >= a->a.window))
                row[i] = -INFINITY;
    }
}

/* Sᵀ becomes Pᵀ = exp(S - maximum); maximum and sum of every query advance; output is rescaled to match. */
static void online_softmax(int64_t keys, int64_t d, float *restrict score, float *restrict maximum,
                           float *restrict sum, float *restrict output) {
    float newest[QUERIES], rescale[QUERIES], total[QUERIES];
    memcpy(newest, maximum, sizeof newest);
    for (int64_t j = 0; j < keys; j++)
        for (int64_t i = 0; i < QUERIES; i++)
            newest[i] = score[j * QUERIES + i] > newest[i] ? score[j * QUERIES + i] : newest[i];
    for (int64_t i = 0; i < QUERIES; i++) {
        rescale[i] = mf_exp(maximum[i] - newest[i]);
        maximum[i] = newest[i];
        total[i] = sum[i] * rescale[i];
    }
    for (int64_t j = 0; j < keys; j++)
        for (int64_t i = 0; i < QUERIES; i++) {
            float p = mf_exp(score[j * QUERIES + i] - newest[i]);
            score[j * QUERIES + i] = p;
            total[i] += p;
        }
    memcpy(sum, total, sizeof total);
    for (int64_t i = 0; i < QUERIES; i++)
        if (rescale[i] != 1.0f)
            for (int64_t c = 0; c < d; c++)
                output[i * d + c] *= rescale[i];
}

static void store_query(const struct attention *a, const struct block *b, int64_t i, float *restrict output,
                        float maximum, float sum) {
    int64_t row = b->query_row + b->first_query + i;
    float inverse = sum > 0 ? 1.0f / sum : 0.0f;
    for (int64_t c = 0; c < a->size; c++)
        output[c] *= inverse;
    mf_store(a->y, element(a->y, row, b->head), output, a->size);
    ((float *)a->lse->data)[row * a->lse->stride[0] + b->head] = sum > 0 ? maximum + logf(sum) : -INFINITY;
}

static void forward_block(const struct attention *a, struct block b, const struct scratch *own) {
    int64_t d = a->size, first, end;
    float maximum[QUERIES], sum[QUERIES] = {0};
    for (int64_t i = 0; i < QUERIES; i++)
        maximum[i] = LOWEST_SCORE;
    load_queries(a, a->q, &b, own->query, own->query_transposed);
    memset(own->output, 0, (size_t)(QUERIES * d) * sizeof(float));
    visible_keys(a, &b, &first, &end);
    for (b.first_key = first; b.first_key < end; b.first_key += KEYS) {
        b.keys = end - b.first_key < KEYS ? end - b.first_key : KEYS;
        block_scores(own->keys + b.first_key * d, own->query_transposed, b.keys, d, own->score);
        finish_scores(a, &b, own->score);
        online_softmax(b.keys, d, own->score, maximum, sum, own->output);
        /* y (queries, d) += P (queries, keys) · v (keys, d) */
        struct mf_block product = {own->score, 1, QUERIES, own->values + b.first_key * d, d, own->output, d};
        mf_block_product(&product, b.queries, d, b.keys, 1);
    }
    for (int64_t i = 0; i < b.queries; i++)
        store_query(a, &b, i, own->output + i * d, maximum[i], sum[i]);
}

/* One query without blocks: reads each key and value once, where it lies. */
static void forward_query(const struct attention *a, struct block b, const struct scratch *own) {
    int64_t d = a->size, key_head = b.head / a->group, first, end;
    float maximum = LOWEST_SCORE, sum = 0, *query = own->query, *row = own->query_transposed,
          *output = own->output;
    int64_t place = b.first_query + b.shift;
    mf_load(a->q, element(a->q, b.query_row + b.first_query, b.head), query, d);
    memset(output, 0, (size_t)d * sizeof *output);
    visible_keys(a, &b, &first, &end);
    if (a->a.window > 0 && place - a->a.window + 1 > first)
        first = place - a->a.window + 1;
    for (int64_t j = first; j < end; j++) {
        float score = 0;
        mf_load(a->k, element(a->k, b.key_row + j, key_head), row, d);
#pragma omp simd reduction(+ : score)
        for (int64_t c = 0; c < d; c++)
            score += query[c] * row[c];
        score *= a->a.scale;
        if (a->a.soft_cap > 0)
            score = a->a.soft_cap * mf_tanh(score / a->a.soft_cap);
        float newest = score > maximum ? score : maximum;
        float rescale = mf_exp(maximum - newest), p = mf_exp(score - newest);
        maximum = newest;
        sum = sum * rescale + p;
        mf_load(a->v, element(a->v, b.key_row + j, key_head), row, d);
        for (int64_t c = 0; c < d; c++)
            output[c] = output[c] * rescale + p * row[c];
    }
    store_query(a, &b, 0, output, maximum, sum);
}

static void forward_task(const struct attention *a, struct block b, const struct scratch *own) {
    int64_t step = b.query_count <= FEW_QUERIES ? 1 : QUERIES;
    if (step > 1)
        load_keys(a, &b, own);
    for (; b.first_query < b.query_count; b.first_query += step) {
        b.queries = b.query_count - b.first_query < step ? b.query_count - b.first_query : step;
        if (step > 1)
            forward_block(a, b, own);
        else
            forward_query(a, b, own);
    }
}

/* Rows past the sequences' last become zero. */
static void zero_tail(const struct mf_array *array, int64_t first) {
    for (int64_t row = first; row < array->dim[0]; row++)
        for (int64_t h = 0; h < array->dim[1]; h++)
            memset((char *)array->data + (size_t)element(array, row, h) * mf_dtype_bytes(array->dtype), 0,
                   (size_t)array->dim[2] * mf_dtype_bytes(array->dtype));
}

static enum mf_status attention(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    struct attention a = {.q = &call->in[0],
                          .k = &call->in[1],
                          .v = &call->in[2],
                          .y = &call->out[0],
                          .lse = &call->out[1],
                          .query_offsets = call->in[3].data,
                          .key_offsets = call->in[4].data,
                          .key_lengths = call->in[5].data,
                          .sequences = call->in[3].dim[0] - 1,
                          .a = call->node->a.attention,
                          .scratch = call->workspace[1].data};
    finish_description(&a);
#pragma omp parallel
    {
        struct scratch own = scratch_of_thread(&a, false);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < a.sequences * a.heads; task++)
            forward_task(&a, sequence_block(&a, task / a.heads, task % a.heads), &own);
    }
    int64_t used = a.query_offsets[a.sequences];
    zero_tail(a.y, used);
    for (int64_t row = used; row < a.lse->dim[0]; row++)
        memset((float *)a.lse->data + row * a.lse->stride[0], 0, (size_t)a.heads * sizeof(float));
    return MF_OK;
}

static size_t attention_workspace(const struct mf_kernel_call *call) {
    return (size_t)(mf_threads() * scratch_floats(false, call->in[1].dim[0], call->in[0].dim[2])) *
           sizeof(float);
}
const struct mf_kernel mf_fast_attention[1] = {
    {.function = attention, .workspace_bytes = attention_workspace}};

/* Pᵀ from Sᵀ and dSᵀ from dPᵀ, both in place; dS is the gradient of the products q·k before the scale. */
static void score_gradient(const struct attention *a, int64_t keys, const float *restrict lse,
                           const float *restrict delta, float *restrict score, float *restrict dscore) {
    float scale = a->a.scale, cap = a->a.soft_cap;
    for (int64_t j = 0; j < keys; j++)
        for (int64_t i = 0; i < QUERIES; i++) {
            float s = score[j * QUERIES + i], p = mf_exp(s - lse[i]);
            dscore[j * QUERIES + i] = p * (dscore[j * QUERIES + i] - delta[i]) * scale;
            if (cap > 0) /* masked scores are -inf, their p is 0 */
                dscore[j * QUERIES + i] *= p > 0 ? 1.0f - (s / cap) * (s / cap) : 0.0f;
            score[j * QUERIES + i] = p;
        }
}

/* lse and delta = Σ dy·y of the block's queries; those that are unused or see no key get +big, so their P is
 * 0. */
static void load_row_sums(const struct attention *a, const struct block *b, const struct scratch *own,
                          float *restrict lse, float *restrict delta) {
    int64_t d = a->size;
    for (int64_t i = 0; i < QUERIES; i++) {
        delta[i] = 0;
        lse[i] = -LOWEST_SCORE;
        if (i >= b->queries)
            continue;
        int64_t row = b->query_row + b->first_query + i;
        const float *y = own->output, *dy = own->dout + i * d;
        float sum = 0, own_lse = ((const float *)a->lse->data)[row * a->lse->stride[0] + b->head];
        mf_load(a->y, element(a->y, row, b->head), own->output, d);
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < d; c++)
            sum += y[c] * dy[c];
        delta[i] = sum;
        if (own_lse > LOWEST_SCORE)
            lse[i] = own_lse;
    }
}

/* dk, dv (key_count, H·d): this head's sums, from the sequence's first key on. */
static void backward_block(const struct attention *a, struct block b, const struct scratch *own, float *dk,
                           float *dv) {
    int64_t d = a->size, wide = a->heads * d, first, end;
    float lse[QUERIES], delta[QUERIES];
    load_queries(a, a->q, &b, own->query, own->query_transposed);
    load_queries(a, a->dy, &b, own->dout, own->dout_transposed);
    load_row_sums(a, &b, own, lse, delta);
    memset(own->output, 0, (size_t)(QUERIES * d) * sizeof(float));
    visible_keys(a, &b, &first, &end);
    for (b.first_key = first; b.first_key < end; b.first_key += KEYS) {
        b.keys = end - b.first_key < KEYS ? end - b.first_key : KEYS;
        const float *keys = own->keys + b.first_key * d;
        block_scores(keys, own->query_transposed, b.keys, d, own->score);
        finish_scores(a, &b, own->score);
        block_scores(own->values + b.first_key * d, own->dout_transposed, b.keys, d, own->dscore);
        score_gradient(a, b.keys, lse, delta, own->score, own->dscore);
        /* dv (keys, d) += Pᵀ (keys, queries) · dy (queries, d); dk += dSᵀ · q; dq (queries, d) += dS · k */
        struct mf_block to_dv = {
            .a = own->score, .a_row = QUERIES, .a_column = 1, .b = own->dout, .b_row = d};
        struct mf_block to_dk = {
            .a = own->dscore, .a_row = QUERIES, .a_column = 1, .b = own->query, .b_row = d};
        struct mf_block to_dq = {own->dscore, 1, QUERIES, keys, d, own->output, d};
        to_dv.c = dv + b.first_key * wide;
        to_dk.c = dk + b.first_key * wide;
        to_dv.c_row = to_dk.c_row = wide;
        mf_block_product(&to_dv, b.keys, d, b.queries, 1);
        mf_block_product(&to_dk, b.keys, d, b.queries, 1);
        mf_block_product(&to_dq, b.queries, d, b.keys, 1);
    }
    for (int64_t i = 0; i < b.queries; i++)
        mf_store(a->dq, element(a->dq, b.query_row + b.first_query + i, b.head), own->output + i * d, d);
}

static void backward_task(const struct attention *a, struct block b, const struct scratch *own, float *dk,
                          float *dv) {
    int64_t d = a->size, wide = a->heads * d;
    load_keys(a, &b, own);
    for (int64_t j = 0; j < b.key_count; j++) {
        memset(dk + j * wide, 0, (size_t)d * sizeof *dk);
        memset(dv + j * wide, 0, (size_t)d * sizeof *dv);
    }
    for (; b.first_query < b.query_count; b.first_query += QUERIES) {
        b.queries = b.query_count - b.first_query < QUERIES ? b.query_count - b.first_query : QUERIES;
        backward_block(a, b, own, dk, dv);
    }
}

/* Adds one key row's sums (H, d) over the heads of each group, in head order. */
static void reduce_heads(const struct attention *a, float *restrict partial, const struct mf_array *to,
                         int64_t row) {
    int64_t d = a->size;
    for (int64_t key_head = 0; key_head < a->heads / a->group; key_head++) {
        float *sum = partial + key_head * a->group * d;
        for (int64_t g = 1; g < a->group; g++)
#pragma omp simd
            for (int64_t c = 0; c < d; c++)
                sum[c] += sum[g * d + c];
        mf_store(to, element(to, row, key_head), sum, d);
    }
}

static enum mf_status attention_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    struct attention a = {.q = &call->in[0],
                          .k = &call->in[1],
                          .v = &call->in[2],
                          .y = &call->in[3],
                          .lse = &call->in[4],
                          .dy = &call->in[5],
                          .dq = &call->out[0],
                          .dk = &call->out[1],
                          .dv = &call->out[2],
                          .query_offsets = call->in[6].data,
                          .key_offsets = call->in[7].data,
                          .sequences = call->in[6].dim[0] - 1,
                          .a = call->node->a.attention,
                          .scratch = call->workspace[1].data};
    finish_description(&a);
    int64_t wide = a.heads * a.size, key_rows = a.key_offsets[a.sequences];
    float *dk = a.scratch + mf_threads() * scratch_floats(true, a.longest_key, a.size); /* (C, H·d) */
    float *dv = dk + key_rows * wide;                                                   /* (C, H·d) */
#pragma omp parallel
    {
        struct scratch own = scratch_of_thread(&a, true);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < a.sequences * a.heads; task++) {
            struct block b = sequence_block(&a, task / a.heads, task % a.heads);
            int64_t at = b.key_row * wide + b.head * a.size;
            backward_task(&a, b, &own, dk + at, dv + at);
        }
#pragma omp for schedule(static)
        for (int64_t row = 0; row < key_rows; row++) {
            reduce_heads(&a, dk + row * wide, a.dk, row);
            reduce_heads(&a, dv + row * wide, a.dv, row);
        }
    }
    zero_tail(a.dq, a.query_offsets[a.sequences]);
    zero_tail(a.dk, key_rows);
    zero_tail(a.dv, key_rows);
    return MF_OK;
}

static size_t attention_gradient_workspace(const struct mf_kernel_call *call) {
    int64_t C = call->in[1].dim[0], H = call->in[0].dim[1], d = call->in[0].dim[2];
    return (size_t)(mf_threads() * scratch_floats(true, C, d) + 2 * C * H * d) * sizeof(float);
}
const struct mf_kernel mf_fast_attention_gradient[1] = {
    {.function = attention_gradient, .workspace_bytes = attention_gradient_workspace}};
