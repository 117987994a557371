/* A model as programs and weights: losses and logits equal Transformers' (tests/golden/make_models.py)
 * through every program, and folders whose parts do not belong together are refused. */
#include "common/files.h"
#include "common/json.h"
#include "kernels/cpu/backend.h"
#include "providers/models/model.h"
#include "providers/registry.h"
#include "providers/weights/safetensors.h"
#include "tests/providers/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

enum { MAX_TOKENS = 128, MAX_ROWS = 8, CACHE_ROWS = 32, LONGEST_ROW = 23 };

static const char *const models[] = {"tied-gqa",
                                     "untied-llama3-rope",
                                     "bias-linear-rope",
                                     "llama-dynamic",
                                     "mistral",
                                     "mistral-full",
                                     "qwen2",
                                     "qwen2.5",
                                     "qwen3",
                                     "gemma",
                                     "gemma2",
                                     "gemma3",
                                     "gemma3-vision",
                                     "phi2",
                                     "phi3",
                                     "phi3-longrope",
                                     "phi4",
                                     "phi4-mini"};

/* A model with its programs, planned and bound on the reference backend. */
struct rig {
    struct mf_model *model;
    struct mf_graph *graph;
    struct mf_plan *plan;
    struct mf_backend *backend;
    struct mf_executor *executor;
    struct mf_model_program evaluate, prefill, decode;
};

static void check(enum mf_status status, const struct mf_error *error) {
    if (status)
        fail_msg("%s: %s", mf_status_code(status), error->message);
}

static enum mf_status open_model(const char *folder, enum mf_dtype dtype, struct mf_model **model,
                                 struct mf_error *error) {
    const struct mf_model_options options = {.folder = folder, .compute_dtype = dtype};
    return mf_model_open(&options, model, error);
}

static void bound(struct rig *rig, int32_t program) {
    mf_program_set_bound(rig->graph, program, MF_TOKENS, MAX_TOKENS);
    mf_program_set_bound(rig->graph, program, MF_SEQUENCES, MAX_ROWS);
    mf_program_set_bound(rig->graph, program, MF_OFFSETS, MAX_ROWS + 1);
    mf_program_set_bound(rig->graph, program, MF_LABELLED, MAX_TOKENS);
    mf_program_set_bound(rig->graph, program, MF_CACHE, MAX_ROWS * CACHE_ROWS);
}

/* `rank` 0: without adapters. */
static void rig_make(struct rig *rig, const char *folder, enum mf_dtype dtype, int32_t rank, float scale,
                     const char *const *targets, size_t target_count) {
    struct mf_error error;
    int16_t slot = rank ? 0 : -1;
    memset(rig, 0, sizeof *rig);
    check(open_model(folder, dtype, &rig->model, &error), &error);
    check(mf_graph_create(&rig->graph, &error), &error);
    if (rank) {
        bool chosen[64];
        assert_true(mf_model_module_count(rig->model) <= 64);
        check(mf_model_choose_modules(rig->model, targets, target_count, chosen, &error), &error);
        check(mf_model_add_adapters(rig->model, rig->graph, slot, chosen, rank, scale, 0, &error), &error);
    }
    check(mf_model_build(rig->model, rig->graph, MF_EVALUATE, slot, &rig->evaluate, &error), &error);
    check(mf_model_build(rig->model, rig->graph, MF_PREFILL, slot, &rig->prefill, &error), &error);
    check(mf_model_build(rig->model, rig->graph, MF_DECODE, slot, &rig->decode, &error), &error);
    bound(rig, rig->evaluate.program);
    bound(rig, rig->prefill.program);
    bound(rig, rig->decode.program);
    check(mf_cpu_reference_create(&rig->backend, &error), &error);
    check(mf_plan_create(rig->graph, rig->backend, 0, &rig->plan, &error), &error);
    check(mf_executor_create(rig->graph, rig->plan, rig->backend, NULL, &rig->executor, &error), &error);
    mf_model_set_longest_row(rig->model, LONGEST_ROW);
    check(mf_model_bind(rig->model, NULL, rig->graph, rig->executor, &error), &error);
    check(mf_executor_prepare(rig->executor, &error), &error);
}

