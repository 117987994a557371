/* Whole models against Transformers and PEFT (tests/golden/make_models.py), on the oracle and on the fast
 * backend: logits, losses of rows of different lengths, every LoRA gradient, and 20 AdamW steps with schedule
 * and clipping through the trainer's own loop; the same with every weight trained, and with modules_to_save
 * (make_full.py).
 * Tolerances: loss 1e-5 relative, gradients 1e-4 and parameters 1e-5 of the norm. */
#include "kernels/gradient.h"
#include "kernels/passes/columns.h"
#include "kernels/passes/fold.h"
#include "providers/models/trained.h"
#include "providers/weights/safetensors.h"
#include "worker/trainer/evaluate.h"
#include "worker/trainer/generate.h"
#include "worker/trainer/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is compared; the greatest error of each is kept for the table. */
enum quantity { LOSS, LOGITS, GRADIENT, STEP_LOSS, GRADIENT_NORM, PARAMETERS, QUANTITIES };

/* What is trained, and what its files are called. */
enum trained { ADAPTERS, EVERY_WEIGHT, MODULES };
static const char *const files[] = {"golden", "full", "modules"};

/* A model under test, with its golden values. */
struct golden {
    const char *name;
    enum trained kind;
    bool reference;
    double *worst; /* [QUANTITIES] relative errors */
    json_t *values;
    json_t *trained; /* recipe and what training gives: of `values`, or of full.json */
    struct mf_safetensors *tensors;
    struct mf_job job; /* put together by hand: rows are token ids already */
    struct mf_adapter_file *adapter;
    struct mf_model_program evaluate_base;
    struct mf_generator generate_base, generate_adapter;
    size_t order[64];
};

static void must(enum mf_status status, const struct mf_error *error) {
    if (status != MF_OK)
        fail_msg("%s", error->message);
}

static void read_rows(struct golden *golden) {
    const json_t *rows = json_object_get(golden->values, "rows");
    struct mf_samples *samples = &golden->job.samples;
    samples->sample = calloc(json_array_size(rows), sizeof *samples->sample);
    samples->pool = calloc(4096, sizeof *samples->pool);
    int32_t *at = samples->pool;
    size_t index, i;
    json_t *row, *value;
    json_array_foreach(rows, index, row) {
        struct mf_sample *sample = &samples->sample[samples->count++];
        sample->length = (int32_t)json_array_size(json_object_get(row, "tokens"));
        sample->row = (int64_t)index;
        sample->token = at;
        json_array_foreach(json_object_get(row, "tokens"), i, value) *at++ =
            (int32_t)json_integer_value(value);
        sample->label = at;
        json_array_foreach(json_object_get(row, "labels"), i, value) {
            sample->labelled += i && json_integer_value(value) != MF_LABEL_NONE;
            *at++ = (int32_t)json_integer_value(value);
        }
        golden->order[index] = index;
        if (sample->length > samples->longest)
            samples->longest = sample->length;
    }
}

static double recipe(const struct golden *golden, const char *name) {
    return json_number_value(json_object_get(json_object_get(golden->trained, "recipe"), name));
}

static void bound(struct golden *golden, const struct mf_model_program *program, int32_t tokens) {
    mf_program_set_bound(golden->job.runtime.graph, program->program, MF_TOKENS, tokens);
    mf_program_set_bound(golden->job.runtime.graph, program->program, MF_LABELLED, tokens);
    mf_program_set_bound(golden->job.runtime.graph, program->program, MF_SEQUENCES, 8);
}

static void must_be_rounded(const struct golden *golden) {
    const struct mf_graph *graph = golden->job.runtime.graph;
    struct mf_executor *executor = golden->job.runtime.executor;
    for (int32_t i = 0; i < graph->trains; i++) {
        const struct mf_trained *trained = &graph->trained[i];
        const float *master = mf_executor_data(executor, trained->parameter);
        const uint16_t *copy = mf_executor_data(executor, trained->computed);
        const int64_t count = mf_tensor_elements(mf_graph_tensor(graph, trained->parameter), NULL);
        assert_int_not_equal(trained->computed, trained->parameter);
        for (int64_t e = 0; e < count; e++)
            assert_int_equal(copy[e], mf_f32_to_bf16(master[e]));
    }
    assert_true(graph->trains > 0);
}

