/* Linear layers: frozen weights in oneDNN's layout, trainable ones (adapters) as they lie, converted to the
 * activations' dtype in the workspace where they differ. */
#include "kernels/cpu/fast.h"
#include "kernels/cpu/fast_backend.h"
#include "kernels/cpu/rows.h"

/* workspace[1]: the weight (N, K) in the activations' dtype where it has another one, then the bias (N) as
 * f32. */
static size_t converted_weight_bytes(const struct mf_array *weight, enum mf_dtype dtype) {
    if (weight->dtype == dtype)
        return 0;
    return ((size_t)mf_array_elements(weight) * mf_dtype_bytes(dtype) + 63) / 64 * 64;
}

static size_t linear_workspace(const struct mf_kernel_call *call) {
    const struct mf_array *weight = &call->in[1], *bias = &call->in[2];
    bool has_bias = call->node->op == MF_OP_LINEAR && bias->tensor >= 0;
    return converted_weight_bytes(weight, call->in[0].dtype) +
           (has_bias ? (size_t)weight->dim[0] * sizeof(float) : 0);
}

/* The weight as a right-hand side in `form` for activations of call->in[0]'s dtype. */
static struct mf_operand right_hand_side(const struct mf_kernel_call *call, enum mf_weight_form form) {
    const struct mf_array *weight = &call->in[1], *left = &call->in[0], *result = &call->out[0];
    enum mf_dtype dtype = left->dtype;
    const struct mf_operand *packed = mf_packed_weight_find(mf_fast_backend_of(call), weight, form, dtype);
    /* oneDNN multiplies by packed weights fast only when the other two are dense. */
    if (packed && left->stride[0] == packed->K && result->stride[0] == packed->N)
        return *packed;
    int64_t N = weight->dim[0], K = weight->dim[1], stride = weight->stride[0];
    const void *data = weight->data;
    if (weight->dtype != dtype) {
        struct mf_array copy = {.data = call->workspace[1].data, .dtype = (uint8_t)dtype};
#pragma omp parallel for schedule(static)
        for (int64_t n = 0; n < N; n++)
            for (int64_t start = 0; start < K; start += MF_STRETCH) {
                float value[MF_STRETCH];
                int64_t length = mf_stretch_length(start, K);
                mf_load(weight, n * stride + start, value, length);
                mf_store(&copy, n * K + start, value, length);
            }
        data = copy.data;
        stride = K;
    }
    bool bf16 = dtype == MF_BF16;
    if (form == MF_FORM_FORWARD)
        return (struct mf_operand){
            .data = data, .K = K, .N = N, .k_stride = 1, .n_stride = stride, .bf16 = bf16};
    return (struct mf_operand){.data = data, .K = N, .N = K, .k_stride = stride, .n_stride = 1, .bf16 = bf16};
}

/* y = addend, unless they share storage; none: nothing. */
static void start_from(const struct mf_array *addend, const struct mf_array *y) {
    if (!addend->data || addend->data == y->data)
        return;
    size_t width = mf_dtype_bytes(y->dtype);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < y->dim[0]; t++)
        memcpy((char *)y->data + (size_t)(t * y->stride[0]) * width,
               (const char *)addend->data + (size_t)(t * addend->stride[0]) * width,
               (size_t)y->dim[1] * width);
}

static void *column(const struct mf_array *array, int64_t first) {
    return (char *)array->data + (size_t)first * mf_dtype_bytes(array->dtype);
}

/* product->a (M, K) times b into c, a block of rows at a time. */
static enum mf_status multiply_rows(const struct mf_kernel_call *call, const struct mf_product *product,
                                    size_t a_bytes, size_t c_bytes, struct mf_error *error) {
    enum mf_status status = MF_OK;
    for (int64_t row = 0; row < product->M && status == MF_OK; row += MF_ROW_BLOCK) {
        struct mf_product block = *product;
        block.M = product->M - row < MF_ROW_BLOCK ? product->M - row : MF_ROW_BLOCK;
        block.a = (const char *)product->a + (size_t)(row * product->a_row) * a_bytes;
        block.c = (char *)product->c + (size_t)(row * product->c_row) * c_bytes;
        status = mf_gemm_run(mf_fast_backend_of(call)->gemm, &block, error);
    }
    return status;
}

