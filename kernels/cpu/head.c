/* Output layer and cross-entropy: logits of a chunk of rows in the workspace, never of all rows. */
#include "kernels/cpu/fast.h"
#include "kernels/cpu/fast_backend.h"
#include "kernels/cpu/rows.h"
#include <math.h>

static enum mf_status check_range(const char *op, const char *what, const int32_t *value, int64_t n,
                                  int64_t limit, struct mf_error *error) {
    for (int64_t i = 0; i < n; i++)
        if (value[i] < 0 || value[i] >= limit)
            return mf_error_set(error, MF_ERROR_INTERNAL, "%s: %s %d at %lld is not in 0..%lld", op, what,
                                value[i], (long long)i, (long long)limit - 1);
    return MF_OK;
}

/* The prepared weight, or a trained one as it lies; the output layer is large, so there is no conversion in
 * every call. */
static enum mf_status prepared(const struct mf_kernel_call *call, enum mf_weight_form form,
                               struct mf_operand *operand, struct mf_error *error) {
    const struct mf_array *weight = &call->in[1];
    const struct mf_operand *packed =
        mf_packed_weight_find(mf_fast_backend_of(call), weight, form, call->in[0].dtype);
    if (packed) {
        *operand = *packed;
        return MF_OK;
    }
    if (weight->dtype == call->in[0].dtype) {
        const bool forward = form == MF_FORM_FORWARD;
        *operand = (struct mf_operand){.data = weight->data,
                                       .K = weight->dim[forward],
                                       .N = weight->dim[!forward],
                                       .k_stride = forward ? 1 : weight->stride[0],
                                       .n_stride = forward ? weight->stride[0] : 1,
                                       .bf16 = weight->dtype == MF_BF16};
        return MF_OK;
    }
    return mf_error_set(error, MF_ERROR_INTERNAL, "%s: the output weight was not prepared",
                        mf_op_name((enum mf_op)call->node->op));
}

/* gathered (n, D) = hidden rows row[0..n) */
static void gather(const struct mf_array *hidden, const int32_t *row, int64_t n, void *gathered) {
    size_t width = mf_dtype_bytes(hidden->dtype), D = (size_t)hidden->dim[1];
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)gathered + (size_t)i * D * width,
               (const char *)hidden->data + (size_t)(row[i] * hidden->stride[0]) * width, D * width);
}

/* Adds factor * bias (V) to the logits z (V), then caps them. */
static void finish_row(float *restrict z, const struct mf_array *bias, float factor, float cap, int64_t V) {
    for (int64_t start = 0; start < V && bias->data; start += MF_STRETCH) {
        int64_t n = mf_stretch_length(start, V);
        float value[MF_STRETCH];
        mf_load(bias, start, value, n);
        for (int64_t v = 0; v < n; v++)
            z[start + v] += factor * value[v];
    }
    for (int64_t v = 0; v < V && cap > 0; v++)
        z[v] = cap * mf_tanh(z[v] / cap);
}

/* z (n, V) f32 = logit_scale * (gathered (n, D) · Wᵀ + bias), soft-capped. */
static enum mf_status chunk_logits(const struct mf_kernel_call *call, const struct mf_operand *weight,
                                   const struct mf_array *bias, const void *gathered, int64_t n, float *z,
                                   int64_t z_row, struct mf_error *error) {
    const struct mf_head_attributes *a = &call->node->a.head;
    struct mf_product product = {.M = n,
                                 .a = gathered,
                                 .a_row = weight->K,
                                 .a_column = 1,
                                 .b = weight,
                                 .c = z,
                                 .c_row = z_row,
                                 .alpha = a->logit_scale};
    enum mf_status status = mf_gemm_run(mf_fast_backend_of(call)->gemm, &product, error);
    if (status == MF_OK && (bias->data || a->soft_cap > 0)) {
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++)
            finish_row(z + i * z_row, bias, a->logit_scale, a->soft_cap, weight->N);
    }
    return status;
}