/* What is trained, and programs that others are compared with. */
static void build_whole(struct golden *golden) {
    struct mf_runtime *runtime = &golden->job.runtime;
    struct mf_error error;
    must(mf_model_train_all(runtime->model, runtime->graph, MF_POLICY_SLOT, &error), &error);
}

static void build(struct golden *golden) {
    struct mf_job *job = &golden->job;
    struct mf_runtime *runtime = &job->runtime;
    struct mf_error error;
    const struct mf_optimizer adamw = {
        .kind = MF_ADAMW,
        .adamw = {(float)recipe(golden, "adam_beta1"), (float)recipe(golden, "adam_beta2"),
                  (float)recipe(golden, "adam_epsilon"), (float)recipe(golden, "weight_decay")}};
    if (golden->kind == EVERY_WEIGHT)
        build_whole(golden);
    else
        must(mf_adapter_attach(golden->adapter, runtime->model, runtime->graph, MF_POLICY_SLOT, &error),
             &error);
    must(job->strategy->build(runtime->model, runtime->graph, MF_POLICY_SLOT, &job->programs, &error),
         &error);
    must(mf_graph_build_update(runtime->graph, MF_POLICY_SLOT, &adamw, &job->update, &job->norm, &error),
         &error);
    must(mf_model_build(runtime->model, runtime->graph, MF_EVALUATE, -1, &golden->evaluate_base, &error),
         &error);
    must(mf_generator_build(runtime, -1, 32, 8, &golden->generate_base, &error), &error);
    must(mf_generator_build(runtime, MF_POLICY_SLOT, 32, 8, &golden->generate_adapter, &error), &error);
    bound(golden, &job->programs.train, job->pass_tokens);
    bound(golden, &job->programs.evaluate, 128);
    bound(golden, &golden->evaluate_base, 128);
    mf_model_set_longest_row(runtime->model, job->samples.longest);
    if (mf_model_fuses(runtime->model)) { /* as a job does on a GPU, but that the adapters here are narrow */
        must(mf_pass_fold(runtime->graph, job->programs.train.program, 1, &error), &error);
        must(mf_pass_fold(runtime->graph, job->programs.evaluate.program, 1, &error), &error);
    }
    must(mf_pass_columns(runtime->graph, job->programs.train.program, &error), &error);
    must(mf_pass_columns(runtime->graph, job->programs.evaluate.program, &error), &error);
    must(mf_runtime_realize(runtime, &error), &error);
    must(
        golden->kind == EVERY_WEIGHT
            ? mf_model_load_trained(runtime->model, runtime->graph, MF_POLICY_SLOT, runtime->executor, &error)
            : mf_adapter_load(golden->adapter, runtime->graph, runtime->executor, &error),
        &error);
}

static void open_golden(const char *name, const char *provider, bool reference, enum trained kind,
                        enum mf_compute compute, struct golden *golden) {
    struct mf_error error;
    char model[256], path[512];
    snprintf(model, sizeof model, "tests/golden/models/%s", name);
    *golden = (struct golden){.name = name, .reference = reference, .kind = kind};
    snprintf(path, sizeof path, "%s/golden.json", model);
    golden->values = json_load_file(path, 0, NULL);
    assert_non_null(golden->values);
    snprintf(path, sizeof path, "%s/%s.json", model, files[kind]);
    golden->trained = json_load_file(path, 0, NULL);
    assert_non_null(golden->trained);
    snprintf(path, sizeof path, "%s/%s.safetensors", model, files[kind]);
    must(mf_safetensors_open_file(path, &golden->tensors, &error), &error);
    snprintf(path, sizeof path, "%s/%s", model, kind == MODULES ? "modules" : "adapter");
    must(mf_adapter_open(path, &golden->adapter, &error), &error);
    const struct mf_runtime_options options = {
        .provider = provider, .model = model, .compute = compute, .reference = reference};
    struct mf_job *job = &golden->job;
    must(mf_strategy_find("sft", &job->strategy, &error), &error);
    must(mf_runtime_open(&options, &job->runtime, &error), &error);
    read_rows(golden);
    job->pass_tokens = 30; /* windows are larger: they take several passes */
    job->request.max_grad_norm = recipe(golden, "max_grad_norm");
    const char *schedule =
        json_string_value(json_object_get(json_object_get(golden->trained, "recipe"), "lr_scheduler_type"));
    const struct mf_schedule_options rates = {.name = schedule,
                                              .learning_rate = recipe(golden, "learning_rate"),
                                              .warmup_steps = (int64_t)recipe(golden, "warmup_steps"),
                                              .total_steps = (int64_t)recipe(golden, "steps")};
    must(mf_schedule_init(&job->schedule, &rates, &error), &error);
    build(golden);
}