static enum mf_status linear(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *x = &call->in[0];      // (T, K); weight (N, K): in[1]
    const struct mf_array *bias = &call->in[2];   // (N) or none
    const struct mf_array *addend = &call->in[3]; // (T, M) or none
    const struct mf_array *y = &call->out[0];     // (T, M), may be addend
    const struct mf_linear_attributes *a = &call->node->a.linear;
    struct mf_operand weight = right_hand_side(call, MF_FORM_FORWARD);
    float *bias_f32 = NULL;
    if (bias->data) {
        bias_f32 =
            (float *)((char *)call->workspace[1].data + converted_weight_bytes(&call->in[1], x->dtype));
        mf_load(bias, 0, bias_f32, weight.N);
    }
    start_from(addend, y);
    struct mf_product product = {.M = x->dim[0],
                                 .a = x->data,
                                 .a_row = x->stride[0],
                                 .a_column = 1,
                                 .b = &weight,
                                 .bias = bias_f32,
                                 .c = column(y, a->first),
                                 .c_row = y->stride[0],
                                 .c_bf16 = y->dtype == MF_BF16,
                                 .accumulate = addend->data != NULL,
                                 .alpha = a->alpha};
    return multiply_rows(call, &product, mf_dtype_bytes(x->dtype), mf_dtype_bytes(y->dtype), error);
}
const struct mf_kernel mf_fast_linear[1] = {{.function = linear, .workspace_bytes = linear_workspace}};

static enum mf_status linear_input_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *dy = &call->in[0];     // (T, M); weight (N, K): in[1]
    const struct mf_array *addend = &call->in[2]; // (T, K) or none
    const struct mf_array *dx = &call->out[0];    // (T, K), may be addend
    const struct mf_linear_attributes *a = &call->node->a.linear;
    struct mf_operand weight = right_hand_side(call, MF_FORM_GRADIENT);
    start_from(addend, dx);
    struct mf_product product = {.M = dy->dim[0],
                                 .a = column(dy, a->first),
                                 .a_row = dy->stride[0],
                                 .a_column = 1,
                                 .b = &weight,
                                 .c = dx->data,
                                 .c_row = dx->stride[0],
                                 .c_bf16 = dx->dtype == MF_BF16,
                                 .accumulate = addend->data != NULL,
                                 .alpha = a->alpha};
    return multiply_rows(call, &product, mf_dtype_bytes(dy->dtype), mf_dtype_bytes(dx->dtype), error);
}
const struct mf_kernel mf_fast_linear_input_gradient[1] = {
    {.function = linear_input_gradient, .workspace_bytes = linear_workspace}};

static enum mf_status linear_weight_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *x = &call->in[0];         // (T, K)
    const struct mf_array *dy = &call->in[1];        // (T, M)
    const struct mf_array *gradient = &call->out[0]; // (N, K) f32
    const struct mf_linear_attributes *a = &call->node->a.linear;
    const size_t x_bytes = mf_dtype_bytes(x->dtype), dy_bytes = mf_dtype_bytes(dy->dtype);
    enum mf_status status = MF_OK;
    for (int64_t row = 0; row < x->dim[0] && status == MF_OK; row += MF_ROW_BLOCK) {
        struct mf_operand right = {.data = (const char *)x->data + (size_t)(row * x->stride[0]) * x_bytes,
                                   .K = x->dim[0] - row < MF_ROW_BLOCK ? x->dim[0] - row : MF_ROW_BLOCK,
                                   .N = x->dim[1],
                                   .k_stride = x->stride[0],
                                   .n_stride = 1,
                                   .bf16 = x->dtype == MF_BF16};
        struct mf_product product = {.M = gradient->dim[0],
                                     .a = (const char *)column(dy, a->first) +
                                          (size_t)(row * dy->stride[0]) * dy_bytes, /* dyᵀ (N, T) */
                                     .a_row = 1,
                                     .a_column = dy->stride[0],
                                     .b = &right,
                                     .c = gradient->data,
                                     .c_row = gradient->stride[0],
                                     .accumulate = true,
                                     .alpha = a->alpha};
        status = mf_gemm_run(mf_fast_backend_of(call)->gemm, &product, error);
    }
    return status;
}
const struct mf_kernel mf_fast_linear_weight_gradient[1] = {{.function = linear_weight_gradient}};

static enum mf_status linear_bias_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *dy = &call->in[0]; // (T, M)
    float *gradient = call->out[0].data;      // (N), holds the sum so far
    const struct mf_linear_attributes *a = &call->node->a.linear;
    int64_t T = dy->dim[0], N = call->out[0].dim[0];
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < N; start += MF_COLUMNS) {
        int64_t n = N - start < MF_COLUMNS ? N - start : MF_COLUMNS;
        for (int64_t row = 0; row < T; row += MF_ROW_BLOCK) {
            float value[MF_COLUMNS], sum[MF_COLUMNS] = {0};
            for (int64_t t = row; t < T && t < row + MF_ROW_BLOCK; t++) {
                mf_load(dy, t * dy->stride[0] + a->first + start, value, n);
#pragma omp simd
                for (int64_t i = 0; i < n; i++)
                    sum[i] += value[i];
            }
            for (int64_t i = 0; i < n; i++)
                gradient[start + i] += a->alpha * sum[i];
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_linear_bias_gradient[1] = {{.function = linear_bias_gradient}};
