#include "kernels/cpu/array.h"
#include "kernels/cpu/reference/reference.h"
#include <math.h>

/* z (V) = the logits of one hidden row, slope (V) their derivative by hidden·W; slope may be NULL. */
static void logits_of_row(const struct mf_head_attributes *a, const struct mf_array *hidden, int64_t row,
                          const struct mf_array *weight, const struct mf_array *bias, float *z,
                          float *slope) {
#pragma omp parallel for
    for (int64_t v = 0; v < weight->dim[0]; v++) {
        double sum = bias->data ? mf_array_get(bias, v) : 0;
        for (int64_t d = 0; d < weight->dim[1]; d++)
            sum += (double)mf_array_get(hidden, row * hidden->stride[0] + d) *
                   mf_array_get(weight, v * weight->stride[0] + d);
        double value = a->logit_scale * sum, change = a->logit_scale;
        if (a->soft_cap > 0) {
            double t = tanh(value / a->soft_cap);
            value = a->soft_cap * t;
            change *= 1 - t * t;
        }
        z[v] = (float)value;
        if (slope)
            slope[v] = (float)change;
    }
}

static enum mf_status check_row(const char *op, const struct mf_array *hidden, int32_t row,
                                struct mf_error *error) {
    if (row >= 0 && row < hidden->dim[0])
        return MF_OK;
    return mf_error_set(error, MF_ERROR_INTERNAL, "%s: row %d is not one of %lld", op, row,
                        (long long)hidden->dim[0]);
}

static double log_sum_exp(const float *z, int64_t V) {
    double greatest = -INFINITY, sum = 0;
    for (int64_t v = 0; v < V; v++)
        greatest = fmax(greatest, z[v]);
    for (int64_t v = 0; v < V; v++)
        sum += exp(z[v] - greatest);
    return greatest + log(sum);
}

/* gradient[i] (D) = Σ_v (δ(v, label) - p_v)·slope_v·weight[v]; slope is used up, sum (D) is scratch. */
static void gradient_of_row(const struct mf_array *weight, int32_t label, const float *z, double log_total,
                            float *slope, double *sum, const struct mf_array *gradient, int64_t i) {
    int64_t V = weight->dim[0], D = weight->dim[1];
    for (int64_t d = 0; d < D; d++)
        sum[d] = 0;
    for (int64_t v = 0; v < V; v++) {
        slope[v] *= (float)((v == label) - exp(z[v] - log_total));
        for (int64_t d = 0; d < D; d++)
            sum[d] += (double)slope[v] * mf_array_get(weight, v * weight->stride[0] + d);
    }
    for (int64_t d = 0; d < D; d++)
        mf_array_set(gradient, i * gradient->stride[0] + d, (float)sum[d]);
}

static enum mf_status head(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *hidden = &call->in[0];     // (T, D)
    const struct mf_array *weight = &call->in[1];     // (V, D)
    const struct mf_array *label_rows = &call->in[2]; // (L)
    const struct mf_array *labels = &call->in[3];     // (L)
    const struct mf_array *bias = &call->in[4];       // (V) or none
    float *log_probability = call->out[0].data;       // (L)
    float *lse = call->out[1].data;                   // (L)
    const struct mf_array *gradient = &call->out[2];  // (L, D) or none
    const struct mf_head_attributes *a = &call->node->a.head;
    float *z = call->workspace[0].data;             // (chunk_rows, V): this kernel uses one row
    double *sum = call->workspace[1].data;          // (D)
    float *slope = (float *)(sum + weight->dim[1]); // (V)
    int64_t V = weight->dim[0];
    for (int64_t i = 0; i < labels->dim[0]; i++) {
        int32_t row = mf_array_integer(label_rows, i), label = mf_array_integer(labels, i);
        enum mf_status status = check_row("head", hidden, row, error);
        if (status != MF_OK)
            return status;
        if (label < 0 || label >= V)
            return mf_error_set(error, MF_ERROR_INTERNAL, "head: label %d is not in the vocabulary of %lld",
                                label, (long long)V);
        logits_of_row(a, hidden, row, weight, bias, z, slope);
        double total = log_sum_exp(z, V);
        lse[i] = (float)total;
        log_probability[i] = (float)(z[label] - total);
        if (a->with_gradient)
            gradient_of_row(weight, label, z, total, slope, sum, gradient, i);
    }
    return MF_OK;
}

static size_t head_workspace(const struct mf_kernel_call *call) {
    return (size_t)call->in[1].dim[1] * sizeof(double) + (size_t)call->in[1].dim[0] * sizeof(float);
}
const struct mf_kernel mf_reference_head[1] = {{.function = head, .workspace_bytes = head_workspace}};