static void close_golden(struct golden *golden) {
    mf_job_close(&golden->job);
    mf_adapter_close(golden->adapter);
    mf_safetensors_close(golden->tensors);
    json_decref(golden->trained);
    json_decref(golden->values);
}

static void keep_worst(const struct golden *golden, enum quantity quantity, double error) {
    if (!(error <= golden->worst[quantity])) /* a NaN stays */
        golden->worst[quantity] = error;
}

/* What is 0 but for rounding errors: the gradient of a bias of keys without rotary positions. */
static const double nothing = 1e-7;

/* ‖made − golden‖ / ‖golden‖ against a bound. */
static void assert_near(const struct golden *golden, enum quantity quantity, const char *name,
                        const float *made, const float *expected, size_t count, double tolerance) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)made[i] - (double)expected[i]) * ((double)made[i] - (double)expected[i]);
        size += (double)expected[i] * (double)expected[i];
    }
    if (sqrt(size) < nothing && sqrt(difference) < nothing)
        return;
    keep_worst(golden, quantity, sqrt(difference / size));
    if (!(sqrt(difference) <= tolerance * sqrt(size)))
        fail_msg("%s, %s backend: %s is off by %.3g of its norm %.3g, more than %.1g", golden->name,
                 golden->reference ? "reference" : "cpu", name, sqrt(difference / size), sqrt(size),
                 tolerance);
}

static void assert_close(const struct golden *golden, enum quantity quantity, const char *name, double made,
                         double expected, double tolerance) {
    keep_worst(golden, quantity, fabs(made - expected) / fabs(expected));
    if (!(fabs(made - expected) <= tolerance * fabs(expected)))
        fail_msg("%s, %s backend: %s is %.9g, not %.9g", golden->name,
                 golden->reference ? "reference" : "cpu", name, made, expected);
}

static const float *golden_tensor(const struct golden *golden, const char *kind, const char *name,
                                  size_t count) {
    char key[512];
    snprintf(key, sizeof key, "%s.%s", kind, name);
    const struct mf_stored_tensor *tensor = mf_safetensors_find(golden->tensors, key);
    if (!tensor) {
        fail_msg("%s has no golden %s", golden->name, key);
        return NULL;
    }
    assert_int_equal(tensor->bytes, count * sizeof(float));
    return tensor->data;
}

static void check_losses(struct golden *golden, const struct mf_model_program *program, const char *key) {
    struct mf_job *job = &golden->job;
    const json_t *expected = json_object_get(golden->values, key);
    struct mf_evaluation result;
    struct mf_error error;
    const struct mf_evaluation_options options = {.batch_size = 3, .pass_tokens = 128};
    double sum = 0, count = 0;
    for (size_t i = 0; i < job->samples.count; i++) {
        const json_t *row = json_array_get(expected, i);
        must(mf_evaluate(&job->runtime, job->strategy, program, &job->samples, golden->order + i, 1, &options,
                         &result, &error),
             &error);
        assert_int_equal(result.labelled, json_integer_value(json_object_get(row, "count")));
        assert_close(golden, LOSS, key, result.loss * (double)result.labelled,
                     json_number_value(json_object_get(row, "sum")), 1e-5);
        sum += json_number_value(json_object_get(row, "sum"));
        count += (double)result.labelled;
    }
    must(mf_evaluate(&job->runtime, job->strategy, program, &job->samples, golden->order, job->samples.count,
                     &options, &result, &error),
         &error);
    assert_close(golden, LOSS, "the loss of all rows together", result.loss, sum / count, 1e-5);
    assert_close(golden, LOSS, "the perplexity", result.perplexity, exp(sum / count), 1e-4);
}