static void rig_free(struct rig *rig) {
    mf_executor_destroy(rig->executor);
    mf_plan_destroy(rig->plan);
    mf_backend_destroy(rig->backend);
    mf_graph_destroy(rig->graph);
    mf_model_close(rig->model);
}

static int32_t *input(const struct rig *rig, enum mf_graph_input which) {
    return mf_executor_data(rig->executor, rig->graph->input[which]);
}

/* Puts tokens first .. last - 1 of every row into the stream (all when last is 0); the cache holds what comes
 * before them. Returns the step. */
static struct mf_step fill(const struct rig *rig, const json_t *rows, bool only_last, bool all_but_last) {
    struct mf_step step = {.inverse_count = 1};
    int32_t at = 0, labelled = 0;
    size_t s;
    json_t *row;
    json_array_foreach((json_t *)rows, s, row) {
        const json_t *tokens = json_object_get(row, "tokens"), *labels = json_object_get(row, "labels");
        int32_t count = (int32_t)json_array_size(tokens);
        int32_t first = only_last ? count - 1 : 0, end = all_but_last ? count - 1 : count;
        input(rig, MF_INPUT_OFFSETS)[s] = at;
        input(rig, MF_INPUT_CACHE_OFFSETS)[s] = (int32_t)s * CACHE_ROWS;
        input(rig, MF_INPUT_CACHE_LENGTHS)[s] = end;
        for (int32_t i = first; i < end; i++, at++) {
            input(rig, MF_INPUT_TOKENS)[at] = (int32_t)json_integer_value(json_array_get(tokens, (size_t)i));
            input(rig, MF_INPUT_POSITIONS)[at] = i;
            input(rig, MF_INPUT_ROWS)[at] = (int32_t)s;
            input(rig, MF_INPUT_CACHE_SLOTS)[at] = (int32_t)s * CACHE_ROWS + i;
            json_int_t next = json_integer_value(json_array_get(labels, (size_t)i + 1));
            if (i + 1 < count && next >= 0) {
                input(rig, MF_INPUT_LABEL_ROWS)[labelled] = at;
                input(rig, MF_INPUT_LABELS)[labelled] = (int32_t)next;
                ((float *)(void *)input(rig, MF_INPUT_COEFFICIENTS))[labelled++] = 1;
            }
        }
        input(rig, MF_INPUT_LAST_ROWS)[s] = at - 1;
    }
    input(rig, MF_INPUT_OFFSETS)[json_array_size(rows)] = at;
    input(rig, MF_INPUT_CACHE_OFFSETS)[json_array_size(rows)] = (int32_t)json_array_size(rows) * CACHE_ROWS;
    step.value[MF_TOKENS] = at;
    step.value[MF_SEQUENCES] = (int32_t)json_array_size(rows);
    step.value[MF_LABELLED] = labelled;
    step.value[MF_CACHE] = MAX_ROWS * CACHE_ROWS;
    return step;
}

static json_t *golden_json(const char *name) {
    char path[128];
    struct mf_error error;
    json_t *golden = NULL;
    snprintf(path, sizeof path, "tests/golden/models/%s/golden.json", name);
    check(mf_json_read_file(path, 0, &golden, &error), &error);
    return golden;
}

/* The sum over all rows of `losses`, and the number of labelled tokens in *count. */
static double golden_loss(const json_t *losses, int32_t *count) {
    double sum = 0;
    size_t i;
    json_t *row;
    *count = 0;
    json_array_foreach((json_t *)losses, i, row) {
        sum += json_number_value(json_object_get(row, "sum"));
        *count += (int32_t)json_integer_value(json_object_get(row, "count"));
    }
    return sum;
}

