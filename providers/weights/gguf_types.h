/* Private to weights/: the table of ggml's tensor types and their dequantising. */
#ifndef MF_PROVIDERS_WEIGHTS_GGUF_TYPES_H
#define MF_PROVIDERS_WEIGHTS_GGUF_TYPES_H

#include <stdint.h>

struct mf_gguf_type_info {
    uint32_t type; /* ggml's number */
    const char *name;
    int32_t block_elements, block_bytes;
    void (*dequantize)(const uint8_t *block, float *value); /* one block */
};

/* NULL for a type that cannot be dequantised. */
const struct mf_gguf_type_info *mf_gguf_type_find(uint32_t type);

#endif