static float log_sum_exp(const float *restrict z, int64_t V) {
    float greatest = -INFINITY;
#pragma omp simd reduction(max : greatest)
    for (int64_t v = 0; v < V; v++)
        greatest = z[v] > greatest ? z[v] : greatest;
    double total = 0; /* of stretches, each summed in f32 */
    for (int64_t start = 0; start < V; start += MF_STRETCH) {
        int64_t n = mf_stretch_length(start, V);
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t v = 0; v < n; v++)
            sum += mf_exp(z[start + v] - greatest);
        total += (double)sum;
    }
    return (float)((double)greatest + log(total));
}

/* factor * d log_probability / d (hidden·W) of a row of logits z (V): (δ(v, label) - p_v) * slope_v, to row
 * `i` of `to`. */
static void row_gradient(const struct mf_head_attributes *a, const float *z, int32_t label, float lse,
                         float factor, const struct mf_array *to, int64_t i) {
    int64_t V = to->dim[1];
    float scale = factor * a->logit_scale, cap = a->soft_cap;
    for (int64_t start = 0; start < V; start += MF_STRETCH) {
        int64_t n = mf_stretch_length(start, V);
        float value[MF_STRETCH];
        for (int64_t v = 0; v < n; v++)
            value[v] = -scale * mf_exp(z[start + v] - lse);
        if (label >= start && label < start + n)
            value[label - start] += scale;
        if (cap > 0)
            for (int64_t v = 0; v < n; v++)
                value[v] *= 1.0f - (z[start + v] / cap) * (z[start + v] / cap);
        mf_store(to, i * V + start, value, n);
    }
}

/* workspace[1]: the chunk's hidden rows (chunk_rows, D), then the gradient of its logits (chunk_rows, V),
 * both in the activations' dtype. The latter takes the place of the logits where they have that dtype. */
static size_t hidden_bytes(const struct mf_kernel_call *call) {
    size_t bytes =
        (size_t)(call->node->a.head.chunk_rows * call->in[0].dim[1]) * mf_dtype_bytes(call->in[0].dtype);
    return (bytes + 63) / 64 * 64;
}

static size_t head_workspace(const struct mf_kernel_call *call) {
    const struct mf_head_attributes *a = &call->node->a.head;
    bool apart = a->with_gradient && call->in[0].dtype != MF_F32;
    size_t gradient = (size_t)(a->chunk_rows * call->in[1].dim[0]) * mf_dtype_bytes(call->in[0].dtype);
    return hidden_bytes(call) + (apart ? gradient : 0);
}

static struct mf_array logits_gradient(const struct mf_kernel_call *call) {
    bool apart = call->in[0].dtype != MF_F32;
    void *data = apart ? (char *)call->workspace[1].data + hidden_bytes(call) : call->workspace[0].data;
    return (struct mf_array){.data = data,
                             .dtype = call->in[0].dtype,
                             .rank = 2,
                             .dim = {call->node->a.head.chunk_rows, call->in[1].dim[0], 1, 1}};
}

/* Rows first .. first + n of label_rows, labels and the outputs. */
static enum mf_status head_chunk(const struct mf_kernel_call *call, const struct mf_operand *weight,
                                 const struct mf_operand *transposed, int64_t first, int64_t n,
                                 struct mf_error *error) {
    const struct mf_array *hidden = &call->in[0];                     // (T, D)
    const struct mf_array *gradient = &call->out[2];                  // (L, D) or none
    const int32_t *row = (const int32_t *)call->in[2].data + first;   // (n)
    const int32_t *label = (const int32_t *)call->in[3].data + first; // (n)
    float *log_probability = (float *)call->out[0].data + first;      // (n)
    float *lse = (float *)call->out[1].data + first;                  // (n)
    const struct mf_head_attributes *a = &call->node->a.head;
    int64_t V = weight->N;
    float *z = call->workspace[0].data;         // (n, V)
    struct mf_array dz = logits_gradient(call); // (n, V), may be z
    gather(hidden, row, n, call->workspace[1].data);
    enum mf_status status = chunk_logits(call, weight, &call->in[4], call->workspace[1].data, n, z, V, error);
    if (status != MF_OK)
        return status;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        lse[i] = log_sum_exp(z + i * V, V);
        log_probability[i] = z[i * V + label[i]] - lse[i];
        if (transposed)
            row_gradient(a, z + i * V, label[i], lse[i], 1, &dz, i);
    }
    if (!transposed)
        return MF_OK;
    bool bf16 = hidden->dtype == MF_BF16;
    struct mf_product product = {.M = n,
                                 .a = dz.data,
                                 .a_row = V,
                                 .a_column = 1,
                                 .b = transposed,
                                 .c = (char *)gradient->data +
                                      (size_t)(first * gradient->stride[0]) * (bf16 ? 2 : 4),
                                 .c_row = gradient->stride[0],
                                 .c_bf16 = bf16,
                                 .alpha = 1};
    return mf_gemm_run(mf_fast_backend_of(call)->gemm, &product, error);
}

