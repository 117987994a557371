/* Fuzzing entry of what a GGUF file says of a model and its tokenizer: metadata, tensors by name and shape,
 * words and merges. */
#include "common/files.h"
#include "providers/convert.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>

static void check(enum mf_status status, const struct mf_error *error) {
    if (status != MF_OK && (!*error->message || error->status != status))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char gguf[512], folder[512], config[512];
    struct mf_convert_result result;
    struct mf_error error;
    snprintf(gguf, sizeof gguf, "%s", fuzz_put("file.gguf", data, size));
    snprintf(folder, sizeof folder, "%s", fuzz_path("model"));
    snprintf(config, sizeof config, "%s", fuzz_path("model/config.json"));
    enum mf_status status = mf_convert_gguf_check(gguf, &error);
    check(status, &error);
    if (status != MF_OK)
        return 0;
    const struct mf_convert_options options = {gguf, folder, MF_BF16};
    status = mf_convert_gguf(&options, &result, &error); /* may still fail on the tokenizer, or in a block */
    check(status, &error);
    if (mf_path_exists(config) != (status == MF_OK))
        abort();
    return 0;
}
