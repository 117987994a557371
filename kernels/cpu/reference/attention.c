#include "kernels/cpu/array.h"
#include "kernels/cpu/reference/reference.h"
#include <math.h>

/* One sequence of the call: query rows and key rows. */
struct sequence {
    int64_t query, queries, key, keys;
};

static struct sequence sequence_of(const struct mf_array *query_offsets, const struct mf_array *key_offsets,
                                   const struct mf_array *key_lengths, int64_t s) {
    struct sequence own = {.query = mf_array_integer(query_offsets, s),
                           .key = mf_array_integer(key_offsets, s)};
    own.queries = mf_array_integer(query_offsets, s + 1) - own.query;
    own.keys = key_lengths && key_lengths->data ? mf_array_integer(key_lengths, s)
                                                : mf_array_integer(key_offsets, s + 1) - own.key;
    return own;
}

static int64_t element(const struct mf_array *array, int64_t row, int64_t head) {
    return row * array->stride[0] + head * array->stride[1];
}

static double dot(const struct mf_array *a, int64_t a_at, const struct mf_array *b, int64_t b_at, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)mf_array_get(a, a_at + i) * mf_array_get(b, b_at + i);
    return sum;
}

/* Score of query i and key j of a sequence; false when the query does not see the key. *slope is the
 * derivative of the score by q·k. */
static bool score(const struct mf_attention_attributes *a, const struct mf_array *q, const struct mf_array *k,
                  const struct sequence *s, int64_t i, int64_t j, int64_t head, int64_t key_head,
                  double *value, double *slope) {
    int64_t place = s->keys - s->queries + i;
    if ((a->causal && j > place) || (a->window > 0 && j <= place - a->window))
        return false;
    *value =
        a->scale * dot(q, element(q, s->query + i, head), k, element(k, s->key + j, key_head), q->dim[2]);
    *slope = a->scale;
    if (a->soft_cap > 0) {
        double t = tanh(*value / a->soft_cap);
        *value = a->soft_cap * t;
        *slope *= 1 - t * t;
    }
    return true;
}

static void zero_tail(const struct mf_array *y, int64_t first) {
    for (int64_t row = first; row < y->dim[0]; row++)
        for (int64_t h = 0; h < y->dim[1]; h++)
            for (int64_t d = 0; d < y->dim[2]; d++)
                mf_array_set(y, element(y, row, h) + d, 0.0f);
}

/* One query row: y (d) and its log-sum-exp; p (keys) is scratch. */
static void attend(const struct mf_kernel_call *call, const struct sequence *s, int64_t i, int64_t head,
                   double *p) {
    const struct mf_array *q = &call->in[0], *k = &call->in[1], *v = &call->in[2], *y = &call->out[0];
    const struct mf_attention_attributes *a = &call->node->a.attention;
    int64_t key_head = head / (q->dim[1] / k->dim[1]);
    double greatest = -INFINITY, sum = 0, slope;
    for (int64_t j = 0; j < s->keys; j++) {
        if (!score(a, q, k, s, i, j, head, key_head, &p[j], &slope))
            p[j] = -INFINITY;
        greatest = fmax(greatest, p[j]);
    }
    for (int64_t j = 0; j < s->keys; j++) {
        p[j] = p[j] == -INFINITY ? 0 : exp(p[j] - greatest);
        sum += p[j];
    }
    for (int64_t d = 0; d < q->dim[2]; d++) {
        double value = 0;
        for (int64_t j = 0; j < s->keys; j++)
            value += p[j] * mf_array_get(v, element(v, s->key + j, key_head) + d);
        mf_array_set(y, element(y, s->query + i, head) + d, sum > 0 ? (float)(value / sum) : 0.0f);
    }
    const struct mf_array *lse = &call->out[1];
    ((float *)lse->data)[(s->query + i) * lse->stride[0] + head] =
        sum > 0 ? (float)(greatest + log(sum)) : -INFINITY;
}

static enum mf_status attention(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *q = &call->in[0];             // (T, H, d); k, v: in[1], in[2] (C, G, d)
    const struct mf_array *query_offsets = &call->in[3]; // (S + 1)
    const struct mf_array *key_offsets = &call->in[4];   // (S + 1)
    const struct mf_array *key_lengths = &call->in[5];   // (S) or none
    const struct mf_array *y = &call->out[0];            // (T, H, d)
    const struct mf_array *lse = &call->out[1];          // (T, H)
    for (int64_t s = 0; s + 1 < query_offsets->dim[0]; s++) {
        struct sequence own = sequence_of(query_offsets, key_offsets, key_lengths, s);
        for (int64_t head = 0; head < q->dim[1]; head++)
            for (int64_t i = 0; i < own.queries; i++)
                attend(call, &own, i, head, call->workspace[1].data);
    }
    int64_t used = mf_array_last_offset(query_offsets);
    zero_tail(y, used);
    for (int64_t row = used; row < lse->dim[0]; row++)
        for (int64_t head = 0; head < lse->dim[1]; head++)
            ((float *)lse->data)[row * lse->stride[0] + head] = 0.0f;
    return MF_OK;
}

static size_t attention_workspace(const struct mf_kernel_call *call) {
    return (size_t)call->in[1].dim[0] * sizeof(double);
}
const struct mf_kernel mf_reference_attention[1] = {
    {.function = attention, .workspace_bytes = attention_workspace}};

