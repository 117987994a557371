#include "kernels/cpu/fast.h"
#include "kernels/cpu/rows.h"
#include <math.h>

/* weight (D) as f32 in workspace[1], 1 + weight for UNIT_OFFSET. */
static const float *prepare_weight(const struct mf_kernel_call *call) {
    float *w = call->workspace[1].data;
    int64_t D = call->in[1].dim[0];
    mf_load(&call->in[1], 0, w, D);
    if (call->node->a.norm.variant == MF_NORM_UNIT_OFFSET)
        for (int64_t d = 0; d < D; d++)
            w[d] += 1.0f;
    return w;
}

static size_t weight_workspace(const struct mf_kernel_call *call) {
    return (size_t)call->in[1].dim[0] * sizeof(float);
}

static float mean_of_squares(const struct mf_array *x, int64_t row, int64_t D) {
    float value[MF_STRETCH], sum = 0;
    for (int64_t start = 0; start < D; start += MF_STRETCH) {
        int64_t n = mf_stretch_length(start, D);
        mf_load(x, row * x->stride[0] + start, value, n);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += value[i] * value[i];
    }
    return sum / (float)D;
}

static enum mf_status rms_norm(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *y = &call->out[0]; // (R, D)
    float *rstd = call->out[1].data;                             // (R)
    const struct mf_norm_attributes *a = &call->node->a.norm;
    const float *w = prepare_weight(call); // (D)
    int64_t R = x->dim[0], D = x->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < R; r++) {
        float scale = 1.0f / sqrtf(mean_of_squares(x, r, D) + a->epsilon), value[MF_STRETCH];
        rstd[r] = scale;
        for (int64_t start = 0; start < D; start += MF_STRETCH) {
            int64_t n = mf_stretch_length(start, D);
            mf_load(x, r * x->stride[0] + start, value, n);
            for (int64_t i = 0; i < n; i++)
                value[i] *= scale;
            if (a->variant == MF_NORM_CAST_THEN_SCALE)
                mf_round_to(y, value, n);
            for (int64_t i = 0; i < n; i++)
                value[i] *= w[start + i];
            mf_store(y, r * y->stride[0] + start, value, n);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_rms_norm[1] = {{.function = rms_norm, .workspace_bytes = weight_workspace}};

/* mean(w dy x̂) of one row. */
static float mean_of_products(const struct mf_kernel_call *call, const float *w, int64_t row, float scale) {
    const struct mf_array *x = &call->in[0], *dy = &call->in[3];
    int64_t D = x->dim[1];
    float value[MF_STRETCH], out[MF_STRETCH], sum = 0;
    for (int64_t start = 0; start < D; start += MF_STRETCH) {
        int64_t n = mf_stretch_length(start, D);
        mf_load(x, row * x->stride[0] + start, value, n);
        mf_load(dy, row * dy->stride[0] + start, out, n);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += value[i] * out[i] * w[start + i];
    }
    return sum * scale / (float)D;
}

static enum mf_status rms_norm_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *dy = &call->in[3]; // (R, D)
    const struct mf_array *addend = &call->in[4];                // (R, D) or none
    const struct mf_array *dx = &call->out[0];                   // (R, D), may be addend
    const float *rstd = call->in[2].data;                        // (R)
    const float *w = prepare_weight(call);                       // (D)
    int64_t R = x->dim[0], D = x->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < R; r++) {
        float scale = rstd[r], mean = mean_of_products(call, w, r, scale);
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
                sum[i] += scale * (w[start + i] * out[i] - value[i] * scale * mean);
            mf_store(dx, r * dx->stride[0] + start, sum, n);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_rms_norm_gradient[1] = {
    {.function = rms_norm_gradient, .workspace_bytes = weight_workspace}};

static enum mf_status rms_norm_weight_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *dy = &call->in[2]; // (R, D)
    const float *rstd = call->in[1].data;                        // (R)
    float *gradient = call->out[0].data;                         // (D), holds the sum so far
    const bool rounded = call->node->a.norm.variant == MF_NORM_CAST_THEN_SCALE;
    int64_t R = x->dim[0], D = x->dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < D; start += MF_COLUMNS) {
        int64_t n = D - start < MF_COLUMNS ? D - start : MF_COLUMNS;
        for (int64_t row = 0; row < R; row += MF_ROW_BLOCK) {
            float value[MF_COLUMNS], out[MF_COLUMNS], sum[MF_COLUMNS] = {0};
            for (int64_t r = row; r < R && r < row + MF_ROW_BLOCK; r++) {
                mf_load(x, r * x->stride[0] + start, value, n);
                mf_load(dy, r * dy->stride[0] + start, out, n);
                for (int64_t i = 0; i < n; i++)
                    value[i] *= rstd[r];
                if (rounded)
                    mf_round_to(x, value, n);
#pragma omp simd
                for (int64_t i = 0; i < n; i++)
                    sum[i] += out[i] * value[i];
            }
            for (int64_t i = 0; i < n; i++)
                gradient[start + i] += sum[i];
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_rms_norm_weight_gradient[1] = {{.function = rms_norm_weight_gradient}};
