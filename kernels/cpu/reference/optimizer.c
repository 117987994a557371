#include "kernels/cpu/array.h"
#include "kernels/cpu/reference/reference.h"
#include "kernels/dynamic_map.h"
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

/* The code of the value that is nearest to `value`. */
static uint8_t encode(const float *map, float value) {
    int code = 0;
    while (code < MF_DYNAMIC_MAP_CODES - 1 && value > (map[code] + map[code + 1]) / 2)
        code++;
    return (uint8_t)code;
}

static float largest(const float *value) {
    float found = 0;
    for (int i = 0; i < MF_BUCKET_BLOCK; i++)
        found = fmaxf(found, fabsf(value[i]));
    return found;
}

static enum mf_status adamw_8bit(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const float *gradient = call->in[4].data;                          // (n)
    const float coefficient = ((const float *)call->in[5].data)[0];    // (1)
    float *parameter = call->out[0].data, *scales = call->out[3].data; // (n), (n / block, 2)
    uint8_t *first = call->out[1].data, *second = call->out[2].data;   // (n)
    const struct mf_adamw_attributes *a = &call->node->a.adamw;
    const double rate = call->step->learning_rate, t = call->step->optimizer_step;
    const double correction = sqrt(1 - pow(a->beta2, t));
    const float step_size = (float)(rate * correction / (1 - pow(a->beta1, t)));
    const float epsilon = (float)(correction * a->epsilon), decay = (float)(1 - rate * a->weight_decay);
    for (int64_t start = 0; start < call->out[0].dim[0]; start += MF_BUCKET_BLOCK) {
        float m[MF_BUCKET_BLOCK], v[MF_BUCKET_BLOCK], *scale = scales + start / MF_BUCKET_BLOCK * 2;
        for (int i = 0; i < MF_BUCKET_BLOCK; i++) {
            const float g = coefficient * gradient[start + i];
            m[i] = mf_dynamic_map_signed[first[start + i]] * scale[0] * a->beta1 + (1 - a->beta1) * g;
            v[i] = mf_dynamic_map_unsigned[second[start + i]] * scale[1] * a->beta2 + (1 - a->beta2) * g * g;
            parameter[start + i] -= step_size * (m[i] / (sqrtf(v[i]) + epsilon));
            parameter[start + i] *= decay;
        }
        scale[0] = largest(m);
        scale[1] = largest(v);
        const float inverse_m = 1 / fmaxf(scale[0], 1e-38f), inverse_v = 1 / fmaxf(scale[1], 1e-38f);
        for (int i = 0; i < MF_BUCKET_BLOCK; i++) {
            first[start + i] = encode(mf_dynamic_map_signed, m[i] * inverse_m);
            second[start + i] = encode(mf_dynamic_map_unsigned, v[i] * inverse_v);
            if (m[i] < 0 && mf_dynamic_map_signed[first[start + i]] == 0)
                first[start + i]--;
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_adamw_8bit[1] = {{.function = adamw_8bit}};

static enum mf_status sgd(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const float *gradient = call->in[1].data;                       // (n)
    const float coefficient = ((const float *)call->in[2].data)[0]; // (1)
    float *parameter = call->out[0].data;                           // (n)
    const float rate = call->step->learning_rate, decay = call->node->a.sgd.weight_decay;
    for (int64_t i = 0; i < call->out[0].dim[0]; i++)
        parameter[i] -= rate * (coefficient * gradient[i] + decay * parameter[i]);
    return MF_OK;
}
const struct mf_kernel mf_reference_sgd[1] = {{.function = sgd}};

static enum mf_status round_copy(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *parameter = &call->in[0]; // (n) f32
    const struct mf_array *copy = &call->out[0];     // (n)
    for (int64_t i = 0; i < copy->dim[0]; i++)
        mf_array_set(copy, i, mf_array_get(parameter, i));
    return MF_OK;
}
const struct mf_kernel mf_reference_round_copy[1] = {{.function = round_copy}};