static double run_loss(const struct rig *rig, const json_t *golden, int32_t *count) {
    struct mf_error error;
    struct mf_step step = fill(rig, json_object_get(golden, "rows"), false, false);
    check(mf_executor_run(rig->executor, rig->evaluate.program, &step, &error), &error);
    *count = step.value[MF_LABELLED];
    return (double)*(float *)mf_executor_data(rig->executor, rig->evaluate.loss);
}

static void check_loss(const struct rig *rig, const char *name, const json_t *golden, const char *key,
                       double tolerance) {
    int32_t wanted_count, count;
    double wanted = golden_loss(json_object_get(golden, key), &wanted_count);
    double loss = run_loss(rig, golden, &count);
    assert_int_equal(count, wanted_count);
    if (!(fabs(loss - wanted) <= tolerance * wanted))
        fail_msg("%s: loss %.9g, Transformers has %.9g", name, loss, wanted);
    const float *log_probability = mf_executor_data(rig->executor, rig->evaluate.log_probability);
    double sum = 0;
    for (int32_t i = 0; i < count; i++)
        sum -= (double)log_probability[i];
    assert_true(fabs(sum - loss) <= 1e-5 * loss);
}

/* Logits (rows, V) at the last token of each row, and the greedy choice. */
static void check_logits(const struct rig *rig, const char *name, const struct mf_model_program *program,
                         const struct mf_step *step, const struct mf_stored_tensor *wanted) {
    struct mf_error error;
    check(mf_executor_run(rig->executor, program->program, step, &error), &error);
    const float *logits = mf_executor_data(rig->executor, program->logits), *golden = wanted->data;
    const int32_t *next = mf_executor_data(rig->executor, program->next_token);
    for (int64_t s = 0; s < wanted->dim[0]; s++) {
        int64_t best = 0;
        for (int64_t v = 0; v < wanted->dim[1]; v++) {
            int64_t i = s * wanted->dim[1] + v;
            if (!(fabsf(logits[i] - golden[i]) <= 2e-5f * (1 + fabsf(golden[i]))))
                fail_msg("%s: row %d, logit %d: %.8g, Transformers has %.8g", name, (int)s, (int)v,
                         (double)logits[i], (double)golden[i]);
            if (golden[i] > golden[s * wanted->dim[1] + best])
                best = v;
        }
        assert_int_equal(next[s], best);
    }
}

/* Prefill of whole rows, then prefill of all but the last token and decoding of that one. */
static void check_generation(const struct rig *rig, const char *name, const json_t *golden, const char *key) {
    char path[128];
    struct mf_error error;
    struct mf_safetensors *file;
    const json_t *rows = json_object_get(golden, "rows");
    snprintf(path, sizeof path, "tests/golden/models/%s/golden.safetensors", name);
    check(mf_safetensors_open_file(path, &file, &error), &error);
    const struct mf_stored_tensor *wanted = mf_safetensors_find(file, key);
    assert_non_null(wanted);
    struct mf_step step = fill(rig, rows, false, false);
    check_logits(rig, name, &rig->prefill, &step, wanted);
    step = fill(rig, rows, false, true);
    check(mf_executor_run(rig->executor, rig->prefill.program, &step, &error), &error);
    step = fill(rig, rows, true, false);
    assert_int_equal(step.value[MF_TOKENS], 8);
    check_logits(rig, name, &rig->decode, &step, wanted);
    mf_safetensors_close(file);
}

static void base_models_equal_transformers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char folder[96];
        struct rig rig;
        json_t *golden = golden_json(models[i]);
        snprintf(folder, sizeof folder, "tests/golden/models/%s", models[i]);
        rig_make(&rig, folder, MF_F32, 0, 0, NULL, 0);
        check_loss(&rig, models[i], golden, "base_loss", 1e-5);
        check_generation(&rig, models[i], golden, "logits.base");
        rig_free(&rig);
        json_decref(golden);
    }
}

