#include "kernels/tensor.h"

#include <assert.h>
#include <stdio.h>

size_t mf_dtype_bytes(enum mf_dtype dtype) {
    static const uint8_t bytes[MF_DTYPES] = {
        [MF_F32] = 4, [MF_BF16] = 2, [MF_F16] = 2, [MF_I32] = 4, [MF_U8] = 1};
    assert(dtype < MF_DTYPES);
    return bytes[dtype];
}

const char *mf_dtype_name(enum mf_dtype dtype) {
    static const char *const name[MF_DTYPES] = {
        [MF_F32] = "f32", [MF_BF16] = "bf16", [MF_F16] = "f16", [MF_I32] = "i32", [MF_U8] = "u8"};
    assert(dtype < MF_DTYPES);
    return name[dtype];
}

const char *mf_storage_name(enum mf_storage storage) {
    static const char *const name[MF_STORAGES] = {
        [MF_WEIGHT] = "weight",         [MF_ADAPTER] = "adapter",    [MF_GRADIENT] = "gradient",
        [MF_OPTIMIZER] = "optimizer",   [MF_STATE] = "state",        [MF_INPUT] = "input",
        [MF_ACTIVATION] = "activation", [MF_WORKSPACE] = "workspace"};
    assert(storage < MF_STORAGES);
    return name[storage];
}

const char *mf_symbol_name(enum mf_symbol symbol) {
    static const char *const name[MF_SYMBOLS] = {
        [MF_CONST] = "const",     [MF_TOKENS] = "tokens",     [MF_SEQUENCES] = "sequences",
        [MF_OFFSETS] = "offsets", [MF_LABELLED] = "labelled", [MF_CACHE] = "cache",
        [MF_LONGEST] = "longest"};
    assert(symbol < MF_SYMBOLS);
    return name[symbol];
}

int64_t mf_tensor_elements(const struct mf_tensor *tensor, const int32_t *value) {
    int64_t elements = 1;
    for (int i = 0; i < tensor->rank; i++) {
        int64_t size = mf_dim_value(tensor->dim[i], value);
        if (size < 0 || __builtin_mul_overflow(elements, size, &elements))
            return -1;
    }
    return elements;
}

void mf_tensor_set_contiguous(struct mf_tensor *tensor) {
    int64_t stride = 1;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        tensor->stride[i] = stride;
        if (i > 0)
            stride *= tensor->dim[i].multiplier;
    }
}

bool mf_tensor_is_contiguous(const struct mf_tensor *tensor) {
    struct mf_tensor contiguous = *tensor;
    mf_tensor_set_contiguous(&contiguous);
    for (int i = 0; i < tensor->rank; i++)
        if (tensor->stride[i] != contiguous.stride[i])
            return false;
    return true;
}

bool mf_tensor_same_shape(const struct mf_tensor *a, const struct mf_tensor *b) {
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (!mf_dim_equal(a->dim[i], b->dim[i]))
            return false;
    return true;
}

char *mf_tensor_describe(const struct mf_tensor *tensor, char *text, size_t bytes) {
    static const char *const letter[MF_SYMBOLS] = {"", "T", "S", "O", "L", "C"};
    size_t used = 0;
    for (int i = 0; i < tensor->rank && used < bytes; i++) {
        struct mf_dim dim = tensor->dim[i];
        const char *separator = i ? ", " : "(";
        int written;
        if (dim.symbol == MF_CONST)
            written = snprintf(text + used, bytes - used, "%s%d", separator, (int)dim.multiplier);
        else if (dim.most > 0)
            written = snprintf(text + used, bytes - used, "%s%d%s[%d:%d]", separator, (int)dim.multiplier,
                               letter[dim.symbol], (int)dim.first, (int)(dim.first + dim.most));
        else if (dim.multiplier == 1)
            written = snprintf(text + used, bytes - used, "%s%s", separator, letter[dim.symbol]);
        else
            written = snprintf(text + used, bytes - used, "%s%d%s", separator, (int)dim.multiplier,
                               letter[dim.symbol]);
        used += written > 0 ? (size_t)written : 0;
    }
    if (used < bytes)
        snprintf(text + used, bytes - used, ") %s", mf_dtype_name((enum mf_dtype)tensor->dtype));
    return text;
}

float mf_f16_to_f32(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu,
             fraction = bits & 0x3ffu;
    uint32_t word;
    float value;
    if (exponent == 0x1f) {
        word = sign | 0x7f800000u | (fraction << 13);
    } else if (exponent) {
        word = sign | ((exponent + 112u) << 23) | (fraction << 13);
    } else {
        value = (float)fraction * 0x1p-24f; /* zero and subnormals are exact */
        return sign ? -value : value;
    }
    memcpy(&value, &word, sizeof value);
    return value;
}

uint16_t mf_f32_to_f16(float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    uint32_t sign = (word >> 16) & 0x8000u, magnitude = word & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
    if (magnitude >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* below 2^-14: subnormal; adding 0.5 rounds to a multiple of 2^-24 */
        float shifted;
        memcpy(&shifted, &magnitude, sizeof shifted);
        shifted += 0.5f;
        memcpy(&word, &shifted, sizeof word);
        return (uint16_t)(sign | (word - 0x3f000000u));
    }
    magnitude += 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((magnitude - 0x38000000u) >> 13));
}