static enum mf_status head(const struct mf_kernel_call *call, struct mf_error *error) {
    struct mf_operand weight = {0}, transposed = {0};
    const struct mf_head_attributes *a = &call->node->a.head;
    int64_t L = call->in[3].dim[0];
    enum mf_status status = prepared(call, MF_FORM_FORWARD, &weight, error);
    if (status == MF_OK && a->with_gradient)
        status = prepared(call, MF_FORM_GRADIENT, &transposed, error);
    if (status == MF_OK)
        status = check_range("head", "row", call->in[2].data, L, call->in[0].dim[0], error);
    if (status == MF_OK)
        status = check_range("head", "label", call->in[3].data, L, call->in[1].dim[0], error);
    for (int64_t first = 0; status == MF_OK && first < L; first += a->chunk_rows)
        status = head_chunk(call, &weight, a->with_gradient ? &transposed : NULL, first,
                            L - first < a->chunk_rows ? L - first : a->chunk_rows, error);
    return status;
}

const struct mf_kernel mf_fast_head[1] = {{.function = head, .workspace_bytes = head_workspace}};

static enum mf_status head_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *gradient = &call->in[0];   // (L, D)
    const int32_t *label_rows = call->in[1].data;     // (L)
    const float *dlog_probability = call->in[2].data; // (L)
    const struct mf_array *dhidden = &call->out[0];   // (T, D)
    int64_t L = gradient->dim[0], T = dhidden->dim[0], D = dhidden->dim[1];
    size_t width = mf_dtype_bytes(dhidden->dtype);
    enum mf_status status = check_range("head_gradient", "row", label_rows, L, T, error);
    if (status != MF_OK)
        return status;
    for (int64_t t = 0; t < T; t++)
        memset((char *)dhidden->data + (size_t)(t * dhidden->stride[0]) * width, 0, (size_t)D * width);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < L; i++)
        for (int64_t start = 0; start < D; start += MF_STRETCH) {
            float value[MF_STRETCH];
            int64_t n = mf_stretch_length(start, D);
            mf_load(gradient, i * gradient->stride[0] + start, value, n);
            for (int64_t d = 0; d < n; d++)
                value[d] *= dlog_probability[i];
            mf_store(dhidden, label_rows[i] * dhidden->stride[0] + start, value, n);
        }
    return MF_OK;
}
const struct mf_kernel mf_fast_head_gradient[1] = {{.function = head_gradient}};

/* gradient (V) += the columns' sums of dz (n, V), row after row. */
static void add_columns(const struct mf_array *dz, int64_t n, float *gradient) {
    const int64_t V = dz->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < V; start += MF_STRETCH) {
        const int64_t count = mf_stretch_length(start, V);
        float value[MF_STRETCH];
        for (int64_t i = 0; i < n; i++) {
            mf_load(dz, i * V + start, value, count);
            for (int64_t v = 0; v < count; v++)
                gradient[start + v] += value[v];
        }
    }
}

