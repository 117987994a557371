#include "kernels/cpu/array.h"
#include "kernels/cpu/reference/reference.h"
#include "kernels/random.h"
#include <math.h>

static enum mf_status dropout(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0];         // (T, D)
    const struct mf_array *rows = &call->in[1];      // (T)
    const struct mf_array *positions = &call->in[2]; // (T)
    const struct mf_array *y = &call->out[0];        // (T, D), may be x
    const struct mf_dropout_attributes *a = &call->node->a.dropout;
    uint64_t key = mf_random_key(call->step->seed, call->step->step);
    uint32_t threshold = mf_dropout_threshold(a->rate);
    float scale = mf_dropout_scale(a->rate);
    for (int64_t t = 0; t < x->dim[0]; t++)
        for (int64_t d = 0; d < x->dim[1]; d++) {
            uint32_t word[4];
            mf_random_words(key, a->stream, (uint32_t)mf_array_integer(rows, t),
                            (uint32_t)mf_array_integer(positions, t), (uint32_t)(d / 4), word);
            float value = mf_array_get(x, t * x->stride[0] + d);
            mf_array_set(y, t * y->stride[0] + d, word[d % 4] >= threshold ? value * scale : 0.0f);
        }
    return MF_OK;
}
const struct mf_kernel mf_reference_dropout[1] = {{.function = dropout}};

/* The place of element i (row-major) of an array with any strides. */
static int64_t place(const struct mf_array *array, int64_t i) {
    int64_t at = 0;
    for (int axis = array->rank - 1; axis >= 0; axis--) {
        at += i % array->dim[axis] * array->stride[axis];
        i /= array->dim[axis];
    }
    return at;
}

static enum mf_status add(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *a = &call->in[0], *b = &call->in[1], *y = &call->out[0];
    for (int64_t i = 0; i < mf_array_elements(y); i++)
        mf_array_set(y, place(y, i), mf_array_get(a, place(a, i)) + mf_array_get(b, place(b, i)));
    return MF_OK;
}
const struct mf_kernel mf_reference_add[1] = {{.function = add}};

static enum mf_status add_columns(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *part = &call->in[0];   // (T, W)
    const struct mf_array *addend = &call->in[1]; // (T, M) or none
    const struct mf_array *y = &call->out[0];     // (T, M), may be addend
    int64_t first = call->node->a.columns.first;
    for (int64_t t = 0; t < y->dim[0]; t++)
        for (int64_t m = 0; m < y->dim[1]; m++) {
            float value = addend->data ? mf_array_get(addend, t * addend->stride[0] + m) : 0.0f;
            if (m >= first && m < first + part->dim[1])
                value += mf_array_get(part, t * part->stride[0] + m - first);
            mf_array_set(y, t * y->stride[0] + m, value);
        }
    return MF_OK;
}
const struct mf_kernel mf_reference_add_columns[1] = {{.function = add_columns}};

static enum mf_status set_rows(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *part = &call->in[0];   // (t, ...), rows from `first` on
    const struct mf_array *addend = &call->in[1]; // (T, ...) or none
    const struct mf_array *y = &call->out[0];     // (T, ...), may be addend; all are contiguous
    const size_t bytes = mf_dtype_bytes((enum mf_dtype)y->dtype);
    char *to = y->data;
    if (!addend->data)
        memset(to, 0, (size_t)mf_array_elements(y) * bytes);
    else if (addend->data != y->data)
        memcpy(to, addend->data, (size_t)mf_array_elements(y) * bytes);
    if (part->dim[0] > 0)
        memcpy(to + (size_t)(call->node->a.rows.first * y->stride[0]) * bytes, part->data,
               (size_t)mf_array_elements(part) * bytes);
    return MF_OK;
}
const struct mf_kernel mf_reference_set_rows[1] = {{.function = set_rows}};

static enum mf_status copy(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *y = &call->out[0]; // both contiguous
    memcpy(y->data, x->data, (size_t)mf_array_elements(x) * mf_dtype_bytes((enum mf_dtype)x->dtype));
    return MF_OK;
}
const struct mf_kernel mf_reference_copy[1] = {{.function = copy}};

/* Copies have ended when they return. */
static enum mf_status await(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)call;
    (void)error;
    return MF_OK;
}
const struct mf_kernel mf_reference_await[1] = {{.function = await}};

static enum mf_status cast(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *y = &call->out[0]; // (n)
    for (int64_t i = 0; i < x->dim[0]; i++)
        mf_array_set(y, i, mf_array_get(x, i));
    return MF_OK;
}
const struct mf_kernel mf_reference_cast[1] = {{.function = cast}};

/* to[row :, column :] = scale * part */
static void place_part(const struct mf_array *part, float scale, const struct mf_array *to, int64_t row,
                       int64_t column) {
    for (int64_t i = 0; i < part->dim[0]; i++)
        for (int64_t c = 0; c < part->dim[1]; c++)
            mf_array_set(to, (row + i) * to->stride[0] + column + c,
                         scale * mf_array_get(part, i * part->stride[0] + c));
}

