/* Fuzzing entry of datasets: a JSONL file, a JSON array or gzip of them, from the file's bytes to samples in
 * the text form and in the chat form. */
#include "tests/fuzz/fuzz.h"
#include "worker/trainer/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL "tests/golden/models/tied-gqa/"

static struct mf_tokenizer *tokenizer;

static void close_tokenizer(void) {
    mf_tokenizer_close(tokenizer);
}

static void open_tokenizer(void) {
    struct mf_error error;
    char folder[512];
    snprintf(folder, sizeof folder, "%s", fuzz_copy(MODEL "tokenizer.json", "tokenizer.json"));
    fuzz_copy(MODEL "tokenizer_config.json", "tokenizer_config.json");
    *strrchr(folder, '/') = 0;
    if (mf_tokenizer_open(folder, &tokenizer, &error) || atexit(close_tokenizer))
        abort();
}

static void check_samples(const struct mf_samples *samples, int32_t longest) {
    for (size_t i = 0; i < samples->count; i++) {
        const struct mf_sample *sample = &samples->sample[i];
        int32_t labelled = 0;
        if (sample->length < 2 || sample->length > longest)
            abort();
        for (int32_t t = 0; t < sample->length; t++) {
            if (sample->label[t] != MF_LABEL_NONE && sample->label[t] != sample->token[t])
                abort();
            labelled += t && sample->label[t] != MF_LABEL_NONE;
        }
        if (!labelled || labelled != sample->labelled)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mf_dataset dataset;
    struct mf_error error;
    if (!tokenizer)
        open_tokenizer();
    enum mf_status status = mf_dataset_load(fuzz_put("rows.jsonl", data, size), 1, &dataset, &error);
    if (status != MF_OK && (!*error.message || error.status != status))
        abort();
    for (int chat = 0; status == MF_OK && chat < 2; chat++) {
        const struct mf_template_options options = {.use_chat_template = chat,
                                                    .on_overflow =
                                                        chat ? MF_OVERFLOW_DROP : MF_OVERFLOW_TRUNCATE,
                                                    .max_length = 64,
                                                    .model_eos = -1};
        struct mf_samples samples;
        enum mf_status applied = mf_template_apply(&dataset, tokenizer, &options, &samples, &error);
        if (applied == MF_OK) {
            check_samples(&samples, options.max_length);
            mf_samples_destroy(&samples);
        } else if (!*error.message || error.status != applied) {
            abort();
        }
    }
    if (status == MF_OK)
        mf_dataset_destroy(&dataset);
    return 0;
}