/* gradient (V, D) += dzᵀ (V, n) · hidden rows (n, D) of rows first .. first + n; gradient (V) += Σ dz. */
static enum mf_status add_chunk(const struct mf_kernel_call *call, const struct mf_operand *weight,
                                int64_t first, int64_t n, struct mf_error *error) {
    const struct mf_array *hidden = &call->in[0];                            // (T, D)
    const int32_t *row = (const int32_t *)call->in[2].data + first;          // (n)
    const int32_t *label = (const int32_t *)call->in[3].data + first;        // (n)
    const float *lse = (const float *)call->in[4].data + first;              // (n)
    const float *dlog_probability = (const float *)call->in[5].data + first; // (n)
    const struct mf_array *gradient = &call->out[0];                         // (V, D)
    const struct mf_head_attributes *a = &call->node->a.head;
    int64_t V = weight->N;
    float *z = call->workspace[0].data;         // (n, V)
    struct mf_array dz = logits_gradient(call); // (n, V), may be z
    gather(hidden, row, n, call->workspace[1].data);
    enum mf_status status = chunk_logits(call, weight, &call->in[7], call->workspace[1].data, n, z, V, error);
    if (status != MF_OK)
        return status;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++)
        row_gradient(a, z + i * V, label[i], lse[i], dlog_probability[i], &dz, i);
    if (call->node->op == MF_OP_HEAD_BIAS_GRADIENT) {
        add_columns(&dz, n, gradient->data);
        return MF_OK;
    }
    const struct mf_operand right = {.data = call->workspace[1].data,
                                     .K = n,
                                     .N = hidden->dim[1],
                                     .k_stride = hidden->dim[1],
                                     .n_stride = 1,
                                     .bf16 = hidden->dtype == MF_BF16};
    struct mf_product product = {.M = V,
                                 .a = dz.data,
                                 .a_row = 1,
                                 .a_column = V,
                                 .b = &right,
                                 .c = gradient->data,
                                 .c_row = gradient->stride[0],
                                 .accumulate = true,
                                 .alpha = 1};
    return mf_gemm_run(mf_fast_backend_of(call)->gemm, &product, error);
}

static enum mf_status second_pass(const struct mf_kernel_call *call, struct mf_error *error) {
    struct mf_operand weight = {0};
    int64_t L = call->in[3].dim[0], chunk = call->node->a.head.chunk_rows;
    enum mf_status status = prepared(call, MF_FORM_FORWARD, &weight, error);
    if (status == MF_OK)
        status = check_range(mf_op_name((enum mf_op)call->node->op), "row", call->in[2].data, L,
                             call->in[0].dim[0], error);
    for (int64_t first = 0; status == MF_OK && first < L; first += chunk)
        status = add_chunk(call, &weight, first, L - first < chunk ? L - first : chunk, error);
    return status;
}
const struct mf_kernel mf_fast_head_weight_gradient[1] = {
    {.function = second_pass, .workspace_bytes = head_workspace}};
const struct mf_kernel mf_fast_head_bias_gradient[1] = {
    {.function = second_pass, .workspace_bytes = head_workspace}};

static enum mf_status logits(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *hidden = &call->in[0]; // (T, D); weight (V, D): in[1]
    const struct mf_array *rows = &call->in[2];   // (S)
    const struct mf_array *z = &call->out[0];     // (S, V) f32
    struct mf_operand weight = {0};
    enum mf_status status = prepared(call, MF_FORM_FORWARD, &weight, error);
    if (status == MF_OK)
        status = check_range("logits", "row", rows->data, rows->dim[0], hidden->dim[0], error);
    if (status != MF_OK)
        return status;
    gather(hidden, rows->data, rows->dim[0], call->workspace[1].data);
    return chunk_logits(call, &weight, &call->in[3], call->workspace[1].data, rows->dim[0], z->data,
                        z->stride[0], error);
}

static size_t logits_workspace(const struct mf_kernel_call *call) {
    return (size_t)(call->in[2].dim[0] * call->in[0].dim[1]) * mf_dtype_bytes(call->in[0].dtype);
}
const struct mf_kernel mf_fast_logits[1] = {{.function = logits, .workspace_bytes = logits_workspace}};
