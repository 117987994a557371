#include "kernels/cpu/array.h"
#include "kernels/cpu/reference/reference.h"

/* Σ a[i·a_step]·b[i·b_step] over n, in double, i = 0, 1, ... */
static double dot(const struct mf_array *a, int64_t a_at, int64_t a_step, const struct mf_array *b,
                  int64_t b_at, int64_t b_step, int64_t n) {
    double sum = 0;
    if (a->dtype == MF_F32 && b->dtype == MF_F32) {
        const float *left = (const float *)a->data + a_at, *right = (const float *)b->data + b_at;
        for (int64_t i = 0; i < n; i++)
            sum += (double)left[i * a_step] * right[i * b_step];
        return sum;
    }
    for (int64_t i = 0; i < n; i++)
        sum += (double)mf_array_get(a, a_at + i * a_step) * mf_array_get(b, b_at + i * b_step);
    return sum;
}

static enum mf_status linear(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0];      // (T, K)
    const struct mf_array *weight = &call->in[1]; // (N, K)
    const struct mf_array *bias = &call->in[2];   // (N) or none
    const struct mf_array *addend = &call->in[3]; // (T, M) or none
    const struct mf_array *y = &call->out[0];     // (T, M), may be addend
    int64_t K = x->dim[1], N = weight->dim[0], first = call->node->a.linear.first;
    double alpha = call->node->a.linear.alpha;
#pragma omp parallel for
    for (int64_t t = 0; t < x->dim[0]; t++)
        for (int64_t m = 0; m < y->dim[1]; m++) {
            double value = addend->data ? mf_array_get(addend, t * addend->stride[0] + m) : 0;
            int64_t n = m - first;
            if (n >= 0 && n < N) {
                double product = dot(x, t * x->stride[0], 1, weight, n * weight->stride[0], 1, K);
                value += alpha * (product + (bias->data ? mf_array_get(bias, n) : 0));
            }
            mf_array_set(y, t * y->stride[0] + m, (float)value);
        }
    return MF_OK;
}
const struct mf_kernel mf_reference_linear[1] = {{.function = linear}};

static enum mf_status linear_input_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *dy = &call->in[0];     // (T, M)
    const struct mf_array *weight = &call->in[1]; // (N, K)
    const struct mf_array *addend = &call->in[2]; // (T, K) or none
    const struct mf_array *dx = &call->out[0];    // (T, K), may be addend
    int64_t N = weight->dim[0], K = weight->dim[1], first = call->node->a.linear.first;
    double alpha = call->node->a.linear.alpha;
#pragma omp parallel for
    for (int64_t t = 0; t < dy->dim[0]; t++)
        for (int64_t k = 0; k < K; k++) {
            double value = addend->data ? mf_array_get(addend, t * addend->stride[0] + k) : 0;
            value += alpha * dot(dy, t * dy->stride[0] + first, 1, weight, k, weight->stride[0], N);
            mf_array_set(dx, t * dx->stride[0] + k, (float)value);
        }
    return MF_OK;
}
const struct mf_kernel mf_reference_linear_input_gradient[1] = {{.function = linear_input_gradient}};

static enum mf_status linear_weight_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0];         // (T, K)
    const struct mf_array *dy = &call->in[1];        // (T, M)
    const struct mf_array *gradient = &call->out[0]; // (N, K) f32, holds the sum so far
    int64_t T = x->dim[0], N = gradient->dim[0], K = gradient->dim[1], first = call->node->a.linear.first;
    double alpha = call->node->a.linear.alpha;
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < K; k++) {
            float *to = (float *)gradient->data + n * gradient->stride[0] + k;
            for (int64_t t = 0; t < T; t += MF_ROW_BLOCK) {
                const int64_t rows = T - t < MF_ROW_BLOCK ? T - t : MF_ROW_BLOCK;
                double sum = dot(dy, t * dy->stride[0] + first + n, dy->stride[0], x, t * x->stride[0] + k,
                                 x->stride[0], rows);
                *to = (float)(*to + alpha * sum);
            }
        }
    return MF_OK;
}
const struct mf_kernel mf_reference_linear_weight_gradient[1] = {{.function = linear_weight_gradient}};

static enum mf_status linear_bias_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *dy = &call->in[0];        // (T, M)
    const struct mf_array *gradient = &call->out[0]; // (N) f32, holds the sum so far
    int64_t T = dy->dim[0], first = call->node->a.linear.first;
    double alpha = call->node->a.linear.alpha;
    for (int64_t n = 0; n < gradient->dim[0]; n++) {
        float *to = (float *)gradient->data + n;
        for (int64_t row = 0; row < T; row += MF_ROW_BLOCK) {
            double sum = 0;
            for (int64_t t = row; t < T && t < row + MF_ROW_BLOCK; t++)
                sum += mf_array_get(dy, t * dy->stride[0] + first + n);
            *to = (float)(*to + alpha * sum);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_linear_bias_gradient[1] = {{.function = linear_bias_gradient}};