/* Copies every tensor of a PEFT file into the adapter of that name. */
static void load_adapter(const struct rig *rig, const char *folder) {
    char path[192];
    struct mf_error error;
    struct mf_safetensors *file;
    snprintf(path, sizeof path, "%s/adapter/adapter_model.safetensors", folder);
    check(mf_safetensors_open_file(path, &file, &error), &error);
    assert_int_equal(mf_safetensors_count(file), 2 * rig->graph->adapters);
    for (size_t i = 0; i < mf_safetensors_count(file); i++) {
        const struct mf_stored_tensor *tensor = mf_safetensors_at(file, i);
        int32_t id = mf_graph_find_tensor(rig->graph, tensor->name);
        if (id < 0)
            fail_msg("PEFT's %s has no adapter here", tensor->name);
        assert_int_equal(mf_executor_bytes(rig->executor, id), tensor->bytes);
        memcpy(mf_executor_data(rig->executor, id), tensor->data, tensor->bytes);
    }
    mf_safetensors_close(file);
}

static void adapted_models_equal_peft(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char folder[96], path[160];
        struct rig rig;
        struct mf_error error;
        json_t *golden = golden_json(models[i]), *config = NULL;
        const char *targets[16];
        snprintf(folder, sizeof folder, "tests/golden/models/%s", models[i]);
        snprintf(path, sizeof path, "%s/adapter/adapter_config.json", folder);
        check(mf_json_read_file(path, 0, &config, &error), &error);
        const json_t *list = json_object_get(config, "target_modules");
        for (size_t t = 0; t < json_array_size(list); t++)
            targets[t] = json_string_value(json_array_get(list, t));
        double rank = json_number_value(json_object_get(config, "r"));
        double alpha = json_number_value(json_object_get(config, "lora_alpha"));
        double scale = alpha / (json_is_true(json_object_get(config, "use_rslora")) ? sqrt(rank) : rank);
        rig_make(&rig, folder, MF_F32, (int32_t)rank, (float)scale, targets, json_array_size(list));
        load_adapter(&rig, folder);
        check_loss(&rig, models[i], golden, "adapter_loss", 1e-5);
        check_generation(&rig, models[i], golden, "logits.adapter");
        rig_free(&rig);
        json_decref(config);
        json_decref(golden);
    }
}

/* ---- the same weights stored otherwise ---- */

/* Writes `model`'s weights into the scratch folder as `dtype`, with its config.json. `change` may alter an
 * entry or say false to leave it out. */
static void rewrite(const char *model, enum mf_dtype dtype, bool (*change)(struct mf_safetensors_entry *)) {
    char path[128];
    struct mf_error error;
    struct mf_safetensors *file;
    struct mf_safetensors_writer *writer;
    struct mf_safetensors_entry entry[128];
    size_t index[128], count = 0;
    snprintf(path, sizeof path, "tests/golden/models/%s/config.json", model);
    scratch_copy(path, "config.json");
    snprintf(path, sizeof path, "tests/golden/models/%s", model);
    check(mf_safetensors_open_folder(path, &file, &error), &error);
    for (size_t i = 0; i < mf_safetensors_count(file); i++) {
        const struct mf_stored_tensor *tensor = mf_safetensors_at(file, i);
        entry[count] =
            (struct mf_safetensors_entry){.name = tensor->name, .dtype = dtype, .rank = tensor->rank};
        memcpy(entry[count].dim, tensor->dim, sizeof tensor->dim);
        index[count] = i;
        count += !change || change(&entry[count]);
    }
    check(mf_safetensors_create(scratch_path("model.safetensors"), entry, count, NULL, &writer, &error),
          &error);
    for (size_t i = 0; i < count; i++) {
        const struct mf_stored_tensor *tensor = mf_safetensors_at(file, index[i]);
        assert_int_equal(tensor->dtype, MF_BF16);
        for (size_t e = 0; e < tensor->bytes / 2; e++) {
            float value = mf_bf16_to_f32(((const uint16_t *)tensor->data)[e]);
            uint16_t half = mf_f32_to_f16(value);
            check(dtype == MF_F32 ? mf_safetensors_write(writer, &value, 4, &error)
                                  : mf_safetensors_write(writer, &half, 2, &error),
                  &error);
        }
    }
    check(mf_safetensors_finish(writer, &error), &error);
    mf_safetensors_close(file);
}

