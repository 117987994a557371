/* GGUF to a Hugging Face folder: weights as Python's tools see them, and the result opens as a model. */
#include "common/files.h"
#include "providers/convert.h"
#include "providers/models/model.h"
#include "providers/tokenizer/tokenizer.h"
#include "providers/weights/safetensors.h"
#include "tests/providers/scratch.h"
#include "tests/providers/tokenizer_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GGUF "tests/golden/weights_llama.gguf"

static void convert(enum mf_dtype dtype) {
    const struct mf_convert_options options = {GGUF, scratch_folder(), dtype};
    struct mf_convert_result result;
    struct mf_error error;
    if (mf_convert_gguf(&options, &result, &error))
        fail_msg("%s", error.message);
    assert_int_equal(result.tensors, 20);
    assert_int_equal(result.layers, 2);
    assert_int_equal(result.vocabulary, 400);
}

static void weights_equal_python(void **state) {
    struct mf_safetensors *golden, *ours;
    struct mf_error error;
    (void)state;
    assert_int_equal(mf_safetensors_open_file("tests/golden/weights_llama.safetensors", &golden, &error),
                     MF_OK);
    for (int round = 0; round < 2; round++) { /* the second replaces the first */
        convert(round ? MF_BF16 : MF_F32);
        assert_int_equal(mf_safetensors_open_folder(scratch_folder(), &ours, &error), MF_OK);
        assert_int_equal(mf_safetensors_count(ours), mf_safetensors_count(golden));
        for (size_t i = 0; i < mf_safetensors_count(golden); i++) {
            const struct mf_stored_tensor *wanted = mf_safetensors_at(golden, i);
            const struct mf_stored_tensor *found = mf_safetensors_find(ours, wanted->name);
            assert_non_null(found);
            assert_memory_equal(found->dim, wanted->dim, sizeof wanted->dim);
            bool same = round || !memcmp(found->data, wanted->data, wanted->bytes);
            for (size_t e = 0; round && e < wanted->bytes / 4; e++) {
                float value;
                uint16_t half;
                memcpy(&value, (const char *)wanted->data + 4 * e, 4);
                memcpy(&half, (const char *)found->data + 2 * e, 2);
                same = same && half == mf_f32_to_bf16(value);
            }
            if (!same)
                fail_msg("%s: other values than Python's", wanted->name);
        }
        mf_safetensors_close(ours);
    }
    mf_safetensors_close(golden);
}

static void folder_is_a_model(void **state) {
    struct mf_model_options options = {.compute_dtype = MF_F32};
    struct mf_tokenizer *tokenizer;
    struct mf_model *model;
    struct mf_error error;
    (void)state;
    convert(MF_F32);
    options.folder = scratch_folder();
    if (mf_model_open(&options, &model, &error))
        fail_msg("%s", error.message);
    const struct mf_architecture *a = mf_model_architecture(model);
    assert_true(a->hidden == 32 && a->head_dim == 16 && a->key_value_heads == 1 && a->tied_embeddings);
    assert_true(a->norm_epsilon == 1e-5f && a->rope.theta == 100000 && a->max_positions == 256);
    assert_true(a->bos == 1 && a->eos_count == 1 && a->eos[0] == 2);
    mf_model_close(model);
    /* the tokenizer that the file was made from */
    if (mf_tokenizer_open(scratch_folder(), &tokenizer, &error))
        fail_msg("%s", error.message);
    json_t *golden = load_golden("tests/golden/tokenizer_smollm/golden.json");
    assert_true(check_texts(tokenizer, "converted", json_object_get(golden, "texts")) > 30);
    assert_int_equal(check_chats(tokenizer, "converted", json_object_get(golden, "chats")), 12);
    json_decref(golden);
    mf_tokenizer_close(tokenizer);
}

/* Replaces the first `from` in the GGUF by `to` of the same length and expects a refusal. */
static void expect_refusal(const char *from, const char *to, enum mf_status wanted, const char *part) {
    struct mf_convert_options options = {NULL, NULL, MF_F32};
    struct mf_convert_result result;
    struct mf_error error;
    char gguf[128], folder[128], *data;
    size_t size;
    assert_int_equal(mf_file_read(GGUF, 1 << 20, &data, &size, &error), MF_OK);
    char *at = memmem(data, size, from, strlen(from));
    assert_non_null(at);
    for (size_t i = 0; to[i]; i++)
        at[i] = to[i];
    scratch_put("x.gguf", data, size);
    free(data);
    snprintf(gguf, sizeof gguf, "%s", scratch_path("x.gguf"));
    snprintf(folder, sizeof folder, "%s", scratch_path("out"));
    options.gguf_path = gguf;
    options.output_folder = folder;
    enum mf_status status = mf_convert_gguf(&options, &result, &error);
    if (status != wanted || !strstr(error.message, part) || !strstr(error.message, "x.gguf"))
        fail_msg("expected %s '%s', got %s: %s", mf_status_code(wanted), part, mf_status_code(status),
                 status ? error.message : "");
    assert_false(mf_path_exists(scratch_path("out/config.json")));
}

static void refuses_what_it_does_not_know(void **state) {
    (void)state;
    expect_refusal("smollm", "qwen_x", MF_ERROR_BAD_TOKENIZER,
                   "tokenizer.ggml.pre: 'qwen_x' is not supported");
    expect_refusal("llama.block_count", "llama.block_xxxxx", MF_ERROR_MODEL_CONFIG, "llama.block_count");
    expect_refusal("blk.1.ffn_up.weight", "blk.1.ffn_xx.weight", MF_ERROR_MODEL_CONFIG,
                   "blk.1.ffn_xx.weight");
    expect_refusal("tokenizer.ggml.merges", "tokenizer.ggml.xerges", MF_ERROR_BAD_TOKENIZER,
                   "tokenizer.ggml.merges is missing");
    expect_refusal("tokenizer.ggml.token_type", "tokenizer.ggml.xoken_type", MF_ERROR_BAD_TOKENIZER,
                   "lists of one length");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(weights_equal_python, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(folder_is_a_model, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(refuses_what_it_does_not_know, scratch_make, scratch_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
