/* Adapters as PEFT keeps them: first values, writing, reading back, and what is refused. */
#include "worker/trainer/adapter.h"

#include "common/files.h"
#include "worker/trainer/runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char folder[] = "/tmp/modelforge-adapter-XXXXXX", path[256];

static int make_folder(void **state) {
    (void)state;
    snprintf(path, sizeof path, "%s/adapter", mkdtemp(folder));
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    struct mf_error error;
    return mf_tree_remove(folder, &error) != MF_OK;
}

static void must(enum mf_status status, const struct mf_error *error) {
    if (status != MF_OK)
        fail_msg("%s", error->message);
}

static void open_model(const char *name, struct mf_runtime *runtime) {
    struct mf_error error;
    char model[256];
    snprintf(model, sizeof model, "tests/golden/models/%s", name);
    const struct mf_runtime_options options = {
        .provider = "huggingface", .model = model, .compute = MF_COMPUTE_F32, .reference = true};
    must(mf_runtime_open(&options, runtime, &error), &error);
}

/* Builds one small program, so that there is an executor whose adapters can be filled. */
static void realize(struct mf_runtime *runtime) {
    struct mf_error error;
    struct mf_model_program program;
    must(mf_model_build(runtime->model, runtime->graph, MF_EVALUATE, 0, &program, &error), &error);
    mf_program_set_bound(runtime->graph, program.program, MF_TOKENS, 4);
    mf_program_set_bound(runtime->graph, program.program, MF_LABELLED, 4);
    mf_program_set_bound(runtime->graph, program.program, MF_SEQUENCES, 1);
    must(mf_runtime_realize(runtime, &error), &error);
}

static void add_adapters(struct mf_runtime *runtime, const char *target,
                         const struct mf_adapter_settings *settings) {
    struct mf_error error;
    bool chosen[64] = {0};
    must(mf_model_choose_modules(runtime->model, &target, 1, chosen, &error), &error);
    must(mf_adapter_add(runtime->model, runtime->graph, 0, chosen, settings, &error), &error);
}

static size_t elements(const struct mf_graph *graph, int32_t id) {
    const struct mf_tensor *tensor = mf_graph_tensor(graph, id);
    return (size_t)tensor->dim[0].multiplier * (size_t)tensor->dim[1].multiplier;
}

static void test_first_values(void **state) {
    (void)state;
    struct mf_runtime runtime;
    const struct mf_adapter_settings settings = {.rank = 16, .alpha = 32};
    open_model("tied-gqa", &runtime);
    add_adapters(&runtime, "all-linear", &settings);
    realize(&runtime);
    assert_int_equal(runtime.graph->adapters, 14);
    mf_adapter_initialize(runtime.graph, 0, runtime.executor, 42);
    float first_value = 0;
    for (int32_t i = 0; i < runtime.graph->adapters; i++) {
        const struct mf_adapter *adapter = &runtime.graph->adapter[i];
        const size_t count = elements(runtime.graph, adapter->a);
        const double bound = 1 / sqrt((double)mf_graph_tensor(runtime.graph, adapter->a)->dim[1].multiplier);
        const float *a = mf_executor_data(runtime.executor, adapter->a);
        const float *b = mf_executor_data(runtime.executor, adapter->b);
        double sum = 0, squares = 0;
        for (size_t j = 0; j < count; j++) {
            assert_true(fabs((double)a[j]) <= bound);
            sum += (double)a[j];
            squares += (double)a[j] * (double)a[j];
        }
        for (size_t j = 0; j < elements(runtime.graph, adapter->b); j++)
            assert_true(b[j] == 0);
        /* A uniform distribution: mean 0, variance bound² / 3; over 1,024 values and more. */
        assert_true(fabs(sum / (double)count) < 0.1 * bound);
        assert_true(fabs(squares / (double)count / (bound * bound) - 1.0 / 3) < 0.05);
        assert_true(a[0] != first_value); /* modules differ */
        first_value = a[0];
    }
    const float before = *(float *)mf_executor_data(runtime.executor, runtime.graph->adapter[0].a);
    mf_adapter_initialize(runtime.graph, 0, runtime.executor, 43);
    assert_true(before != *(float *)mf_executor_data(runtime.executor, runtime.graph->adapter[0].a));
    mf_adapter_initialize(runtime.graph, 0, runtime.executor, 42);
    assert_true(before == *(float *)mf_executor_data(runtime.executor, runtime.graph->adapter[0].a));
    mf_runtime_close(&runtime);
}

