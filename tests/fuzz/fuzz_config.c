/* Fuzzing entry of config.json: what is taken in must be a description that the builders can rely on, and is
 * opened as a model over weights that fit the unharmed file. */
#include "providers/models/model.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(const struct mf_architecture *made) {
    if (made->hidden < 1 || made->layers < 1 || made->layers > MF_ARCHITECTURE_MAX_LAYERS ||
        made->heads < 1 || made->key_value_heads < 1 || made->heads % made->key_value_heads ||
        made->head_dim < 1 || made->vocabulary < 1 || made->intermediate < 1 || made->max_positions < 1)
        abort();
    if (!(made->norm_epsilon >= 0) || made->eos_count < 0 || made->eos_count > MF_ARCHITECTURE_MAX_EOS)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool prepared;
    static struct mf_architecture made;
    struct mf_error error;
    char folder[512];
    if (!prepared)
        fuzz_copy("tests/golden/models/tied-gqa/model.safetensors", "model.safetensors");
    prepared = true;
    snprintf(folder, sizeof folder, "%s", fuzz_put("config.json", data, size));
    *strrchr(folder, '/') = 0;
    enum mf_status status = mf_architecture_read(folder, &made, &error);
    if (status == MF_OK) {
        const struct mf_model_options options = {.folder = folder, .compute_dtype = MF_F32};
        struct mf_model *model = NULL;
        check(&made);
        status = mf_model_open(&options, &model, &error);
        mf_model_close(status == MF_OK ? model : NULL);
    }
    if (status != MF_OK && (!*error.message || error.status != status))
        abort();
    return 0;
}
