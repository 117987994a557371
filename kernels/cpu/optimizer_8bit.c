/* Compiled without contraction: every product and sum is rounded as in the reference kernel, so that a moment
 * midway between two codes gets the same one. */
#include "kernels/cpu/fast.h"
#include "kernels/cpu/simd.h"
#include "kernels/dynamic_map.h"

#include <math.h>

enum { BLOCK = MF_BUCKET_BLOCK, CODES = MF_DYNAMIC_MAP_CODES };

/* Midway between each value of a map and the next; the last is never passed. */
struct thresholds {
    float first[CODES], second[CODES];
};

/* What one step does to every element. */
struct step {
    float coefficient, beta1, beta2, epsilon, step_size, decay;
};

static void fill_thresholds(struct thresholds *thresholds) {
    for (int i = 0; i + 1 < CODES; i++) {
        thresholds->first[i] = (mf_dynamic_map_signed[i] + mf_dynamic_map_signed[i + 1]) / 2;
        thresholds->second[i] = (mf_dynamic_map_unsigned[i] + mf_dynamic_map_unsigned[i + 1]) / 2;
    }
    thresholds->first[CODES - 1] = thresholds->second[CODES - 1] = INFINITY;
}

/* How many thresholds each value is above, by halves: the same steps for all, so that they run side by side.
 */
static void encode(const float *restrict threshold, const float *restrict value, float factor,
                   int32_t *restrict code) {
    for (int i = 0; i < BLOCK; i++)
        code[i] = 0;
    for (int32_t half = CODES / 2; half > 0; half /= 2)
#pragma omp simd
        for (int i = 0; i < BLOCK; i++)
            code[i] += value[i] * factor > threshold[code[i] + half - 1] ? half : 0;
}

static float largest(const float *value) {
    float found = 0;
#pragma omp simd reduction(max : found)
    for (int i = 0; i < BLOCK; i++) {
        const float size = fabsf(value[i]);
        found = size > found ? size : found;
    }
    return found;
}

static void update_block(const struct step *step, const struct thresholds *thresholds,
                         const float *restrict gradient, float *restrict parameter, uint8_t *restrict first,
                         uint8_t *restrict second, float *restrict scale) {
    float m[BLOCK], v[BLOCK];
    int32_t code[BLOCK];
#pragma omp simd
    for (int i = 0; i < BLOCK; i++) {
        const float g = step->coefficient * gradient[i];
        m[i] = mf_dynamic_map_signed[first[i]] * scale[0] * step->beta1 + (1 - step->beta1) * g;
        v[i] = mf_dynamic_map_unsigned[second[i]] * scale[1] * step->beta2 + (1 - step->beta2) * g * g;
        const float p = parameter[i] - step->step_size * (m[i] / (sqrtf(v[i]) + step->epsilon));
        parameter[i] = p * step->decay;
    }
    scale[0] = largest(m);
    scale[1] = largest(v);
    const float inverse_m = 1 / fmaxf(scale[0], 1e-38f), inverse_v = 1 / fmaxf(scale[1], 1e-38f);
    encode(thresholds->first, m, inverse_m, code);
    for (int i = 0; i < BLOCK; i++)
        first[i] = (uint8_t)(m[i] < 0 && mf_dynamic_map_signed[code[i]] == 0 ? code[i] - 1 : code[i]);
    encode(thresholds->second, v, inverse_v, code);
    for (int i = 0; i < BLOCK; i++)
        second[i] = (uint8_t)code[i];
}

static enum mf_status adamw_8bit(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const float *gradient = call->in[4].data;                          // (n)
    float *parameter = call->out[0].data, *scales = call->out[3].data; // (n), (n / BLOCK, 2)
    uint8_t *first = call->out[1].data, *second = call->out[2].data;   // (n)
    const struct mf_adamw_attributes *a = &call->node->a.adamw;
    const double rate = call->step->learning_rate, t = call->step->optimizer_step;
    const double correction = sqrt(1 - pow(a->beta2, t));
    const struct step step = {.coefficient = ((const float *)call->in[5].data)[0],
                              .beta1 = a->beta1,
                              .beta2 = a->beta2,
                              .epsilon = (float)(correction * a->epsilon),
                              .step_size = (float)(rate * correction / (1 - pow(a->beta1, t))),
                              .decay = (float)(1 - rate * a->weight_decay)};
    const int64_t blocks = call->out[0].dim[0] / BLOCK;
    struct thresholds thresholds;
    fill_thresholds(&thresholds);
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++)
        update_block(&step, &thresholds, gradient + b * BLOCK, parameter + b * BLOCK, first + b * BLOCK,
                     second + b * BLOCK, scales + 2 * b);
    return MF_OK;
}
const struct mf_kernel mf_fast_adamw_8bit[1] = {{.function = adamw_8bit}};
