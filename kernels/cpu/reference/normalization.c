#include "kernels/cpu/array.h"
#include "kernels/cpu/reference/reference.h"
#include <math.h>

static enum mf_status rms_norm(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0];      // (R, D)
    const struct mf_array *weight = &call->in[1]; // (D)
    const struct mf_array *y = &call->out[0];     // (R, D)
    const struct mf_array *rstd = &call->out[1];  // (R)
    const struct mf_norm_attributes *a = &call->node->a.norm;
    int64_t D = x->dim[1];
    for (int64_t r = 0; r < x->dim[0]; r++) {
        double squares = 0;
        for (int64_t d = 0; d < D; d++) {
            double value = mf_array_get(x, r * x->stride[0] + d);
            squares += value * value;
        }
        float scale = (float)(1.0 / sqrt(squares / (double)D + a->epsilon));
        ((float *)rstd->data)[r] = scale;
        for (int64_t d = 0; d < D; d++) {
            float w = mf_array_get(weight, d), normal = mf_array_get(x, r * x->stride[0] + d) * scale;
            mf_array_set(y, r * y->stride[0] + d,
                         a->variant == MF_NORM_UNIT_OFFSET ? normal * (1.0f + w)
                                                           : w * mf_array_rounded(y->dtype, normal));
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_rms_norm[1] = {{.function = rms_norm}};

static enum mf_status rms_norm_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0];      // (R, D)
    const struct mf_array *weight = &call->in[1]; // (D)
    const struct mf_array *rstd = &call->in[2];   // (R)
    const struct mf_array *dy = &call->in[3];     // (R, D)
    const struct mf_array *addend = &call->in[4]; // (R, D) or none
    const struct mf_array *dx = &call->out[0];    // (R, D), may be addend
    double offset = call->node->a.norm.variant == MF_NORM_UNIT_OFFSET ? 1 : 0;
    int64_t D = x->dim[1];
    for (int64_t r = 0; r < x->dim[0]; r++) {
        double scale = ((const float *)rstd->data)[r], mean = 0;
        for (int64_t d = 0; d < D; d++)
            mean += (offset + mf_array_get(weight, d)) * mf_array_get(dy, r * dy->stride[0] + d) *
                    (mf_array_get(x, r * x->stride[0] + d) * scale) / (double)D;
        for (int64_t d = 0; d < D; d++) {
            double normal = mf_array_get(x, r * x->stride[0] + d) * scale;
            double dnormal = (offset + mf_array_get(weight, d)) * mf_array_get(dy, r * dy->stride[0] + d);
            double sum = addend->data ? mf_array_get(addend, r * addend->stride[0] + d) : 0;
            mf_array_set(dx, r * dx->stride[0] + d, (float)(sum + scale * (dnormal - normal * mean)));
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_rms_norm_gradient[1] = {{.function = rms_norm_gradient}};

static enum mf_status rms_norm_weight_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0];         // (R, D)
    const float *rstd = call->in[1].data;            // (R)
    const struct mf_array *dy = &call->in[2];        // (R, D)
    const struct mf_array *gradient = &call->out[0]; // (D) f32, holds the sum so far
    const bool unit_offset = call->node->a.norm.variant == MF_NORM_UNIT_OFFSET;
    int64_t R = x->dim[0];
    for (int64_t d = 0; d < x->dim[1]; d++) {
        float *to = (float *)gradient->data + d;
        for (int64_t row = 0; row < R; row += MF_ROW_BLOCK) {
            double sum = 0;
            for (int64_t r = row; r < R && r < row + MF_ROW_BLOCK; r++) {
                float normal = mf_array_get(x, r * x->stride[0] + d) * rstd[r];
                sum += (double)mf_array_get(dy, r * dy->stride[0] + d) *
                       (unit_offset ? normal : mf_array_rounded((enum mf_dtype)x->dtype, normal));
            }
            *to = (float)(*to + sum);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_rms_norm_weight_gradient[1] = {{.function = rms_norm_weight_gradient}};