static void check_logits(struct golden *golden, const struct mf_generator *generator, const char *kind) {
    struct mf_runtime *runtime = &golden->job.runtime;
    const size_t vocabulary = (size_t)mf_model_architecture(runtime->model)->vocabulary;
    const struct mf_stored_tensor *expected = mf_safetensors_find(golden->tensors, kind);
    assert_non_null(expected);
    for (size_t i = 0; i < golden->job.samples.count; i++) {
        const struct mf_sample *row = &golden->job.samples.sample[i];
        int32_t text[32];
        struct mf_tokens prompt = {text, (size_t)row->length, 0}, answer = {0};
        memcpy(text, row->token, prompt.count * sizeof *text);
        struct mf_generator first = *generator;
        struct mf_error error;
        first.max_new = 1; /* only the prompt is run */
        must(mf_generate(runtime, &first, &prompt, &answer, &error), &error);
        assert_near(golden, LOGITS, kind, mf_executor_data(runtime->executor, generator->prefill.logits),
                    (const float *)expected->data + i * vocabulary, vocabulary, 1e-5);
        mf_tokens_free(&answer);
    }
}

/* Decoding with the cache gives what running the whole text again gives, token by token. */
static void check_decoding(struct golden *golden, const struct mf_generator *generator) {
    struct mf_runtime *runtime = &golden->job.runtime;
    const struct mf_sample *row = &golden->job.samples.sample[0];
    int32_t text[32];
    struct mf_tokens prompt = {text, (size_t)row->length, 0}, answer = {0}, again = {0};
    struct mf_error error;
    memcpy(text, row->token, prompt.count * sizeof *text);
    must(mf_generate(runtime, generator, &prompt, &answer, &error), &error);
    assert_int_equal(answer.count, generator->max_new); /* these models do not end of themselves */
    struct mf_generator one = *generator;
    one.max_new = 1;
    for (size_t i = 0; i < answer.count; i++) {
        again.count = 0;
        must(mf_generate(runtime, &one, &prompt, &again, &error), &error);
        assert_int_equal(again.count, 1);
        assert_int_equal(again.id[0], answer.id[i]);
        text[prompt.count++] = answer.id[i];
    }
    mf_tokens_free(&again);
    mf_tokens_free(&answer);
}

static struct mf_window golden_window(struct golden *golden, size_t step, size_t *rows) {
    struct mf_window window = {.sample = rows};
    size_t batch_index, index;
    json_t *batch, *row;
    json_array_foreach(json_array_get(json_object_get(golden->values, "windows"), step), batch_index, batch) {
        json_array_foreach(batch, index, row) {
            const struct mf_sample *sample = &golden->job.samples.sample[json_integer_value(row)];
            rows[window.rows++] = (size_t)json_integer_value(row);
            window.tokens += sample->length;
            window.labelled += sample->labelled;
        }
    }
    return window;
}

/* One that has a name on disk. */
static bool is_parameter(const struct mf_tensor *tensor) {
    return tensor->storage == MF_ADAPTER && tensor->slot == MF_POLICY_SLOT && tensor->name &&
           tensor->version == 0 && tensor->program < 0;
}

/* The gradients of the first window, summed up over its passes, before any update. */
static void check_gradients(struct golden *golden) {
    struct mf_job *job = &golden->job;
    struct mf_runtime *runtime = &job->runtime;
    struct mf_error error;
    size_t rows[8], passes = 0;
    double loss = 0;
    const struct mf_window window = golden_window(golden, 0, rows);
    struct mf_step step = {.inverse_count = 1.0f / (float)window.labelled};
    for (size_t first = 0; first < window.rows; passes++) {
        size_t fit = mf_rows_that_fit(&job->samples, rows, first, window.rows, job->pass_tokens);
        job->strategy->feed(runtime->graph, runtime->executor, &job->samples, rows + first, fit, &step);
        must(mf_executor_run(runtime->executor, job->programs.train.program, &step, &error), &error);
        loss += (double)*(float *)mf_executor_data(runtime->executor, job->programs.train.loss);
        first += fit;
    }
    assert_true(passes > 1);
    assert_close(golden, LOSS, "the window's loss", loss,
                 json_number_value(json_object_get(golden->trained, "window_loss")), 1e-5);
    size_t parameters = 0;
    for (int32_t i = 0; i < runtime->graph->tensors; i++) {
        const struct mf_tensor *tensor = mf_graph_tensor(runtime->graph, i);
        if (!is_parameter(tensor))
            continue;
        const size_t count = (size_t)mf_tensor_elements(tensor, NULL);
        const int32_t gradient = mf_gradient_of_parameter(runtime->graph, i);
        assert_near(golden, GRADIENT, tensor->name, mf_executor_data(runtime->executor, gradient),
                    golden_tensor(golden, "gradient", tensor->name, count), count, 1e-4);
        parameters++;
    }
    assert_int_equal(2 * parameters,
                     mf_safetensors_count(golden->tensors) - (golden->kind == ADAPTERS ? 2 : 0));
    const int32_t bucket = mf_graph_find_bucket(runtime->graph, MF_POLICY_SLOT);
    const int32_t gradients = runtime->graph->bucket[bucket].gradient;
    memset(mf_executor_data(runtime->executor, gradients), 0,
           mf_executor_bytes(runtime->executor, gradients));
}

