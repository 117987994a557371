/* Whole models whose linear modules are quantised, against bitsandbytes' Linear4bit under PEFT's LoRA
 * (tests/golden/make_quantized.py), on the oracle, on the fast backend, and with the fused projections of the
 * provider unsloth: losses of rows with and without the adapter, the first window's loss and its gradient of
 * every LoRA tensor. Tolerances: loss 1e-5 relative, gradients 1e-4 of the norm. */
#include "kernels/gradient.h"
#include "providers/weights/safetensors.h"
#include "worker/trainer/evaluate.h"
#include "worker/trainer/strategies/strategy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT = 0, PASS = 256, ROWS = 8 };

struct form {
    const char *name; /* in quantized.json */
    enum mf_quantization quantization;
    bool nested;
    const char *record; /* its name in the numeric plan */
};

static const struct form nf4 = {"nf4", MF_QUANTIZATION_NF4, false, "nf4"},
                         nf4_nested = {"nf4-nested", MF_QUANTIZATION_NF4, true, "nf4, nested"},
                         fp4 = {"fp4", MF_QUANTIZATION_FP4, false, "fp4"},
                         fp4_nested = {"fp4-nested", MF_QUANTIZATION_FP4, true, "fp4, nested"},
                         int8 = {"int8", MF_QUANTIZATION_INT8, false, "int8"};

/* Who computes. */
struct engine {
    const char *provider;
    bool reference;
};
static const struct engine engines[] = {{"huggingface", true}, {"huggingface", false}, {"unsloth", false}};

/* A quantised model with its adapter and golden values. */
struct quantized {
    const struct form *form;
    const char *model;
    const struct engine *engine;
    json_t *golden, *values; /* golden.json and the form's part of quantized.json */
    struct mf_safetensors *gradients;
    struct mf_adapter_file *adapter;
    struct mf_runtime runtime;
    struct mf_strategy_programs programs;
    struct mf_model_program evaluate_base;
    struct mf_sample sample[ROWS];
    struct mf_samples samples;
    int32_t pool[4 * PASS];
};

static const char *engine_name(const struct quantized *under) {
    return under->engine->reference ? "the oracle" : under->engine->provider;
}

static void must(enum mf_status status, const struct mf_error *error) {
    if (status != MF_OK)
        fail_msg("%s", error->message);
}

static void read_rows(struct quantized *under) {
    const json_t *rows = json_object_get(under->golden, "rows");
    int32_t *at = under->pool;
    size_t index, i;
    json_t *row, *value;
    assert_int_equal(json_array_size(rows), ROWS);
    under->samples = (struct mf_samples){.sample = under->sample, .count = ROWS};
    json_array_foreach(rows, index, row) {
        struct mf_sample *sample = &under->sample[index];
        *sample = (struct mf_sample){.row = (int64_t)index, .token = at};
        json_array_foreach(json_object_get(row, "tokens"), i, value) *at++ =
            (int32_t)json_integer_value(value);
        sample->length = (int32_t)i;
        sample->label = at;
        json_array_foreach(json_object_get(row, "labels"), i, value) {
            sample->labelled += i && json_integer_value(value) != MF_LABEL_NONE;
            *at++ = (int32_t)json_integer_value(value);
        }
        under->samples.longest =
            sample->length > under->samples.longest ? sample->length : under->samples.longest;
    }
}

static void build(struct quantized *under) {
    struct mf_runtime *runtime = &under->runtime;
    struct mf_error error;
    must(mf_adapter_attach(under->adapter, runtime->model, runtime->graph, SLOT, &error), &error);
    must(mf_strategy_qlora.build(runtime->model, runtime->graph, SLOT, &under->programs, &error), &error);
    must(mf_model_build(runtime->model, runtime->graph, MF_EVALUATE, -1, &under->evaluate_base, &error),
         &error);
    const int32_t programs[] = {under->programs.train.program, under->programs.evaluate.program,
                                under->evaluate_base.program};
    for (size_t i = 0; i < 3; i++) {
        mf_program_set_bound(runtime->graph, programs[i], MF_TOKENS, PASS);
        mf_program_set_bound(runtime->graph, programs[i], MF_LABELLED, PASS);
        mf_program_set_bound(runtime->graph, programs[i], MF_SEQUENCES, ROWS);
    }
    must(mf_runtime_realize(runtime, &error), &error);
    must(mf_adapter_load(under->adapter, runtime->graph, runtime->executor, &error), &error);
}