static void any_float_dtype_on_disk(void **state) {
    json_t *golden = golden_json("untied-llama3-rope");
    struct rig rig;
    (void)state;
    rewrite("untied-llama3-rope", MF_F32, NULL);
    rig_make(&rig, scratch_folder(), MF_F32, 0, 0, NULL, 0);
    check_loss(&rig, "f32 on disk", golden, "base_loss", 1e-5);
    rig_free(&rig);
    rewrite("untied-llama3-rope", MF_F16, NULL); /* f16 has more mantissa; only tiny values lose bits */
    rig_make(&rig, scratch_folder(), MF_F32, 0, 0, NULL, 0);
    check_loss(&rig, "f16 on disk", golden, "base_loss", 1e-5);
    rig_free(&rig);
    json_decref(golden);
}

/* A header of odd length puts all data at odd addresses. */
static void data_at_odd_addresses(void **state) {
    json_t *golden = golden_json("bias-linear-rope");
    struct rig rig;
    struct mf_error error;
    char *data;
    size_t size;
    (void)state;
    rewrite("bias-linear-rope", MF_F32, NULL);
    check(mf_file_read(scratch_path("model.safetensors"), 1 << 20, &data, &size, &error), &error);
    uint64_t length;
    memcpy(&length, data, 8);
    char *moved = malloc(size + 1);
    memcpy(moved, data, 8 + length);
    moved[8 + length] = ' ';
    memcpy(moved + 8 + length + 1, data + 8 + length, size - 8 - length);
    length++;
    memcpy(moved, &length, 8);
    scratch_put("model.safetensors", moved, size + 1);
    free(moved);
    free(data);
    rig_make(&rig, scratch_folder(), MF_F32, 0, 0, NULL, 0);
    check_loss(&rig, "odd addresses", golden, "base_loss", 1e-5);
    rig_free(&rig);
    json_decref(golden);
}

static void computes_in_bf16(void **state) {
    (void)state;
    for (int stored = 0; stored < 2;
         stored++) { /* bf16 as it lies there; f32 rounded to it: the same weights */
        json_t *golden = golden_json("tied-gqa");
        struct rig rig;
        if (stored)
            rewrite("tied-gqa", MF_F32, NULL);
        rig_make(&rig, stored ? scratch_folder() : "tests/golden/models/tied-gqa", MF_BF16, 0, 0, NULL, 0);
        check_loss(&rig, "bf16", golden, "base_loss", 5e-3);
        rig_free(&rig);
        json_decref(golden);
    }
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[96];
        json_t *golden = golden_json(models[i]);
        struct rig rig;
        snprintf(path, sizeof path, "tests/golden/models/%s", models[i]);
        rig_make(&rig, path, MF_BF16, 0, 0, NULL, 0);
        check_loss(&rig, models[i], golden, "base_loss", 5e-3);
        rig_free(&rig);
        json_decref(golden);
    }
}

/* The training program of the scratch folder's model, run once as step `number`: its loss. */
static double training_loss(const json_t *golden, uint32_t number) {
    struct mf_model_program train;
    struct mf_error error;
    struct rig rig = {0};
    check(open_model(scratch_folder(), MF_F32, &rig.model, &error), &error);
    check(mf_graph_create(&rig.graph, &error), &error);
    check(mf_model_build(rig.model, rig.graph, MF_TRAIN, -1, &train, &error), &error);
    bound(&rig, train.program);
    check(mf_cpu_reference_create(&rig.backend, &error), &error);
    check(mf_plan_create(rig.graph, rig.backend, 0, &rig.plan, &error), &error);
    check(mf_executor_create(rig.graph, rig.plan, rig.backend, NULL, &rig.executor, &error), &error);
    check(mf_model_bind(rig.model, NULL, rig.graph, rig.executor, &error), &error);
    check(mf_executor_prepare(rig.executor, &error), &error);
    struct mf_step step = fill(&rig, json_object_get(golden, "rows"), false, false);
    step.seed = 11;
    step.step = number;
    check(mf_executor_run(rig.executor, train.program, &step, &error), &error);
    double loss = (double)*(float *)mf_executor_data(rig.executor, train.loss);
    rig_free(&rig);
    return loss;
}