static void check_training(struct golden *golden) {
    struct mf_job *job = &golden->job;
    struct mf_runtime *runtime = &job->runtime;
    struct mf_error error;
    size_t index, rows[8];
    json_t *expected;
    json_array_foreach(json_object_get(golden->trained, "training"), index, expected) {
        const struct mf_window window = golden_window(golden, index, rows);
        struct mf_step_record record;
        must(mf_loop_step(job, &window, (int64_t)index + 1, &record, &error), &error);
        assert_close(golden, STEP_LOSS, "a step's loss", record.loss,
                     json_number_value(json_object_get(expected, "loss")), 1e-5);
        assert_close(golden, GRADIENT_NORM, "a gradient norm", record.gradient_norm,
                     json_number_value(json_object_get(expected, "gradient_norm")), 1e-4);
        assert_true(fabs(record.learning_rate -
                         json_number_value(json_object_get(expected, "learning_rate"))) < 1e-15);
    }
    assert_int_equal(index, 20);
    for (int32_t i = 0; i < runtime->graph->tensors; i++) {
        const struct mf_tensor *tensor = mf_graph_tensor(runtime->graph, i);
        if (!is_parameter(tensor))
            continue;
        const size_t count = (size_t)mf_tensor_elements(tensor, NULL);
        assert_near(golden, PARAMETERS, tensor->name, mf_executor_data(runtime->executor, i),
                    golden_tensor(golden, "after", tensor->name, count), count, 1e-5);
    }
}

static void check_model(const char *name, const char *provider, bool reference, enum trained kind,
                        double *worst) {
    struct golden golden;
    open_golden(name, provider, reference, kind, MF_COMPUTE_F32, &golden);
    golden.worst = worst;
    if (kind != ADAPTERS) {
        if (kind == EVERY_WEIGHT)
            check_losses(&golden, &golden.job.programs.evaluate, "base_loss");
        check_decoding(&golden, &golden.generate_adapter);
        check_gradients(&golden);
        check_training(&golden);
        check_losses(&golden, &golden.evaluate_base,
                     "base_loss"); /* the model's own weights are as they were */
        close_golden(&golden);
        return;
    }
    check_losses(&golden, &golden.evaluate_base, "base_loss");
    check_losses(&golden, &golden.job.programs.evaluate, "adapter_loss");
    check_logits(&golden, &golden.generate_base, "logits.base");
    check_logits(&golden, &golden.generate_adapter, "logits.adapter");
    check_decoding(&golden, &golden.generate_base);
    check_decoding(&golden, &golden.generate_adapter);
    check_gradients(&golden);
    check_training(&golden);
    close_golden(&golden);
}

/* Every model of make_models.py, on both backends; on the fast one fused too. */
static struct model {
    const char *name;
    bool reference;
    const char *provider;
    enum trained kind;
    double worst[QUANTITIES];
} models[] = {
#define OF(name, kind)                                                                 \
    {name, true, "huggingface", kind, {0}}, {name, false, "huggingface", kind, {0}}, { \
        name, false, "unsloth", kind, {                                                \
            0                                                                          \
        }                                                                              \
    }
#define BOTH(name) OF(name, ADAPTERS)
    BOTH("tied-gqa"),
    BOTH("untied-llama3-rope"),
    BOTH("bias-linear-rope"),
    BOTH("llama-dynamic"),
    BOTH("mistral"),
    BOTH("mistral-full"),
    BOTH("qwen2"),
    BOTH("qwen2.5"),
    BOTH("qwen3"),
    BOTH("gemma"),
    BOTH("gemma2"),
    BOTH("gemma3"),
    BOTH("gemma3-vision"),
    BOTH("phi2"),
    BOTH("phi3"),
    BOTH("phi3-longrope"),
    BOTH("phi4"),
    BOTH("phi4-mini"),
    OF("qwen2", EVERY_WEIGHT),
    OF("gemma", EVERY_WEIGHT),
    OF("mistral", EVERY_WEIGHT),
    OF("phi2", EVERY_WEIGHT), /* layer norms, and biases everywhere, the head's too */
    OF("qwen2", MODULES),
    OF("gemma", MODULES),
    OF("mistral", MODULES),
#undef BOTH
#undef OF
};