/* Saves an adapter with known values; returns the value of element i of any of its tensors. */
static float known(size_t i) {
    return (float)((double)(i % 97) - 48) / 97;
}

static void save_known(const char *target, const struct mf_adapter_settings *settings) {
    struct mf_runtime runtime;
    struct mf_error error;
    open_model("tied-gqa", &runtime);
    add_adapters(&runtime, target, settings);
    realize(&runtime);
    for (int32_t i = 0; i < runtime.graph->adapters; i++) {
        const int32_t pair[2] = {runtime.graph->adapter[i].a, runtime.graph->adapter[i].b};
        for (int half = 0; half < 2; half++)
            for (size_t j = 0; j < elements(runtime.graph, pair[half]); j++)
                ((float *)mf_executor_data(runtime.executor, pair[half]))[j] = known(j + (size_t)half);
    }
    must(mf_adapter_save(path, runtime.graph, 0, runtime.executor, settings, "some/base",
                         mf_model_folder(runtime.model), &error),
         &error);
    mf_runtime_close(&runtime);
}

static json_t *saved_config(void) {
    char file[512];
    snprintf(file, sizeof file, "%s/adapter_config.json", path);
    json_t *config = json_load_file(file, 0, NULL);
    assert_non_null(config);
    return config;
}

static void test_round_trip(void **state) {
    (void)state;
    struct mf_runtime runtime;
    struct mf_adapter_file *file = NULL;
    struct mf_error error;
    char name[512];
    const struct mf_adapter_settings settings = {.rank = 3, .alpha = 5.5, .dropout = 0.25, .rslora = true};
    save_known("q_proj", &settings);
    save_known("q_proj", &settings); /* replaces the first */
    snprintf(name, sizeof name, "%s.partial", path);
    assert_false(mf_path_exists(name));
    snprintf(name, sizeof name, "%s.old", path);
    assert_false(mf_path_exists(name));
    snprintf(name, sizeof name, "%s/tokenizer.json", path);
    assert_true(mf_path_exists(name));

    must(mf_adapter_open(path, &file, &error), &error);
    const struct mf_adapter_settings *read = mf_adapter_file_settings(file);
    assert_int_equal(read->rank, 3);
    assert_true(read->alpha == 5.5 && read->dropout == 0.25 && read->rslora);
    assert_true(fabs(mf_adapter_scale(read) - 5.5 / sqrt(3)) < 1e-12);
    open_model("tied-gqa", &runtime);
    must(mf_adapter_attach(file, runtime.model, runtime.graph, 0, &error), &error);
    realize(&runtime);
    must(mf_adapter_load(file, runtime.graph, runtime.executor, &error), &error);
    assert_int_equal(runtime.graph->adapters, 2);
    for (int32_t i = 0; i < 2; i++) {
        assert_true(fabsf(runtime.graph->adapter[i].scale - 5.5f / sqrtf(3)) < 1e-6f);
        const int32_t pair[2] = {runtime.graph->adapter[i].a, runtime.graph->adapter[i].b};
        for (int half = 0; half < 2; half++)
            for (size_t j = 0; j < elements(runtime.graph, pair[half]); j++)
                assert_true(((float *)mf_executor_data(runtime.executor, pair[half]))[j] ==
                            known(j + (size_t)half));
    }
    mf_runtime_close(&runtime);
    mf_adapter_close(file);

    json_t *config = saved_config();
    assert_string_equal(json_string_value(json_object_get(config, "peft_type")), "LORA");
    assert_string_equal(json_string_value(json_object_get(config, "base_model_name_or_path")), "some/base");
    assert_int_equal(json_array_size(json_object_get(config, "target_modules")), 1);
    assert_string_equal(json_string_value(json_array_get(json_object_get(config, "target_modules"), 0)),
                        "q_proj");
    json_decref(config);
}

/* One layer's module of a kind that other layers have too must be named in full. */
static void test_single_module_is_named_in_full(void **state) {
    (void)state;
    const struct mf_adapter_settings settings = {.rank = 2, .alpha = 2};
    save_known("model.layers.1.self_attn.q_proj", &settings);
    json_t *config = saved_config();
    assert_int_equal(json_array_size(json_object_get(config, "target_modules")), 1);
    assert_string_equal(json_string_value(json_array_get(json_object_get(config, "target_modules"), 0)),
                        "model.layers.1.self_attn.q_proj");
    json_decref(config);
}