static void open_quantized(const char *name, const struct form *form, const struct engine *engine,
                           struct quantized *under) {
    struct mf_error error;
    char model[256], path[512];
    *under = (struct quantized){.form = form, .model = name, .engine = engine};
    snprintf(model, sizeof model, "tests/golden/models/%s", name);
    snprintf(path, sizeof path, "%s/golden.json", model);
    under->golden = json_load_file(path, 0, NULL);
    assert_non_null(under->golden);
    snprintf(path, sizeof path, "%s/quantized.json", model);
    json_t *forms = json_load_file(path, 0, NULL);
    under->values = json_incref(json_object_get(forms, form->name));
    json_decref(forms);
    assert_non_null(under->values);
    snprintf(path, sizeof path, "%s/quantized.safetensors", model);
    must(mf_safetensors_open_file(path, &under->gradients, &error), &error);
    snprintf(path, sizeof path, "%s/adapter", model);
    must(mf_adapter_open(path, &under->adapter, &error), &error);
    const struct mf_runtime_options options = {.provider = engine->provider,
                                               .model = model,
                                               .compute = MF_COMPUTE_F32,
                                               .quantization = form->quantization,
                                               .nested_quantization = form->nested,
                                               .reference = engine->reference};
    must(mf_runtime_open(&options, &under->runtime, &error), &error);
    read_rows(under);
    build(under);
}

static void close_quantized(struct quantized *under) {
    mf_runtime_close(&under->runtime);
    mf_adapter_close(under->adapter);
    mf_safetensors_close(under->gradients);
    json_decref(under->values);
    json_decref(under->golden);
}

static void assert_close(const struct quantized *under, const char *what, double made, double expected) {
    if (!(fabs(made - expected) <= 1e-5 * fabs(expected)))
        fail_msg("%s in %s, by %s: %s is %.9g, not %.9g", under->model, under->form->name, engine_name(under),
                 what, made, expected);
}

static void check_losses(struct quantized *under, const struct mf_model_program *program, const char *key) {
    const json_t *expected = json_object_get(under->values, key);
    const struct mf_evaluation_options options = {.batch_size = 1, .pass_tokens = PASS};
    struct mf_evaluation result;
    struct mf_error error;
    assert_int_equal(json_array_size(expected), ROWS);
    for (size_t i = 0; i < ROWS; i++) {
        must(mf_evaluate(&under->runtime, &mf_strategy_qlora, program, &under->samples, &i, 1, &options,
                         &result, &error),
             &error);
        assert_close(under, key, result.loss * (double)result.labelled,
                     json_number_value(json_array_get(expected, i)));
    }
}

static void assert_gradient(struct quantized *under, int32_t parameter) {
    const struct mf_tensor *tensor = mf_graph_tensor(under->runtime.graph, parameter);
    const size_t count = (size_t)tensor->dim[0].multiplier * (size_t)tensor->dim[1].multiplier;
    const float *made =
        mf_executor_data(under->runtime.executor, mf_gradient_of_parameter(under->runtime.graph, parameter));
    char key[512];
    snprintf(key, sizeof key, "%s.%s", under->form->name, tensor->name);
    const struct mf_stored_tensor *golden = mf_safetensors_find(under->gradients, key);
    double difference = 0, size = 0;
    if (!golden) {
        fail_msg("there is no golden %s", key);
        return;
    }
    assert_int_equal(golden->bytes, count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        const double expected = (double)((const float *)golden->data)[i];
        difference += ((double)made[i] - expected) * ((double)made[i] - expected);
        size += expected * expected;
    }
    if (!(size > 0 && sqrt(difference) <= 1e-4 * sqrt(size)))
        fail_msg("%s, by %s: the gradient of %s is off by %.3g of its norm %.3g", under->model,
                 engine_name(under), key, sqrt(difference / size), sqrt(size));
}

static void check_window(struct quantized *under) {
    struct mf_runtime *runtime = &under->runtime;
    struct mf_error error;
    struct mf_step step = {0};
    size_t rows[ROWS], count = 0, batch_index, index;
    int32_t labelled = 0;
    json_t *batch, *row;
    json_array_foreach(json_array_get(json_object_get(under->golden, "windows"), 0), batch_index, batch) {
        json_array_foreach(batch, index, row) {
            rows[count] = (size_t)json_integer_value(row);
            labelled += under->sample[rows[count++]].labelled;
        }
    }
    step.inverse_count = 1.0f / (float)labelled;
    mf_strategy_qlora.feed(runtime->graph, runtime->executor, &under->samples, rows, count, &step);
    must(mf_executor_run(runtime->executor, under->programs.train.program, &step, &error), &error);
    assert_close(under, "the window's loss",
                 (double)*(float *)mf_executor_data(runtime->executor, under->programs.train.loss),
                 json_number_value(json_object_get(under->values, "window_loss")));
    for (int32_t i = 0; i < runtime->graph->adapters; i++) {
        assert_gradient(under, runtime->graph->adapter[i].a);
        assert_gradient(under, runtime->graph->adapter[i].b);
    }
}

/* The numeric plan says how many weights have which values: all linear modules but the head, or what they are
 * fused to. */