static void put_dropout(double rate) {
    json_t *config = json_load_file("tests/golden/models/phi2/config.json", 0, NULL);
    json_object_set_new(config, "resid_pdrop", json_real(rate));
    assert_int_equal(json_dump_file(config, scratch_path("config.json"), 0), 0);
    json_decref(config);
}

/* Phi-2 is released with resid_pdrop 0.1: in training alone, by seed and step. */
static void residual_dropout_is_for_training(void **state) {
    json_t *golden = golden_json("phi2");
    int32_t count;
    double wanted = golden_loss(json_object_get(golden, "base_loss"), &count);
    struct rig rig;
    (void)state;
    rewrite("phi2", MF_F32, NULL);
    assert_true(fabs(training_loss(golden, 1) - wanted) <= 1e-5 * wanted);
    put_dropout(0.25);
    double first = training_loss(golden, 1);
    assert_true(first == training_loss(golden, 1));
    assert_true(fabs(first - wanted) > 1e-3 * wanted && fabs(first - wanted) < 0.2 * wanted);
    assert_true(fabs(first - training_loss(golden, 2)) > 1e-4 * wanted);
    rig_make(&rig, scratch_folder(), MF_F32, 0, 0, NULL, 0);
    check_loss(&rig, "phi2 evaluated", golden, "base_loss", 1e-5);
    rig_free(&rig);
    json_decref(golden);
}

/* ---- refusals ---- */

static bool drop_one(struct mf_safetensors_entry *entry) {
    return strcmp(entry->name, "model.layers.1.mlp.up_proj.weight") != 0;
}

static bool rename_one(struct mf_safetensors_entry *entry) {
    if (!strcmp(entry->name, "model.norm.weight"))
        entry->name = "model.norm.weights";
    return true;
}

static bool reshape_one(struct mf_safetensors_entry *entry) {
    if (!strcmp(entry->name, "model.layers.0.mlp.down_proj.weight")) {
        int64_t rows = entry->dim[0];
        entry->dim[0] = entry->dim[1];
        entry->dim[1] = rows;
    }
    return true;
}

static void expect_mismatch(const char *part) {
    struct mf_model *model;
    struct mf_error error;
    enum mf_status status = open_model(scratch_folder(), MF_F32, &model, &error);
    if (status != MF_ERROR_WEIGHT_MISMATCH || !strstr(error.message, part))
        fail_msg("expected '%s', got %s: %s", part, mf_status_code(status), status ? error.message : "");
    assert_null(model);
}

static void weights_must_belong_to_the_configuration(void **state) {
    struct mf_model *model;
    struct mf_error error;
    (void)state;
    rewrite("tied-gqa", MF_F32, drop_one);
    expect_mismatch("implies the weight model.layers.1.mlp.up_proj.weight, but no weight file holds it");
    rewrite("tied-gqa", MF_F32, rename_one);
    expect_mismatch("implies the weight model.norm.weight");
    rewrite("tied-gqa", MF_F32, reshape_one);
    expect_mismatch("down_proj.weight has shape [96, 64], config.json implies [64, 96]");
    rewrite("untied-llama3-rope", MF_F32, NULL);
    scratch_copy("tests/golden/models/tied-gqa/config.json", "config.json");
    expect_mismatch("config.json implies");
    /* bias weights that the configuration does not speak of */
    rewrite("bias-linear-rope", MF_F32, NULL);
    json_t *config = json_load_file(scratch_path("config.json"), 0, NULL);
    json_object_set_new(config, "mlp_bias", json_false());
    assert_int_equal(json_dump_file(config, scratch_path("config.json"), 0), 0);
    json_decref(config);
    expect_mismatch("mlp.down_proj.bias does not belong to a llama model");
    rewrite("tied-gqa", MF_F32, NULL);
    check(open_model(scratch_folder(), MF_F32, &model, &error), &error);
    mf_model_close(model);
}

