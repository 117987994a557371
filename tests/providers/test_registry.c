/* Providers by name, what they can do, and checks of a model folder before anything is loaded. */
#include "providers/folder.h"
#include "providers/huggingface/huggingface.h"
#include "providers/models/model.h"
#include "providers/registry.h"
#include "providers/tokenizer/tokenizer.h"
#include "tests/providers/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#define MODEL "tests/golden/models/tied-gqa"

static void finds_by_name(void **state) {
    const struct mf_provider *provider;
    struct mf_error error;
    char text[256];
    (void)state;
    assert_int_equal(mf_provider_find("huggingface", &provider, &error), MF_OK);
    assert_string_equal(provider->get_provider_name(), "huggingface");
    assert_int_equal(mf_provider_find("xyz", &provider, &error), MF_ERROR_UNKNOWN_PROVIDER);
    assert_null(provider);
    assert_string_equal(mf_error_format(&error, text, sizeof text),
                        "ProviderError: Unknown provider 'xyz'. Valid providers: huggingface, unsloth");
    assert_int_equal(mf_provider_find("", &provider, &error), MF_ERROR_UNKNOWN_PROVIDER);
    assert_int_equal(mf_provider_find("unsloth", &provider, &error), MF_OK);
    assert_string_equal(provider->get_provider_name(), "unsloth");
    assert_int_equal(mf_provider_find("Huggingface", &provider, &error), MF_ERROR_UNKNOWN_PROVIDER);
}

