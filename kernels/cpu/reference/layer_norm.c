#include "kernels/cpu/array.h"
#include "kernels/cpu/reference/reference.h"
#include <math.h>

static enum mf_status layer_norm(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0];                            // (R, D)
    const struct mf_array *weight = &call->in[1], *bias = &call->in[2]; // (D)
    const struct mf_array *y = &call->out[0];                           // (R, D)
    float *mean = call->out[1].data, *rstd = call->out[2].data;         // (R)
    const int64_t D = x->dim[1];
    for (int64_t r = 0; r < x->dim[0]; r++) {
        double sum = 0, squares = 0;
        for (int64_t d = 0; d < D; d++)
            sum += mf_array_get(x, r * x->stride[0] + d);
        const double middle = sum / (double)D;
        for (int64_t d = 0; d < D; d++) {
            double distance = mf_array_get(x, r * x->stride[0] + d) - middle;
            squares += distance * distance;
        }
        const double scale = 1.0 / sqrt(squares / (double)D + call->node->a.layer_norm.epsilon);
        mean[r] = (float)middle;
        rstd[r] = (float)scale;
        for (int64_t d = 0; d < D; d++) {
            double normal = (mf_array_get(x, r * x->stride[0] + d) - middle) * scale;
            mf_array_set(y, r * y->stride[0] + d,
                         (float)(normal * mf_array_get(weight, d) + mf_array_get(bias, d)));
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_layer_norm[1] = {{.function = layer_norm}};

static enum mf_status layer_norm_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0];                        // (R, D)
    const struct mf_array *weight = &call->in[1];                   // (D)
    const float *mean = call->in[2].data, *rstd = call->in[3].data; // (R)
    const struct mf_array *dy = &call->in[4];                       // (R, D)
    const struct mf_array *addend = &call->in[5];                   // (R, D) or none
    const struct mf_array *dx = &call->out[0];                      // (R, D), may be addend
    const int64_t D = x->dim[1];
    for (int64_t r = 0; r < x->dim[0]; r++) {
        double slopes = 0, products = 0;
        for (int64_t d = 0; d < D; d++) {
            double normal = ((double)mf_array_get(x, r * x->stride[0] + d) - mean[r]) * rstd[r];
            double slope = (double)mf_array_get(weight, d) * mf_array_get(dy, r * dy->stride[0] + d);
            slopes += slope / (double)D;
            products += slope * normal / (double)D;
        }
        for (int64_t d = 0; d < D; d++) {
            double normal = ((double)mf_array_get(x, r * x->stride[0] + d) - mean[r]) * rstd[r];
            double slope = (double)mf_array_get(weight, d) * mf_array_get(dy, r * dy->stride[0] + d);
            double sum = addend->data ? mf_array_get(addend, r * addend->stride[0] + d) : 0;
            mf_array_set(dx, r * dx->stride[0] + d,
                         (float)(sum + rstd[r] * (slope - slopes - normal * products)));
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_layer_norm_gradient[1] = {{.function = layer_norm_gradient}};

static enum mf_status layer_norm_weight_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0];                        // (R, D)
    const float *mean = call->in[1].data, *rstd = call->in[2].data; // (R)
    const struct mf_array *dy = &call->in[3];                       // (R, D)
    const struct mf_array *gradient = &call->out[0];                // (D) f32, holds the sum so far
    const int64_t R = x->dim[0];
    for (int64_t d = 0; d < x->dim[1]; d++) {
        float *to = (float *)gradient->data + d;
        for (int64_t row = 0; row < R; row += MF_ROW_BLOCK) {
            double sum = 0;
            for (int64_t r = row; r < R && r < row + MF_ROW_BLOCK; r++)
                sum += (double)mf_array_get(dy, r * dy->stride[0] + d) *
                       (((double)mf_array_get(x, r * x->stride[0] + d) - mean[r]) * rstd[r]);
            *to = (float)(*to + sum);
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_layer_norm_weight_gradient[1] = {
    {.function = layer_norm_weight_gradient}};