/* From the older names of a file to those of the module tree. */
static bool rename_to_tree(struct mf_safetensors_entry *entry) {
    static char names[64][128];
    static size_t used;
    static const char old[] = "language_model.model.";
    if (strncmp(entry->name, old, sizeof old - 1) != 0)
        return true;
    char *name = names[used++ % 64];
    snprintf(name, sizeof names[0], "model.language_model.%s", entry->name + sizeof old - 1);
    entry->name = name;
    return true;
}

static bool drop_language_norm(struct mf_safetensors_entry *entry) {
    return strcmp(entry->name, "language_model.model.norm.weight") != 0;
}

static bool rename_tower(struct mf_safetensors_entry *entry) {
    if (!strcmp(entry->name, "vision_tower.post_layernorm.bias"))
        entry->name = "hearing.post_layernorm.bias";
    return true;
}

/* A file may have the names of either tree; the vision tower may be there, and nothing else. */
static void a_model_with_images_has_two_trees(void **state) {
    struct mf_model *model;
    struct mf_error error;
    (void)state;
    json_t *golden = golden_json("gemma3-vision");
    rewrite("gemma3-vision", MF_F32, rename_to_tree);
    struct rig rig;
    rig_make(&rig, scratch_folder(), MF_F32, 0, 0, NULL, 0);
    check_loss(&rig, "gemma3-vision by the names of its tree", golden, "base_loss", 1e-5);
    assert_string_equal(mf_model_module(rig.model, 0)->name,
                        "model.language_model.layers.0.self_attn.q_proj");
    rig_free(&rig);
    json_decref(golden);
    rewrite("gemma3-vision", MF_F32, drop_language_norm);
    expect_mismatch("implies the weight model.language_model.norm.weight");
    rewrite("gemma3-vision", MF_F32, rename_tower);
    expect_mismatch("hearing.post_layernorm.bias does not belong to a gemma3 model");
    rewrite("gemma3-vision", MF_F32, NULL);
    check(open_model(scratch_folder(), MF_F32, &model, &error), &error);
    mf_model_close(model);
}

/* With tied embeddings lm_head.weight may be stored too, if it is the same. */
static void a_tied_head_may_be_stored(void **state) {
    struct mf_error error;
    struct mf_model *model;
    (void)state;
    for (int differs = 0; differs < 2; differs++) {
        struct mf_safetensors_entry entry[64];
        struct mf_safetensors *file;
        struct mf_safetensors_writer *writer;
        check(mf_safetensors_open_folder("tests/golden/models/tied-gqa", &file, &error), &error);
        size_t count = mf_safetensors_count(file);
        const struct mf_stored_tensor *table = mf_safetensors_find(file, "model.embed_tokens.weight");
        for (size_t i = 0; i <= count; i++) {
            const struct mf_stored_tensor *tensor = i < count ? mf_safetensors_at(file, i) : table;
            entry[i] = (struct mf_safetensors_entry){
                .name = i < count ? tensor->name : "lm_head.weight", .dtype = MF_BF16, .rank = tensor->rank};
            memcpy(entry[i].dim, tensor->dim, sizeof tensor->dim);
        }
        scratch_copy("tests/golden/models/tied-gqa/config.json", "config.json");
        check(
            mf_safetensors_create(scratch_path("model.safetensors"), entry, count + 1, NULL, &writer, &error),
            &error);
        for (size_t i = 0; i < count; i++)
            check(mf_safetensors_write(writer, mf_safetensors_at(file, i)->data,
                                       mf_safetensors_at(file, i)->bytes, &error),
                  &error);
        const uint8_t changed = (uint8_t)(*(const uint8_t *)table->data ^ differs);
        check(mf_safetensors_write(writer, &changed, 1, &error), &error);
        check(mf_safetensors_write(writer, (const uint8_t *)table->data + 1, table->bytes - 1, &error),
              &error);
        check(mf_safetensors_finish(writer, &error), &error);
        mf_safetensors_close(file);
        if (differs) {
            expect_mismatch("the weight lm_head.weight does not belong");
        } else {
            check(open_model(scratch_folder(), MF_F32, &model, &error), &error);
            mf_model_close(model);
        }
    }
}

