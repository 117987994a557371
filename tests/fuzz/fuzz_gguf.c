/* Fuzzing entry of the GGUF reader. */
#include "providers/weights/gguf.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

enum { CHUNK = 256 };

/* Every tensor, block by block; every key that the converter asks for, as every type. */
static void read_all(const struct mf_gguf *file) {
    static const char *const keys[] = {"general.architecture",  "llama.block_count",
                                       "llama.rope.freq_base",  "tokenizer.ggml.tokens",
                                       "tokenizer.ggml.merges", "tokenizer.ggml.add_bos_token",
                                       "general.alignment",     "tokenizer.ggml.token_type"};
    for (size_t i = 0; i < mf_gguf_count(file); i++) {
        const struct mf_gguf_tensor *tensor = mf_gguf_at(file, i);
        float value[CHUNK];
        if (!mf_gguf_type_name(tensor->type) || mf_gguf_find(file, tensor->name) != tensor)
            abort();
        for (int64_t first = 0; first + CHUNK <= tensor->elements; first += CHUNK)
            if (!mf_gguf_read(tensor, first, CHUNK, value))
                abort();
        if (mf_gguf_read(tensor, tensor->elements, CHUNK, value))
            abort(); /* beyond the end */
    }
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        int64_t integer;
        double number;
        bool boolean;
        struct mf_gguf_text text;
        mf_gguf_integer(file, keys[k], &integer);
        mf_gguf_number(file, keys[k], &number);
        mf_gguf_boolean(file, keys[k], &boolean);
        if (mf_gguf_string(file, keys[k], &text) && text.length && !text.data)
            abort();
        int64_t length = mf_gguf_array_length(file, keys[k]);
        if (length <= 0)
            continue;
        struct mf_gguf_text *texts = calloc((size_t)length, sizeof *texts);
        int64_t *integers = calloc((size_t)length, sizeof *integers);
        if (!texts || !integers)
            abort();
        mf_gguf_strings(file, keys[k], texts, (size_t)length);
        mf_gguf_integers(file, keys[k], integers, (size_t)length);
        free(texts);
        free(integers);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mf_gguf *file = NULL;
    struct mf_error error;
    enum mf_status status = mf_gguf_open(fuzz_put("file.gguf", data, size), &file, &error);
    if (status == MF_OK)
        read_all(file);
    else if (!*error.message || error.status != status)
        abort();
    mf_gguf_close(status == MF_OK ? file : NULL);
    return 0;
}