/* Probability of (i, j) and the gradient of q·k; false when not seen. */
static bool pair_gradient(const struct mf_kernel_call *call, const struct sequence *s, int64_t i, int64_t j,
                          int64_t head, int64_t key_head, double *p, double *ds) {
    const struct mf_array *q = &call->in[0], *k = &call->in[1], *v = &call->in[2], *lse = &call->in[4];
    const struct mf_array *dy = &call->in[5], *delta = &call->workspace[0];
    double value, slope;
    if (!score(&call->node->a.attention, q, k, s, i, j, head, key_head, &value, &slope))
        return false;
    int64_t row = s->query + i;
    *p = exp(value - ((const float *)lse->data)[row * lse->stride[0] + head]);
    double dp = dot(dy, element(dy, row, head), v, element(v, s->key + j, key_head), q->dim[2]);
    *ds = *p * (dp - ((const float *)delta->data)[row * delta->stride[0] + head]) * slope;
    return true;
}

static void query_gradient(const struct mf_kernel_call *call, const struct sequence *s, int64_t i,
                           int64_t head, double *sum) {
    const struct mf_array *q = &call->in[0], *k = &call->in[1], *dq = &call->out[0];
    int64_t size = q->dim[2], key_head = head / (q->dim[1] / k->dim[1]);
    for (int64_t d = 0; d < size; d++)
        sum[d] = 0;
    for (int64_t j = 0; j < s->keys; j++) {
        double p, ds;
        if (pair_gradient(call, s, i, j, head, key_head, &p, &ds))
            for (int64_t d = 0; d < size; d++)
                sum[d] += ds * mf_array_get(k, element(k, s->key + j, key_head) + d);
    }
    for (int64_t d = 0; d < size; d++)
        mf_array_set(dq, element(dq, s->query + i, head) + d, (float)sum[d]);
}

/* dk and dv of one key, summed over the group's heads and the queries. sum (2·d) is scratch. */
static void key_gradient(const struct mf_kernel_call *call, const struct sequence *s, int64_t j,
                         int64_t key_head, double *sum) {
    const struct mf_array *q = &call->in[0], *k = &call->in[1], *dy = &call->in[5];
    const struct mf_array *dk = &call->out[1], *dv = &call->out[2];
    int64_t size = q->dim[2], group = q->dim[1] / k->dim[1];
    for (int64_t d = 0; d < 2 * size; d++)
        sum[d] = 0;
    for (int64_t head = key_head * group; head < (key_head + 1) * group; head++)
        for (int64_t i = 0; i < s->queries; i++) {
            double p, ds;
            if (!pair_gradient(call, s, i, j, head, key_head, &p, &ds))
                continue;
            for (int64_t d = 0; d < size; d++) {
                sum[d] += ds * mf_array_get(q, element(q, s->query + i, head) + d);
                sum[size + d] += p * mf_array_get(dy, element(dy, s->query + i, head) + d);
            }
        }
    for (int64_t d = 0; d < size; d++) {
        mf_array_set(dk, element(dk, s->key + j, key_head) + d, (float)sum[d]);
        mf_array_set(dv, element(dv, s->key + j, key_head) + d, (float)sum[size + d]);
    }
}

static enum mf_status attention_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *q = &call->in[0], *k = &call->in[1]; // (T, H, d), (C, G, d); v: in[2]
    const struct mf_array *y = &call->in[3];                    // (T, H, d); lse (T, H): in[4]
    const struct mf_array *dy = &call->in[5];                   // (T, H, d)
    const struct mf_array *query_offsets = &call->in[6], *key_offsets = &call->in[7]; // (S + 1)
    const struct mf_array *delta = &call->workspace[0];                               // (T, H)
    double *sum = call->workspace[1].data;                                            // (2·d)
    for (int64_t t = 0; t < q->dim[0]; t++)
        for (int64_t h = 0; h < q->dim[1]; h++)
            ((float *)delta->data)[t * delta->stride[0] + h] =
                (float)dot(y, element(y, t, h), dy, element(dy, t, h), q->dim[2]);
    for (int64_t s = 0; s + 1 < query_offsets->dim[0]; s++) {
        struct sequence own = sequence_of(query_offsets, key_offsets, NULL, s);
        for (int64_t h = 0; h < q->dim[1]; h++)
            for (int64_t i = 0; i < own.queries; i++)
                query_gradient(call, &own, i, h, sum);
        for (int64_t g = 0; g < k->dim[1]; g++)
            for (int64_t j = 0; j < own.keys; j++)
                key_gradient(call, &own, j, g, sum);
    }
    zero_tail(&call->out[0], mf_array_last_offset(query_offsets));
    zero_tail(&call->out[1], mf_array_last_offset(key_offsets));
    zero_tail(&call->out[2], mf_array_last_offset(key_offsets));
    return MF_OK;
}

static size_t attention_gradient_workspace(const struct mf_kernel_call *call) {
    return (size_t)call->in[0].dim[2] * 2 * sizeof(double);
}
const struct mf_kernel mf_reference_attention_gradient[1] = {
    {.function = attention_gradient, .workspace_bytes = attention_gradient_workspace}};