enum { MODELS = sizeof models / sizeof *models };

static void test_model(void **state) {
    struct model *model = *state;
    check_model(model->name, model->provider, model->reference, model->kind, model->worst);
}

static void print_table(void) {
    static const char *const kinds[] = {"adapters", "all", "modules_to_save, too"};
    printf("| model | trained | provider | backend | loss | logits | gradients | loss of 20 steps | gradient "
           "norms | parameters after |\n"
           "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < MODELS; i++) {
        printf("| %s | %s | %s | %s |", models[i].name, kinds[models[i].kind], models[i].provider,
               models[i].reference ? "oracle" : "fast");
        for (int quantity = 0; quantity < QUANTITIES; quantity++)
            printf(" %.1e |", models[i].worst[quantity]);
        printf("\n");
    }
}

/* Programs in bf16 compute with what the masters are rounded to: at first, after an update, and after the
 * host wrote masters. */
static void test_copies_follow_masters(void **state) {
    (void)state;
    struct golden golden;
    struct mf_step_record record;
    struct mf_error error;
    size_t rows[8];
    open_golden("qwen2", "huggingface", false, EVERY_WEIGHT, MF_COMPUTE_BF16, &golden);
    struct mf_runtime *runtime = &golden.job.runtime;
    must_be_rounded(&golden);
    const struct mf_window window = golden_window(&golden, 1, rows);
    const int32_t first = runtime->graph->trained[0].parameter;
    const float before = *(float *)mf_executor_data(runtime->executor, first);
    must(mf_loop_step(&golden.job, &window, 2, &record, &error), &error);
    assert_true(before != *(float *)mf_executor_data(runtime->executor, first));
    must_be_rounded(&golden);
    for (int32_t i = 0; i < runtime->graph->trains; i++)
        *(float *)mf_executor_data(runtime->executor, runtime->graph->trained[i].parameter) = 1.001f;
    mf_executor_round_copies(runtime->executor);
    must_be_rounded(&golden);
    close_golden(&golden);
}

/* A model by a provider of others, on both backends; trained whole too, where there are values of that. */
static int test_plug_in(char **argument) {
    char path[256];
    struct model own[4] = {0};
    struct CMUnitTest tests[4] = {{.name = "on the oracle"},
                                  {.name = "on the fast backend"},
                                  {.name = "as a whole on the oracle"},
                                  {.name = "as a whole on the fast backend"}};
    for (int i = 0; i < 4; i++) {
        own[i] = (struct model){argument[0], i % 2 == 0, argument[1], i >= 2 ? EVERY_WEIGHT : ADAPTERS, {0}};
        tests[i].test_func = test_model;
        tests[i].initial_state = &own[i];
    }
    snprintf(path, sizeof path, "tests/golden/models/%s/full.json", argument[0]);
    return access(path, R_OK) ? _cmocka_run_group_tests(argument[0], tests, 2, NULL, NULL)
                              : _cmocka_run_group_tests(argument[0], tests, 4, NULL, NULL);
}

/* With an argument, "table", the greatest relative error of every quantity is printed too; another one
 * chooses tests by a pattern ("qwen2*oracle"). With two, MODEL PROVIDER, it is these that are tested
 * (tests/providers/outside.sh). */
int main(int argc, char **argv) {
    struct CMUnitTest tests[MODELS + 1] = {0};
    static const char *const endings[] = {"", " as a whole", " with whole modules"};
    char names[MODELS][80];
    if (argc == 3)
        return test_plug_in(argv + 1);
    for (size_t i = 0; i < MODELS; i++) {
        snprintf(names[i], sizeof names[i], "%s%s by %s on the %s", models[i].name, endings[models[i].kind],
                 models[i].provider, models[i].reference ? "oracle" : "fast backend");
        tests[i] =
            (struct CMUnitTest){.name = names[i], .test_func = test_model, .initial_state = &models[i]};
    }
    tests[MODELS] = (struct CMUnitTest)cmocka_unit_test(test_copies_follow_masters);
    if (argc == 2 && strcmp(argv[1], "table") != 0)
        cmocka_set_test_filter(argv[1]);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (argc == 2 && !strcmp(argv[1], "table"))
        print_table();
    return failed;
}