static enum mf_status head_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *gradient = &call->in[0];   // (L, D)
    const struct mf_array *label_rows = &call->in[1]; // (L)
    const float *dlog_probability = call->in[2].data; // (L)
    const struct mf_array *dhidden = &call->out[0];   // (T, D)
    int64_t D = dhidden->dim[1];
    for (int64_t t = 0; t < dhidden->dim[0]; t++)
        for (int64_t d = 0; d < D; d++)
            mf_array_set(dhidden, t * dhidden->stride[0] + d, 0.0f);
    for (int64_t i = 0; i < label_rows->dim[0]; i++) {
        int32_t row = mf_array_integer(label_rows, i);
        enum mf_status status = check_row("head_gradient", dhidden, row, error);
        if (status != MF_OK)
            return status;
        for (int64_t d = 0; d < D; d++)
            mf_array_set(dhidden, row * dhidden->stride[0] + d,
                         dlog_probability[i] * mf_array_get(gradient, i * gradient->stride[0] + d));
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_head_gradient[1] = {{.function = head_gradient}};

/* Adds one row's part dz (the slope of a logit's sum) of element v to `gradient`; `row` of the hidden states.
 */
typedef void add_slope(const struct mf_array *gradient, int64_t v, double dz, const struct mf_array *hidden,
                       int32_t row);

static void add_to_weight(const struct mf_array *gradient, int64_t v, double dz,
                          const struct mf_array *hidden, int32_t row) {
    float *to = (float *)gradient->data + v * gradient->stride[0];
    for (int64_t d = 0; d < gradient->dim[1]; d++)
        to[d] = (float)(to[d] + dz * mf_array_get(hidden, row * hidden->stride[0] + d));
}

static void add_to_bias(const struct mf_array *gradient, int64_t v, double dz, const struct mf_array *hidden,
                        int32_t row) {
    (void)hidden;
    (void)row;
    ((float *)gradient->data)[v] = (float)(((float *)gradient->data)[v] + dz);
}

static enum mf_status second_pass(const struct mf_kernel_call *call, const char *op, add_slope *add,
                                  struct mf_error *error) {
    const struct mf_array *hidden = &call->in[0];     // (T, D)
    const struct mf_array *weight = &call->in[1];     // (V, D)
    const struct mf_array *label_rows = &call->in[2]; // (L)
    const struct mf_array *labels = &call->in[3];     // (L)
    const float *lse = call->in[4].data;              // (L)
    const float *dlog_probability = call->in[5].data; // (L)
    const struct mf_array *gradient = &call->out[0];  // (V, D) or (V) f32, holds the sum so far
    float *z = call->workspace[0].data;               // (chunk_rows, V): this kernel uses one row
    float *slope = call->workspace[1].data;           // (V)
    for (int64_t i = 0; i < labels->dim[0]; i++) {
        int32_t row = mf_array_integer(label_rows, i), label = mf_array_integer(labels, i);
        enum mf_status status = check_row(op, hidden, row, error);
        if (status != MF_OK)
            return status;
        logits_of_row(&call->node->a.head, hidden, row, weight, &call->in[7], z, slope);
        for (int64_t v = 0; v < weight->dim[0]; v++)
            add(gradient, v, dlog_probability[i] * slope[v] * ((v == label) - exp((double)z[v] - lse[i])),
                hidden, row);
    }
    return MF_OK;
}

static enum mf_status head_weight_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    return second_pass(call, "head_weight_gradient", add_to_weight, error);
}

static enum mf_status head_bias_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    return second_pass(call, "head_bias_gradient", add_to_bias, error);
}

static size_t head_weight_gradient_workspace(const struct mf_kernel_call *call) {
    return (size_t)call->in[1].dim[0] * sizeof(float);
}
const struct mf_kernel mf_reference_head_weight_gradient[1] = {
    {.function = head_weight_gradient, .workspace_bytes = head_weight_gradient_workspace}};
const struct mf_kernel mf_reference_head_bias_gradient[1] = {
    {.function = head_bias_gradient, .workspace_bytes = head_weight_gradient_workspace}};

static enum mf_status loss(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const float *log_probability = call->in[0].data; // (L)
    const float *coefficients = call->in[1].data;    // (L)
    double sum = 0;
    for (int64_t i = 0; i < call->in[0].dim[0]; i++)
        sum += (double)coefficients[i] * log_probability[i];
    ((float *)call->out[0].data)[0] = (float)(-sum * call->step->inverse_count);
    return MF_OK;
}
const struct mf_kernel mf_reference_loss[1] = {{.function = loss}};

static enum mf_status loss_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const float *coefficients = call->in[0].data; // (L)
    float *dlog_probability = call->out[0].data;  // (L)
    for (int64_t i = 0; i < call->in[0].dim[0]; i++)
        dlog_probability[i] = -coefficients[i] * call->step->inverse_count;
    return MF_OK;
}
const struct mf_kernel mf_reference_loss_gradient[1] = {{.function = loss_gradient}};

static enum mf_status logits(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *hidden = &call->in[0]; // (T, D)
    const struct mf_array *weight = &call->in[1]; // (V, D)
    const struct mf_array *rows = &call->in[2];   // (S)
    const struct mf_array *bias = &call->in[3];   // (V) or none
    const struct mf_array *z = &call->out[0];     // (S, V) f32
    for (int64_t s = 0; s < rows->dim[0]; s++) {
        int32_t row = mf_array_integer(rows, s);
        enum mf_status status = check_row("logits", hidden, row, error);
        if (status != MF_OK)
            return status;
        logits_of_row(&call->node->a.head, hidden, row, weight, bias, (float *)z->data + s * z->stride[0],
                      NULL);
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_logits[1] = {{.function = logits}};

static enum mf_status argmax(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *z = &call->in[0]; // (S, V) f32
    int32_t *tokens = call->out[0].data;     // (S)
    for (int64_t s = 0; s < z->dim[0]; s++) {
        const float *row = (const float *)z->data + s * z->stride[0];
        int32_t best = 0;
        for (int32_t v = 1; v < z->dim[1]; v++)
            if (row[v] > row[best])
                best = v;
        tokens[s] = best;
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_argmax[1] = {{.function = argmax}};