static void options_are_refused_by_name(void **state) {
    struct mf_model_options options = {.folder = "tests/golden/models/tied-gqa"};
    struct mf_model *model;
    struct mf_error error;
    (void)state;
    options.compute_dtype = MF_F16;
    assert_int_equal(mf_model_open(&options, &model, &error), MF_ERROR_PROVIDER_UNSUPPORTED);
    options.compute_dtype = MF_F32;
    options.quantization = MF_QUANTIZATION_INT8;
    options.nested_quantization = true;
    assert_int_equal(mf_model_open(&options, &model, &error), MF_ERROR_PROVIDER_UNSUPPORTED);
    assert_string_equal(error.message, "quantisation 3, nested, is not supported");
}

static size_t chosen_count(const struct mf_model *model, const char *const *targets, size_t count) {
    bool chosen[64];
    struct mf_error error;
    size_t sum = 0;
    check(mf_model_choose_modules(model, targets, count, chosen, &error), &error);
    for (size_t i = 0; i < mf_model_module_count(model); i++)
        sum += chosen[i];
    return sum;
}

static void modules_are_chosen_as_peft_does(void **state) {
    const char *all[] = {"all-linear"}, *two[] = {"q_proj", "v_proj"}, *one[] = {"layers.1.mlp.up_proj"};
    const char *whole[] = {"model.layers.2.self_attn.k_proj"}, *wrong[] = {"q_proj", "proj"};
    struct mf_model *model;
    struct mf_error error;
    bool chosen[64];
    (void)state;
    check(open_model("tests/golden/models/untied-llama3-rope", MF_F32, &model, &error), &error);
    assert_int_equal(mf_model_module_count(model), 3 * 7 + 1);
    assert_string_equal(mf_model_module(model, 0)->name, "model.layers.0.self_attn.q_proj");
    assert_string_equal(mf_model_module(model, 20)->suffix, "down_proj");
    assert_true(mf_model_module(model, 21)->head);
    assert_int_equal(chosen_count(model, NULL, 0), 21);
    assert_int_equal(chosen_count(model, all, 1), 21);
    assert_int_equal(chosen_count(model, two, 2), 6);
    assert_int_equal(chosen_count(model, one, 1), 1);
    assert_int_equal(chosen_count(model, whole, 1), 1);
    assert_int_equal(mf_model_choose_modules(model, wrong, 2, chosen, &error), MF_ERROR_INVALID_FIELD);
    assert_non_null(strstr(error.message, "matches 'proj' (there are: q_proj, k_proj"));
    /* 300 * 48 embeddings and head, 48 last norm; a layer: 64*48*2 + 16*48*2 + 3*48*80 + 2*48 */
    assert_int_equal(mf_model_parameters(model), 2 * 300 * 48 + 48 + 3 * (7680 + 11520 + 96));
    mf_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base_models_equal_transformers),
        cmocka_unit_test(adapted_models_equal_peft),
        cmocka_unit_test_setup_teardown(any_float_dtype_on_disk, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(data_at_odd_addresses, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(computes_in_bf16, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(weights_must_belong_to_the_configuration, scratch_make,
                                        scratch_remove),
        cmocka_unit_test_setup_teardown(a_model_with_images_has_two_trees, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(a_tied_head_may_be_stored, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(residual_dropout_is_for_training, scratch_make, scratch_remove),
        cmocka_unit_test(options_are_refused_by_name),
        cmocka_unit_test(modules_are_chosen_as_peft_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
