#include "kernels/cpu/array.h"
#include "kernels/cpu/reference/reference.h"
#include <math.h>

static enum mf_status rope_table(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *frequency = &call->in[0]; // (R/2) f32
    const struct mf_array *positions = &call->in[1]; // (T)
    const struct mf_array *table = &call->out[0];    // (T, R): cosines, then sines
    int64_t half = frequency->dim[0];
    float factor = call->node->a.rope_table.factor;
    for (int64_t t = 0; t < positions->dim[0]; t++)
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)mf_array_integer(positions, t) * mf_array_get(frequency, i);
            mf_array_set(table, t * table->stride[0] + i, factor * cosf(angle));
            mf_array_set(table, t * table->stride[0] + half + i, factor * sinf(angle));
        }
    return MF_OK;
}
const struct mf_kernel mf_reference_rope_table[1] = {{.function = rope_table}};

static enum mf_status rope(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0];     // (T, H, d)
    const struct mf_array *table = &call->in[1]; // (T, R)
    const struct mf_array *y = &call->out[0];    // (T, H, d), may be x
    int64_t R = table->dim[1], half = R / 2;
    float sign = call->node->a.rope.inverse ? -1.0f : 1.0f;
    for (int64_t t = 0; t < x->dim[0]; t++)
        for (int64_t h = 0; h < x->dim[1]; h++) {
            int64_t from = t * x->stride[0] + h * x->stride[1], to = t * y->stride[0] + h * y->stride[1];
            for (int64_t i = 0; i < half; i++) {
                float cosine = mf_array_get(table, t * table->stride[0] + i);
                float sine = sign * mf_array_get(table, t * table->stride[0] + half + i);
                float a = mf_array_get(x, from + i), b = mf_array_get(x, from + half + i);
                mf_array_set(y, to + i, a * cosine - b * sine);
                mf_array_set(y, to + half + i, b * cosine + a * sine);
            }
            for (int64_t i = R; i < x->dim[2]; i++)
                mf_array_set(y, to + i, mf_array_get(x, from + i));
        }
    return MF_OK;
}
const struct mf_kernel mf_reference_rope[1] = {{.function = rope}};