static void says_what_it_can_do(void **state) {
    const struct mf_device cpu = {sizeof cpu, MF_DEVICE_CPU}, cuda = {sizeof cuda, MF_DEVICE_CUDA},
                           unknown = {sizeof unknown, 7};
    const struct mf_provider *provider;
    enum mf_capability_level level;
    const char *reason;
    struct mf_error error;
    (void)state;
    assert_int_equal(mf_provider_find("huggingface", &provider, &error), MF_OK);
    static const char *const trained[] = {"llama",  "mistral",     "qwen2", "qwen3", "gemma",
                                          "gemma2", "gemma3_text", "phi",   "phi3"};
    for (size_t i = 0; i < sizeof trained / sizeof *trained; i++)
        assert_int_equal(mf_provider_require(provider, &cpu, trained[i], "text-generation", "sft", &error),
                         MF_OK);
    assert_int_equal(
        mf_provider_capability(provider, &cpu, "llama", "text-generation", "sft", &level, &reason, &error),
        MF_OK);
    assert_string_equal(mf_capability_level_name(level), "supported");
    assert_int_equal(
        mf_provider_capability(provider, &cpu, "gemma", "text-generation", "qlora", &level, &reason, &error),
        MF_OK);
    assert_string_equal(mf_capability_level_name(level), "supported");
    assert_non_null(strstr(reason, "compared with bitsandbytes"));
    static const struct {
        const char *architecture, *task, *strategy, *part;
    } refused[] = {
        {"llama", "summarization", "sft", "text-generation only"},
        {"llama", "extractive-question-answering", "sft", "text-generation only"},
        {"llama", "text-generation", "dpo", "sft and qlora only"},
        {"llama", "text-generation", "rlhf", "sft and qlora only"},
        {"t5", "text-generation", "sft", "does not know this combination"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_int_equal(mf_provider_require(provider, &cpu, refused[i].architecture, refused[i].task,
                                             refused[i].strategy, &error),
                         MF_ERROR_PROVIDER_UNSUPPORTED);
        if (!strstr(error.message, refused[i].part) || !strstr(error.message, refused[i].strategy))
            fail_msg("'%s' is not in: %s", refused[i].part, error.message);
    }
    assert_int_equal(mf_provider_require(provider, &cuda, "llama", "text-generation", "sft", &error), MF_OK);
    assert_int_equal(mf_provider_require(provider, &unknown, "llama", "text-generation", "sft", &error),
                     MF_ERROR_PROVIDER_UNAVAILABLE);
}

/* A host of another version, or one with a shorter table, is refused before anything is called. */
static void refuses_another_abi(void **state) {
    const struct mf_host_api small = {.size = 8, .abi_version = MF_PROVIDER_ABI};
    (void)state;
    assert_null(mf_huggingface_entry(MF_PROVIDER_ABI + 1, &small));
    assert_null(mf_huggingface_entry(MF_PROVIDER_ABI, &small));
}

static bool yes(void *argument) {
    ++*(int *)argument;
    return true;
}

static void loads_through_the_table(void **state) {
    const struct mf_provider *provider;
    const char *const none[] = {NULL}, *const unknown[] = {"compute", "fp8", NULL};
    const struct mf_model_reference reference = {.size = sizeof reference, .model_id = MODEL};
    struct mf_load_options options = {
        .size = sizeof options, .reference = &reference, .device_map = "auto", .provider_config = none};
    struct mf_provider_context context = {0};
    struct mf_model *model;
    struct mf_tokenizer *tokenizer;
    struct mf_error error;
    int asked = 0;
    (void)state;
    assert_int_equal(mf_provider_find("huggingface", &provider, &error), MF_OK);
    assert_int_equal(mf_provider_validate_model_access(provider, &context, &reference, &error), MF_OK);
    if (mf_provider_load_model(provider, &context, &options, &model, &error))
        fail_msg("%s", error.message);
    assert_string_equal(mf_model_architecture(model)->model_type, "llama");
    mf_model_close(model);
    assert_int_equal(mf_provider_load_tokenizer(provider, &context, &reference, &tokenizer, &error), MF_OK);
    assert_int_equal(mf_tokenizer_vocabulary(tokenizer), 300);
    mf_tokenizer_close(tokenizer);
    context = (struct mf_provider_context){.cancelled = yes, .argument = &asked};
    assert_int_equal(mf_provider_load_model(provider, &context, &options, &model, &error),
                     MF_ERROR_CANCELLED);
    assert_int_equal(asked, 1);
    options.provider_config = unknown;
    assert_int_equal(mf_provider_load_model(provider, &context, &options, &model, &error),
                     MF_ERROR_INVALID_FIELD);
    assert_string_equal(error.message,
                        "provider_config.compute: huggingface has no such setting (it has none)");
}

/* ---- folders ---- */

static void expect_answer(const char *model_id, const char *revision, enum mf_status wanted,
                          const char *part) {
    const struct mf_model_reference reference = {
        .size = sizeof reference, .model_id = model_id, .revision = revision};
    struct mf_error error = {0};
    enum mf_status status = mf_folder_check(&reference, &error);
    if (status != wanted || (part && !strstr(error.message, part)))
        fail_msg("expected %s '%s', got %s: %s", mf_status_code(wanted), part, mf_status_code(status),
                 error.message);
}

static void folders_are_checked(void **state) {
    char folder[128];
    (void)state;
    snprintf(folder, sizeof folder, "%s", scratch_folder());
    expect_answer(MODEL, NULL, MF_OK, NULL);
    expect_answer(MODEL, "main", MF_ERROR_UNSUPPORTED_FIELD, "revision: 'main' cannot be chosen");
    expect_answer("/no/such/folder", NULL, MF_ERROR_MODEL_NOT_FOUND,
                  "there is no folder '/no/such/folder'; give");
    expect_answer("meta-llama/Llama-3.1-8B", NULL, MF_ERROR_MODEL_NOT_FOUND,
                  "or the id of a model on a hub: hf://organisation/name");
    scratch_puts("m.gguf", "GGUF");
    expect_answer(scratch_path("m.gguf"), NULL, MF_ERROR_MODEL_NOT_FOUND, "modelforge-trainer convert");
    scratch_puts("m.gguf", "GGML");
    expect_answer(scratch_path("m.gguf"), NULL, MF_ERROR_BAD_WEIGHTS, "does not begin as a GGUF file does");
    scratch_puts("m.bin", "x");
    expect_answer(scratch_path("m.bin"), NULL, MF_ERROR_MODEL_NOT_FOUND, "is not a folder");
    expect_answer(folder, NULL, MF_ERROR_MODEL_INCOMPLETE, "config.json is missing");
    scratch_puts("config.json", "{}");
    expect_answer(folder, NULL, MF_ERROR_MODEL_INCOMPLETE, "tokenizer.json is missing");
    scratch_puts("tokenizer.json", "{}");
    expect_answer(folder, NULL, MF_ERROR_MODEL_INCOMPLETE, "model.safetensors is missing; download");
    scratch_puts("pytorch_model.bin", "x");
    expect_answer(folder, NULL, MF_ERROR_MODEL_INCOMPLETE, "loading a pickle runs code");
    scratch_puts("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"s-1.safetensors\"}}");
    expect_answer(folder, NULL, MF_ERROR_MODEL_INCOMPLETE, "s-1.safetensors is missing");
    scratch_puts("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"../s-1.safetensors\"}}");
    expect_answer(folder, NULL, MF_ERROR_BAD_WEIGHTS, "weight_map: a");
    scratch_puts("model.safetensors.index.json", "{");
    expect_answer(folder, NULL, MF_ERROR_BAD_WEIGHTS, "index.json");
    scratch_puts("model.safetensors", "x");
    expect_answer(folder, NULL, MF_OK, NULL);
    if (geteuid() != 0) { /* root reads everything */
        assert_int_equal(chmod(scratch_path("config.json"), 0), 0);
        expect_answer(folder, NULL, MF_ERROR_MODEL_INCOMPLETE, "may not be read");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_by_name),
        cmocka_unit_test(says_what_it_can_do),
        cmocka_unit_test(refuses_another_abi),
        cmocka_unit_test(loads_through_the_table),
        cmocka_unit_test_setup_teardown(folders_are_checked, scratch_make, scratch_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
