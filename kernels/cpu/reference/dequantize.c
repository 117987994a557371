#include "kernels/cpu/reference/reference.h"
#include "kernels/quantize.h"

static enum mf_status dequantize(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    const struct mf_array *weight = &call->out[0]; // (N, K)
    const struct mf_dequantize_attributes *a = &call->node->a.dequantize;
    uint8_t *codes = call->in[0].data, *scale_codes = call->in[2].data;
    float *scales = call->in[1].data;
    char *to = weight->data;
    for (int i = 0; i < MF_QUANTIZED_PARTS && a->rows[i]; i++) {
        const struct mf_quantized_layout size =
            mf_quantized_layout((enum mf_quantization)a->quantization, a->nested, a->rows[i], a->columns);
        const struct mf_quantized part = {.quantization = (enum mf_quantization)a->quantization,
                                          .nested = a->nested,
                                          .rows = a->rows[i],
                                          .columns = a->columns,
                                          .code = codes,
                                          .scale = a->nested ? NULL : scales,
                                          .scale_code = scale_codes,
                                          .scale_scale = a->nested ? scales : NULL,
                                          .scale_mean = a->nested ? scales[size.scales - 1] : 0};
        mf_dequantize(&part, (enum mf_dtype)weight->dtype, to);
        to += (size_t)a->rows[i] * (size_t)a->columns * mf_dtype_bytes((enum mf_dtype)weight->dtype);
        codes += size.codes;
        scales += size.scales;
        scale_codes += a->nested ? size.scale_codes : 0;
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_dequantize[1] = {{.function = dequantize}};