static void expect_refusal(const char *key, json_t *value, const char *words) {
    struct mf_adapter_file *file = NULL;
    struct mf_error error;
    char name[512];
    json_t *config = saved_config(), *kept = saved_config();
    snprintf(name, sizeof name, "%s/adapter_config.json", path);
    json_object_set_new(config, key, value);
    assert_int_equal(json_dump_file(config, name, 0), 0);
    assert_int_equal(mf_adapter_open(path, &file, &error), MF_ERROR_ADAPTER_MISMATCH);
    if (!strstr(error.message, words))
        fail_msg("'%s' does not say '%s'", error.message, words);
    assert_int_equal(json_dump_file(kept, name, 0), 0);
    json_decref(kept);
    json_decref(config);
}

/* The adapter that was saved last, said to have these modules_to_save. */
static void expect_no_place(const char *module, const char *words) {
    char name[512];
    struct mf_runtime runtime;
    struct mf_adapter_file *file = NULL;
    struct mf_error error;
    json_t *config = saved_config(), *kept = json_deep_copy(config);
    json_object_set_new(config, "modules_to_save", json_pack("[s]", module));
    snprintf(name, sizeof name, "%s/adapter_config.json", path);
    assert_int_equal(json_dump_file(config, name, 0), 0);
    must(mf_adapter_open(path, &file, &error), &error);
    open_model("tied-gqa", &runtime);
    assert_int_equal(mf_adapter_attach(file, runtime.model, runtime.graph, 0, &error),
                     MF_ERROR_ADAPTER_MISMATCH);
    if (!strstr(error.message, words))
        fail_msg("'%s' does not say '%s'", error.message, words);
    mf_runtime_close(&runtime);
    mf_adapter_close(file);
    assert_int_equal(json_dump_file(kept, name, 0), 0);
    json_decref(kept);
    json_decref(config);
}

static void test_whole_modules_without_a_place(void **state) {
    (void)state;
    const struct mf_adapter_settings settings = {.rank = 2, .alpha = 2};
    save_known("q_proj", &settings);
    expect_no_place("lm_head", "'base_model.model.lm_head.weight', which is missing");
    expect_no_place("nothing", "ends with 'nothing' (there are: embed_tokens, input_layernorm, q_proj, ");
    expect_no_place("q_proj",
                    "'model.layers.0.self_attn.q_proj' is among modules_to_save and has an adapter");
}

static void test_refusals(void **state) {
    (void)state;
    struct mf_adapter_file *file = NULL;
    struct mf_runtime runtime;
    struct mf_error error;
    const struct mf_adapter_settings settings = {.rank = 2, .alpha = 2};
    save_known("q_proj", &settings);
    expect_refusal("use_dora", json_true(), "use_dora is set");
    expect_refusal("bias", json_string("all"), "bias is set");
    expect_refusal("modules_to_save", json_pack("[i]", 1), "modules_to_save is no array of strings");
    expect_refusal("alpha_pattern", json_pack("{s:i}", "q_proj", 3), "alpha_pattern is set");
    expect_refusal("peft_type", json_string("IA3"), "peft_type is IA3, not LORA");
    assert_int_equal(mf_adapter_open("/nowhere", &file, &error), MF_ERROR_MODEL_NOT_FOUND);
    assert_int_equal(mf_adapter_open(folder, &file, &error), MF_ERROR_MODEL_INCOMPLETE);

    must(mf_adapter_open(path, &file, &error), &error);
    open_model("bias-linear-rope", &runtime); /* other widths */
    assert_int_equal(mf_adapter_attach(file, runtime.model, runtime.graph, 0, &error),
                     MF_ERROR_ADAPTER_MISMATCH);
    assert_non_null(strstr(error.message, "'model.layers.0.self_attn.q_proj'"));
    mf_runtime_close(&runtime);
    mf_adapter_close(file);

    must(mf_adapter_open("tests/golden/models/untied-llama3-rope/adapter", &file, &error), &error);
    open_model("tied-gqa", &runtime); /* fewer layers */
    assert_int_equal(mf_adapter_attach(file, runtime.model, runtime.graph, 0, &error),
                     MF_ERROR_ADAPTER_MISMATCH);
    mf_runtime_close(&runtime);
    mf_adapter_close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_values),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_single_module_is_named_in_full),
        cmocka_unit_test(test_whole_modules_without_a_place),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
