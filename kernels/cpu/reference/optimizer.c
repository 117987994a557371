#include "kernels/cpu/array.h"
#include "kernels/cpu/reference/reference.h"
#include <math.h>

enum { NORM_BLOCK = 4096 };

static enum mf_status gradient_norm(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *gradient = &call->in[0]; // (n) f32
    float *norm = call->out[0].data;                // (1)
    float *coefficient = call->out[1].data;         // (1)
    int64_t n = gradient->dim[0];
    double total = 0;
    for (int64_t start = 0; start < n; start += NORM_BLOCK) {
        double block = 0;
        for (int64_t i = start; i < n && i < start + NORM_BLOCK; i++) {
            double value = mf_array_get(gradient, i);
            block += value * value;
        }
        total += block;
    }
    norm[0] = (float)sqrt(total);
    float clip = call->step->clip;
    coefficient[0] = clip > 0 ? fminf(1.0f, clip / (norm[0] + 1e-6f)) : 1.0f;
    return MF_OK;
}
const struct mf_kernel mf_reference_gradient_norm[1] = {{.function = gradient_norm}};

static enum mf_status adamw(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const float *gradient = call->in[3].data;                                                      // (n)
    float coefficient = ((const float *)call->in[4].data)[0];                                      // (1)
    float *parameter = call->out[0].data, *first = call->out[1].data, *second = call->out[2].data; // (n)
    const struct mf_adamw_attributes *a = &call->node->a.adamw;
    double rate = call->step->learning_rate, t = call->step->optimizer_step;
    float decay = (float)(1 - rate * a->weight_decay);
    float step_size = (float)(rate / (1 - pow(a->beta1, t)));
    float root_correction = (float)sqrt(1 - pow(a->beta2, t));
    for (int64_t i = 0; i < call->out[0].dim[0]; i++) {
        float g = coefficient * gradient[i];
        float p = parameter[i] * decay;
        first[i] += (1 - a->beta1) * (g - first[i]);
        second[i] = a->beta2 * second[i] + (1 - a->beta2) * g * g;
        parameter[i] = p - step_size * first[i] / (sqrtf(second[i]) / root_correction + a->epsilon);
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_adamw[1] = {{.function = adamw}};
