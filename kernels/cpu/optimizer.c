#include "kernels/cpu/fast.h"
#include "kernels/cpu/rows.h"
#include <math.h>

static enum mf_status adamw(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const float *restrict gradient = call->in[3].data;        // (n)
    float coefficient = ((const float *)call->in[4].data)[0]; // (1)
    float *restrict parameter = call->out[0].data;            // (n)
    float *restrict first = call->out[1].data;                // (n)
    float *restrict second = call->out[2].data;               // (n)
    const struct mf_adamw_attributes *a = &call->node->a.adamw;
    double rate = call->step->learning_rate, t = call->step->optimizer_step;
    float decay = (float)(1 - rate * a->weight_decay);
    float step_size = (float)(rate / (1 - pow(a->beta1, t)));
    float root_correction = (float)sqrt(1 - pow(a->beta2, t));
    float beta1 = a->beta1, beta2 = a->beta2, epsilon = a->epsilon;
    int64_t n = call->out[0].dim[0];
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float g = coefficient * gradient[i], m = first[i], v = second[i];
        m += (1 - beta1) * (g - m);
        v = beta2 * v + (1 - beta2) * g * g;
        first[i] = m;
        second[i] = v;
        parameter[i] = parameter[i] * decay - step_size * m / (sqrtf(v) / root_correction + epsilon);
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_adamw[1] = {{.function = adamw}};

static enum mf_status sgd(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const float *restrict gradient = call->in[1].data;              // (n)
    const float coefficient = ((const float *)call->in[2].data)[0]; // (1)
    float *restrict parameter = call->out[0].data;                  // (n)
    const float rate = call->step->learning_rate, decay = call->node->a.sgd.weight_decay;
    const int64_t n = call->out[0].dim[0];
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++)
        parameter[i] -= rate * (coefficient * gradient[i] + decay * parameter[i]);
    return MF_OK;
}
const struct mf_kernel mf_fast_sgd[1] = {{.function = sgd}};

static enum mf_status round_copy(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *parameter = &call->in[0]; // (n) f32
    const struct mf_array *copy = &call->out[0];     // (n)
    int64_t n = copy->dim[0];
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < n; start += MF_STRETCH)
        mf_store(copy, start, (const float *)parameter->data + start, mf_stretch_length(start, n));
    return MF_OK;
}
const struct mf_kernel mf_fast_round_copy[1] = {{.function = round_copy}};