static void check_plan(struct quantized *under) {
    json_t *record = json_loads(under->runtime.plan->record, 0, NULL);
    const json_t *forms = json_object_get(record, "quantized_weights");
    size_t linear = 0;
    for (size_t i = 0; i < mf_model_module_count(under->runtime.model); i++)
        linear += !mf_model_module(under->runtime.model, i)->head;
    assert_int_equal(json_object_size(forms), 1);
    const size_t weights = (size_t)json_integer_value(json_object_get(forms, under->form->record));
    if (strcmp(under->engine->provider, "unsloth") != 0)
        assert_int_equal(weights, linear);
    else
        assert_in_range(weights, 4, linear);
    json_decref(record);
}

static void check_model(const char *name, const struct form *form) {
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        struct quantized under;
        open_quantized(name, form, &engines[i], &under);
        check_plan(&under);
        check_losses(&under, &under.evaluate_base, "base_loss");
        check_losses(&under, &under.programs.evaluate, "adapter_loss");
        check_window(&under);
        close_quantized(&under);
    }
}

static void test_nf4(void **state) {
    (void)state;
    check_model("tied-gqa", &nf4);
    check_model("bias-linear-rope", &nf4);
    check_model("mistral", &nf4);
    check_model("qwen3", &nf4);
    check_model("gemma", &nf4);
    check_model("phi3", &nf4);
}
static void test_nf4_nested(void **state) {
    (void)state;
    check_model("tied-gqa", &nf4_nested);
    check_model("untied-llama3-rope", &nf4_nested);
    check_model("qwen2.5", &nf4_nested);
    check_model("gemma2", &nf4_nested);
    check_model("phi2", &nf4_nested);
}
static void test_fp4(void **state) {
    (void)state;
    check_model("tied-gqa", &fp4);
    check_model("tied-gqa", &fp4_nested);
    check_model("gemma", &fp4);
    check_model("gemma3", &fp4_nested);
    check_model("gemma3-vision", &nf4);
    check_model("phi3", &fp4_nested);
}
static void test_int8(void **state) {
    (void)state;
    check_model("tied-gqa", &int8);
    check_model("mistral", &int8);
    check_model("qwen2.5", &int8);
    check_model("gemma2", &int8);
    check_model("phi3", &int8);
    check_model("phi2", &int8);
}

/* What is computed in bf16 is quantised from bf16 and comes back as bf16: each weight of a module is one of
 * at most 16 multiples of its block's scale, and embeddings, norms and the head are as they were. */
static void test_which_weights_in_bf16(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_runtime runtime;
    struct mf_model_program program;
    const struct mf_runtime_options options = {.provider = "huggingface",
                                               .model = "tests/golden/models/untied-llama3-rope",
                                               .compute = MF_COMPUTE_BF16,
                                               .quantization = MF_QUANTIZATION_NF4};
    struct mf_safetensors *file;
    size_t quantized = 0, kept = 0;
    must(mf_runtime_open(&options, &runtime, &error), &error);
    must(mf_safetensors_open_folder(options.model, &file, &error), &error);
    must(mf_model_build(runtime.model, runtime.graph, MF_EVALUATE, -1, &program, &error), &error);
    mf_program_set_bound(runtime.graph, program.program, MF_TOKENS, 16);
    mf_program_set_bound(runtime.graph, program.program, MF_LABELLED, 16);
    mf_program_set_bound(runtime.graph, program.program, MF_SEQUENCES, 2);
    must(mf_runtime_realize(&runtime, &error), &error);
    for (size_t i = 0; i < mf_safetensors_count(file); i++) {
        const struct mf_stored_tensor *stored = mf_safetensors_at(file, i);
        const int32_t id = mf_graph_find_tensor(runtime.graph, stored->name);
        assert_true(id >= 0);
        const bool linear = strstr(stored->name, "_proj.weight") != NULL;
        const uint16_t *bound = mf_executor_data(runtime.executor, id);
        assert_int_equal(mf_graph_tensor(runtime.graph, id)->dtype, MF_BF16);
        assert_int_equal(!memcmp(bound, stored->data, stored->bytes), !linear);
        quantized += linear;
        kept += !linear;
        uint16_t seen[16];
        size_t values = 0;
        for (size_t k = 0; linear && k < 64; k++) {
            size_t same = 0;
            while (same < values && seen[same] != bound[k])
                same++;
            assert_true(same < 16);
            seen[same] = bound[k];
            values = same == values ? values + 1 : values;
        }
    }
    assert_int_equal(quantized, 21);
    assert_int_equal(kept, 9); /* embeddings, head, last norm, two norms a layer */
    mf_safetensors_close(file);
    mf_runtime_close(&runtime);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nf4),
        cmocka_unit_test(test_nf4_nested),
        cmocka_unit_test(test_fp4),
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_which_weights_in_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
