#include "kernels/cpu/fast.h"
#include "kernels/cpu/rows.h"
#include <math.h>

/* A weight or bias (D) as f32 in its half of workspace[1]. */
static const float *prepared(const struct mf_kernel_call *call, int input, int half) {
    const int64_t D = call->in[input].dim[0];
    float *value = (float *)call->workspace[1].data + half * D;
    mf_load(&call->in[input], 0, value, D);
    return value;
}

static size_t forward_workspace(const struct mf_kernel_call *call) {
    return 2 * (size_t)call->in[1].dim[0] * sizeof(float);
}

static size_t backward_workspace(const struct mf_kernel_call *call) {
    return (size_t)call->in[1].dim[0] * sizeof(float);
}

/* The mean of (x - middle) ^ power of a row; power is 1 or 2. */
static float mean_of_distances(const struct mf_array *x, int64_t row, float middle, int power) {
    const int64_t D = x->dim[1];
    float value[MF_STRETCH], sum = 0;
    for (int64_t start = 0; start < D; start += MF_STRETCH) {
        int64_t n = mf_stretch_length(start, D);
        mf_load(x, row * x->stride[0] + start, value, n);
        if (power == 1)
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < n; i++)
                sum += value[i] - middle;
        else
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < n; i++)
                sum += (value[i] - middle) * (value[i] - middle);
    }
    return sum / (float)D;
}

static enum mf_status layer_norm(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *y = &call->out[0];         // (R, D)
    float *mean = call->out[1].data, *rstd = call->out[2].data;          // (R)
    const float *w = prepared(call, 1, 0), *bias = prepared(call, 2, 1); // (D)
    const int64_t R = x->dim[0], D = x->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < R; r++) {
        float value[MF_STRETCH], middle = mean_of_distances(x, r, 0, 1);
        middle += mean_of_distances(x, r, middle, 1); /* what rounding left, where the mean is large */
        const float variance = mean_of_distances(x, r, middle, 2);
        const float scale = 1.0f / sqrtf(variance + call->node->a.layer_norm.epsilon);
        mean[r] = middle;
        rstd[r] = scale;
        for (int64_t start = 0; start < D; start += MF_STRETCH) {
            int64_t n = mf_stretch_length(start, D);
            mf_load(x, r * x->stride[0] + start, value, n);
#pragma omp simd
            for (int64_t i = 0; i < n; i++)
                value[i] = (value[i] - middle) * scale * w[start + i] + bias[start + i];
            mf_store(y, r * y->stride[0] + start, value, n);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_layer_norm[1] = {
    {.function = layer_norm, .workspace_bytes = forward_workspace}};

/* mean(w dy) and mean(w dy x̂) of a row. */
struct slopes {
    float plain, normal;
};

static struct slopes mean_slopes(const struct mf_kernel_call *call, const float *w, int64_t row, float middle,
                                 float scale) {
    const struct mf_array *x = &call->in[0], *dy = &call->in[4];
    const int64_t D = x->dim[1];
    float value[MF_STRETCH], out[MF_STRETCH], plain = 0, normal = 0;
    for (int64_t start = 0; start < D; start += MF_STRETCH) {
        int64_t n = mf_stretch_length(start, D);
        mf_load(x, row * x->stride[0] + start, value, n);
        mf_load(dy, row * dy->stride[0] + start, out, n);
#pragma omp simd reduction(+ : plain, normal)
        for (int64_t i = 0; i < n; i++) {
            plain += w[start + i] * out[i];
            normal += w[start + i] * out[i] * (value[i] - middle);
        }
    }
    return (struct slopes){plain / (float)D, normal * scale / (float)D};
}

static enum mf_status layer_norm_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *dy = &call->in[4];    // (R, D)
    const float *mean = call->in[2].data, *rstd = call->in[3].data; // (R)
    const struct mf_array *addend = &call->in[5];                   // (R, D) or none
    const struct mf_array *dx = &call->out[0];                      // (R, D), may be addend
    const float *w = prepared(call, 1, 0);                          // (D)
    const int64_t R = x->dim[0], D = x->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < R; r++) {
        const float middle = mean[r], scale = rstd[r];
        const struct slopes all = mean_slopes(call, w, r, middle, scale);
        float value[MF_STRETCH], out[MF_STRETCH], sum[MF_STRETCH] = {0};
        for (int64_t start = 0; start < D; start += MF_STRETCH) {
            int64_t n = mf_stretch_length(start, D);
            mf_load(x, r * x->stride[0] + start, value, n);
            mf_load(dy, r * dy->stride[0] + start, out, n);
            if (addend->data)
                mf_load(addend, r * addend->stride[0] + start, sum, n);
            else
                memset(sum, 0, sizeof sum);
#pragma omp simd
            for (int64_t i = 0; i < n; i++)
                sum[i] +=
                    scale * (w[start + i] * out[i] - all.plain - (value[i] - middle) * scale * all.normal);
            mf_store(dx, r * dx->stride[0] + start, sum, n);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_layer_norm_gradient[1] = {
    {.function = layer_norm_gradient, .workspace_bytes = backward_workspace}};

static enum mf_status layer_norm_weight_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *dy = &call->in[3];    // (R, D)
    const float *mean = call->in[1].data, *rstd = call->in[2].data; // (R)
    float *gradient = call->out[0].data;                            // (D), holds the sum so far
    const int64_t R = x->dim[0], D = x->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < D; start += MF_COLUMNS) {
        const int64_t n = D - start < MF_COLUMNS ? D - start : MF_COLUMNS;
        for (int64_t row = 0; row < R; row += MF_ROW_BLOCK) {
            float value[MF_COLUMNS], out[MF_COLUMNS], sum[MF_COLUMNS] = {0};
            for (int64_t r = row; r < R && r < row + MF_ROW_BLOCK; r++) {
                mf_load(x, r * x->stride[0] + start, value, n);
                mf_load(dy, r * dy->stride[0] + start, out, n);
#pragma omp simd
                for (int64_t i = 0; i < n; i++)
                    sum[i] += out[i] * ((value[i] - mean[r]) * rstd[r]);
            }
            for (int64_t i = 0; i < n; i++)
                gradient[start + i] += sum[i];
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_layer_norm_weight_gradient[1] = {{.function = layer_norm_weight_gradient}};