static enum mf_status fold_adapters(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *whole = &call->out[0]; // (N + R, K + R)
    const struct mf_array *a = &call->in[2];      // (R, K) or none
    const struct mf_fold_attributes *fold = &call->node->a.fold;
    int64_t rank = 0, column;
    for (int i = 0; i < MF_FOLDED; i++)
        rank += call->in[i == 0 ? 1 : i + 2].data ? call->in[i == 0 ? 1 : i + 2].dim[1] : 0;
    column = whole->dim[1] - rank;
    if (a->data)
        place_part(a, 1, whole, whole->dim[0] - rank, 0);
    for (int i = 0; i < MF_FOLDED; i++) {
        const struct mf_array *b = &call->in[i == 0 ? 1 : i + 2]; // (N_i, r_i) or none
        if (!b->data)
            break;
        place_part(b, fold->scale[i], whole, fold->first[i], column);
        column += b->dim[1];
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_fold_adapters[1] = {{.function = fold_adapters}};

static enum mf_status zero(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *state = &call->out[0];
    int64_t width = state->dim[state->rank - 1];
    size_t element = mf_dtype_bytes(state->dtype);
    for (int64_t i = 0; i < mf_array_elements(state); i += width) /* all bits 0 is 0 in every dtype */
        memset((char *)state->data + (size_t)place(state, i) * element, 0, (size_t)width * element);
    return MF_OK;
}
const struct mf_kernel mf_reference_zero[1] = {{.function = zero}};

/* Value and slope of the activation at g. */
static double activate(enum mf_activation activation, double g, double *slope) {
    if (activation == MF_ACTIVATION_SILU) {
        double sigmoid = 1 / (1 + exp(-g));
        *slope = sigmoid * (1 + g * (1 - sigmoid));
        return g * sigmoid;
    }
    const double root = 0.7978845608028654; /* sqrt(2 / pi) */
    double t = tanh(root * (g + 0.044715 * g * g * g));
    *slope = 0.5 * (1 + t) + 0.5 * g * (1 - t * t) * root * (1 + 3 * 0.044715 * g * g);
    return 0.5 * g * (1 + t);
}

static enum mf_status gated_activation(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *gate = &call->in[0], *up = &call->in[1]; // (T, F)
    const struct mf_array *y = &call->out[0];                       // (T, F), may be gate
    for (int64_t t = 0; t < gate->dim[0]; t++)
        for (int64_t f = 0; f < gate->dim[1]; f++) {
            double slope;
            double value =
                activate(call->node->a.gated.activation, mf_array_get(gate, t * gate->stride[0] + f), &slope);
            mf_array_set(y, t * y->stride[0] + f, (float)(value * mf_array_get(up, t * up->stride[0] + f)));
        }
    return MF_OK;
}
const struct mf_kernel mf_reference_gated_activation[1] = {{.function = gated_activation}};

static enum mf_status gated_activation_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *gate = &call->in[0], *up = &call->in[1], *dy = &call->in[2]; // (T, F)
    const struct mf_array *dgate = &call->out[0], *dup = &call->out[1]; // (T, F), dgate may be gate
    for (int64_t t = 0; t < gate->dim[0]; t++)
        for (int64_t f = 0; f < gate->dim[1]; f++) {
            double slope, out = mf_array_get(dy, t * dy->stride[0] + f),
                          u = mf_array_get(up, t * up->stride[0] + f);
            double value =
                activate(call->node->a.gated.activation, mf_array_get(gate, t * gate->stride[0] + f), &slope);
            mf_array_set(dgate, t * dgate->stride[0] + f, (float)(out * u * slope));
            mf_array_set(dup, t * dup->stride[0] + f, (float)(out * value));
        }
    return MF_OK;
}
const struct mf_kernel mf_reference_gated_activation_gradient[1] = {{.function = gated_activation_gradient}};

static enum mf_status activation(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *y = &call->out[0]; // (T, F), y may be x
    double slope;
    for (int64_t t = 0; t < x->dim[0]; t++)
        for (int64_t f = 0; f < x->dim[1]; f++)
            mf_array_set(y, t * y->stride[0] + f,
                         (float)activate(call->node->a.gated.activation,
                                         mf_array_get(x, t * x->stride[0] + f), &slope));
    return MF_OK;
}
const struct mf_kernel mf_reference_activation[1] = {{.function = activation}};

static enum mf_status activation_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *x = &call->in[0], *dy = &call->in[1]; // (T, F)
    const struct mf_array *dx = &call->out[0];                   // (T, F), may be x
    double slope;
    for (int64_t t = 0; t < x->dim[0]; t++)
        for (int64_t f = 0; f < x->dim[1]; f++) {
            activate(call->node->a.gated.activation, mf_array_get(x, t * x->stride[0] + f), &slope);
            mf_array_set(dx, t * dx->stride[0] + f, (float)(slope * mf_array_get(dy, t * dy->stride[0] + f)));
        }
    return MF_OK;
}
const struct mf_kernel mf_reference_activation_gradient[1] = {{.function = activation_gradient}};
