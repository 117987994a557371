/* modelforge-trainer generate, evaluate and score: tools around a model folder and an adapter. */
#include "common/clock.h"
#include "common/files.h"
#include "worker/trainer/batcher.h"
#include "worker/trainer/commands.h"
#include "worker/trainer/dataset.h"
#include "worker/trainer/evaluate.h"
#include "worker/trainer/generate.h"
#include "worker/trainer/template.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT = 0, MAX_TEXT_BYTES = 64 << 20, PASS_TOKENS = 512, NEW_TOKENS = 128 };

struct arguments {
    const char *model, *adapter, *provider, *device, *dtype, *prompt, *template, *dataset, *train_on, *text;
    const char *quantization;
    int64_t max_new_tokens, max_length;
    bool json, chat, reference, nested;
};

static const struct option long_options[] = {
    {"model", required_argument, NULL, 'm'},
    {"adapter", required_argument, NULL, 'a'},
    {"provider", required_argument, NULL, 'p'},
    {"device", required_argument, NULL, 'g'},
    {"dtype", required_argument, NULL, 'd'},
    {"prompt", required_argument, NULL, 'P'},
    {"template", required_argument, NULL, 't'},
    {"dataset", required_argument, NULL, 'D'},
    {"train-on", required_argument, NULL, 'o'},
    {"text", required_argument, NULL, 'T'},
    {"max-new-tokens", required_argument, NULL, 'n'},
    {"max-length", required_argument, NULL, 'l'},
    {"json", no_argument, NULL, 'j'},
    {"chat", no_argument, NULL, 'c'},
    {"reference", no_argument, NULL, 'r'},
    {"quantization", required_argument, NULL, 'q'},
    {"nested-quantization", no_argument, NULL, 'N'},
    {0},
};

/* A whole number of 1 to INT32_MAX / 2, or -1. */
static int64_t parse_count(const char *text) {
    char *end;
    long long value = strtoll(text, &end, 10);
    return *text && !*end && value >= 1 && value <= INT32_MAX / 2 ? value : -1;
}

static const char **text_argument(struct arguments *arguments, int option) {
    switch (option) {
    case 'm':
        return &arguments->model;
    case 'a':
        return &arguments->adapter;
    case 'p':
        return &arguments->provider;
    case 'g':
        return &arguments->device;
    case 'd':
        return &arguments->dtype;
    case 'P':
        return &arguments->prompt;
    case 't':
        return &arguments->template;
    case 'D':
        return &arguments->dataset;
    case 'o':
        return &arguments->train_on;
    case 'T':
        return &arguments->text;
    case 'q':
        return &arguments->quantization;
    default:
        return NULL;
    }
}

static bool one_of(const char *value, const char *a, const char *b, const char *c) {
    return !strcmp(value, a) || !strcmp(value, b) || !strcmp(value, c);
}

/* MF_QUANTIZATION_INT8 + 1 for what is none. */
static enum mf_quantization quantization_of(const struct arguments *arguments) {
    int quantization = MF_QUANTIZATION_NONE;
    while (quantization <= MF_QUANTIZATION_INT8 &&
           strcmp(mf_quantization_name((enum mf_quantization)quantization), arguments->quantization) != 0)
        quantization++;
    return (enum mf_quantization)quantization;
}

/* 0, or the exit status of wrong usage. `allowed` are the option letters of this subcommand. */
static int parse(int argc, char **argv, const char *allowed, struct arguments *arguments) {
    const char *command = argv[0];
    *arguments = (struct arguments){.provider = "huggingface",
                                    .device = "auto",
                                    .train_on = "completion",
                                    .quantization = mf_quantization_name(MF_QUANTIZATION_NONE)};
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        if (option == '?' || !strchr(allowed, option))
            return mf_command_usage(command, "unknown option", argv[optind - 1]);
        const char **text = text_argument(arguments, option);
        if (text)
            *text = optarg;
        else if (option == 'n')
            arguments->max_new_tokens = parse_count(optarg);
        else if (option == 'l')
            arguments->max_length = parse_count(optarg);
        else
            *(option == 'j'   ? &arguments->json
              : option == 'c' ? &arguments->chat
              : option == 'N' ? &arguments->nested
                              : &arguments->reference) = true;
    }
    if (optind != argc)
        return mf_command_usage(command, "unexpected argument", argv[optind]);
    if (!arguments->model)
        return mf_command_usage(command, "--model is needed", NULL);
    if (arguments->max_new_tokens < 0 || arguments->max_length < 0)
        return mf_command_usage(command, "a number of tokens must be at least 1", NULL);
    if (arguments->dtype && !one_of(arguments->dtype, "auto", "f32", "bf16"))
        return mf_command_usage(command, "--dtype must be auto, f32 or bf16", arguments->dtype);
    if (arguments->template && !one_of(arguments->template, "chat", "text", "none"))
        return mf_command_usage(command, "--template must be chat, text or none", arguments->template);
    if (!one_of(arguments->train_on, "completion", "all", "all"))
        return mf_command_usage(command, "--train-on must be completion or all", arguments->train_on);
    if (quantization_of(arguments) > MF_QUANTIZATION_INT8)
        return mf_command_usage(command, "--quantization must be none, nf4, fp4 or int8",
                                arguments->quantization);
    if (arguments->nested && !one_of(arguments->quantization, "nf4", "fp4", "fp4"))
        return mf_command_usage(command, "--nested-quantization needs --quantization nf4 or fp4", NULL);
    return 0;
}

/* A runtime with the adapter, where one is named, on its graph. */
struct model {
    struct mf_runtime runtime;
    struct mf_adapter_file *adapter;
    int16_t slot; /* SLOT, or -1 without an adapter */
};

static void close_model(struct model *model) {
    mf_runtime_close(&model->runtime);
    mf_adapter_close(model->adapter);
}

static enum mf_status open_model(const struct arguments *arguments, const char *dtype, struct model *model,
                                 struct mf_error *error) {
    const char *compute = arguments->dtype ? arguments->dtype : dtype;
    struct mf_runtime_options options = {.provider = arguments->provider,
                                         .model = arguments->model,
                                         .compute = !strcmp(compute, "f32")    ? MF_COMPUTE_F32
                                                    : !strcmp(compute, "bf16") ? MF_COMPUTE_BF16
                                                                               : MF_COMPUTE_AUTO,
                                         .quantization = quantization_of(arguments),
                                         .nested_quantization = arguments->nested,
                                         .reference = arguments->reference};
    *model = (struct model){.slot = arguments->adapter ? SLOT : -1};
    enum mf_status status = mf_device_choice_parse(arguments->device, &options.device, error);
    if (status == MF_OK)
        status = mf_runtime_open(&options, &model->runtime, error);
    if (status == MF_OK && arguments->adapter)
        status = mf_adapter_open(arguments->adapter, &model->adapter, error);
    if (status == MF_OK && arguments->adapter)
        status = mf_adapter_attach(model->adapter, model->runtime.model, model->runtime.graph, SLOT, error);
    if (status != MF_OK)
        close_model(model);
    return status;
}

static enum mf_status realize(struct model *model, struct mf_error *error) {
    enum mf_status status = mf_runtime_realize(&model->runtime, error);
    if (status == MF_OK && model->adapter)
        status = mf_adapter_load(model->adapter, model->runtime.graph, model->runtime.executor, error);
    return status;
}

/* ---- generate
 * ---------------------------------------------------------------------------------------------- */

static enum mf_status encode_prompt(const struct arguments *arguments, const struct mf_tokenizer *tokenizer,
                                    struct mf_tokens *prompt, struct mf_error *error) {
    const char *template = arguments->template;
    if (!template)
        template = mf_tokenizer_has_chat_template(tokenizer) ? "chat" : "none";
    if (!strcmp(template, "none"))
        return mf_tokenizer_encode(tokenizer, arguments->prompt, strlen(arguments->prompt), MF_SPECIAL_ADD,
                                   prompt, error);
    return mf_template_prompt(tokenizer, !strcmp(template, "chat"), arguments->prompt, mf_clock_realtime_ms(),
                              prompt, error);
}

/* The tokens asked for; without a wish NEW_TOKENS, or as many as the model has positions for. */
static int32_t answer_room(const struct arguments *arguments, const struct mf_runtime *runtime,
                           size_t prompt) {
    const int64_t left = mf_model_architecture(runtime->model)->max_positions - (int64_t)prompt;
    if (arguments->max_new_tokens)
        return (int32_t)arguments->max_new_tokens;
    return left < 1 ? 1 : left < NEW_TOKENS ? (int32_t)left : NEW_TOKENS;
}

static void print_answer(const struct arguments *arguments, const char *text, const struct mf_tokens *prompt,
                         const struct mf_tokens *answer, double seconds) {
    if (!arguments->json) {
        printf("%s\n", text);
        return;
    }
    json_t *ids = json_array();
    for (size_t i = 0; i < answer->count; i++)
        json_array_append_new(ids, json_integer(answer->id[i]));
    json_t *line = json_pack("{s:s, s:o, s:I, s:f}", "text", text, "tokens", ids, "prompt_tokens",
                             (json_int_t)prompt->count, "seconds", seconds);
    json_dumpf(line, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
    printf("\n");
    json_decref(line);
}

int mf_command_generate(int argc, char **argv) {
    struct arguments arguments;
    int usage = parse(argc, argv, "mapdPtnjrgqN", &arguments);
    if (usage)
        return usage;
    if (!arguments.prompt)
        return mf_command_usage("generate", "--prompt is needed", NULL);
    struct mf_error error;
    struct model model;
    struct mf_generator generator;
    struct mf_tokens prompt = {0}, answer = {0};
    char *text = NULL;
    enum mf_status status = open_model(&arguments, "auto", &model, &error);
    if (status != MF_OK)
        return mf_command_failed(&error);
    status = encode_prompt(&arguments, model.runtime.tokenizer, &prompt, &error);
    const int32_t room = answer_room(&arguments, &model.runtime, prompt.count);
    if (status == MF_OK)
        status =
            mf_generator_build(&model.runtime, model.slot, (int32_t)prompt.count, room, &generator, &error);
    if (status == MF_OK)
        mf_model_set_longest_row(model.runtime.model, (int32_t)prompt.count + room);
    if (status == MF_OK)
        status = realize(&model, &error);
    const int64_t before_ns = mf_clock_monotonic_ns();
    if (status == MF_OK)
        status = mf_generate(&model.runtime, &generator, &prompt, &answer, &error);
    if (status == MF_OK)
        status = mf_tokenizer_decode(model.runtime.tokenizer, answer.id, answer.count, true, &text, &error);
    if (status == MF_OK)
        print_answer(&arguments, text, &prompt, &answer, (double)(mf_clock_monotonic_ns() - before_ns) / 1e9);
    free(text);
    mf_tokens_free(&prompt);
    mf_tokens_free(&answer);
    close_model(&model);
    return status == MF_OK ? 0 : mf_command_failed(&error);
}

/* ---- evaluate and score
 * ------------------------------------------------------------------------------------ */

static void print_result(const struct arguments *arguments, const struct mf_samples *samples,
                         const struct mf_evaluation *result, const float *log_probability) {
    if (!arguments->json) {
        printf("%zu rows, %lld tokens, %lld labels: loss %.6f, perplexity %.4f\n", samples->count,
               (long long)samples->tokens, (long long)result->labelled, result->loss, result->perplexity);
        return;
    }
    printf("{\"rows\":%zu,\"tokens\":%lld,\"labels\":%lld,\"loss\":%.9g,\"perplexity\":%.9g", samples->count,
           (long long)samples->tokens, (long long)result->labelled, result->loss, result->perplexity);
    for (int64_t i = 0; log_probability && i < result->labelled; i++)
        printf("%s%.9g", i ? "," : ",\"log_probabilities\":[", (double)log_probability[i]);
    printf(log_probability ? "]}\n" : "}\n");
}

/* Builds the program of `purpose`, MF_EVALUATE or, of one row, MF_SCORE, runs all samples through it and
 * prints the result; for MF_SCORE with the log-probability of every token after the first. */
static enum mf_status evaluate_samples(const struct arguments *arguments, struct model *model,
                                       enum mf_purpose purpose, const struct mf_samples *samples,
                                       struct mf_error *error) {
    const int32_t pass = samples->longest > PASS_TOKENS ? samples->longest : PASS_TOKENS;
    struct mf_model_program program = {0};
    struct mf_evaluation result;
    struct mf_graph *graph = model->runtime.graph;
    size_t *index = calloc(samples->count + 1, sizeof *index);
    mf_model_set_longest_row(model->runtime.model, samples->longest);
    enum mf_status status =
        index ? mf_model_build(model->runtime.model, graph, purpose, model->slot, &program, error)
              : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    if (status == MF_OK) {
        mf_program_set_bound(graph, program.program, MF_TOKENS, pass);
        mf_program_set_bound(graph, program.program, MF_LABELLED, pass);
        mf_program_set_bound(graph, program.program, MF_SEQUENCES, pass / 2 + 1);
        status = realize(model, error);
    }
    for (size_t i = 0; i < samples->count && index; i++)
        index[i] = i;
    const struct mf_evaluation_options options = {.batch_size = 1, .pass_tokens = pass};
    if (status == MF_OK)
        status = mf_evaluate(&model->runtime, &mf_strategy_sft, &program, samples, index, samples->count,
                             &options, &result, error);
    if (status == MF_OK)
        print_result(arguments, samples, &result,
                     purpose == MF_SCORE ? mf_executor_data(model->runtime.executor, program.log_probability)
                                         : NULL);
    free(index);
    return status;
}

int mf_command_evaluate(int argc, char **argv) {
    struct arguments arguments;
    int usage = parse(argc, argv, "mapdDoljcrgqN", &arguments);
    if (usage)
        return usage;
    if (!arguments.dataset)
        return mf_command_usage("evaluate", "--dataset is needed", NULL);
    struct mf_error error;
    struct model model;
    struct mf_dataset dataset = {0};
    struct mf_samples samples = {0};
    enum mf_status status = open_model(&arguments, "f32", &model, &error);
    if (status != MF_OK)
        return mf_command_failed(&error);
    const int32_t positions = mf_model_architecture(model.runtime.model)->max_positions;
    const struct mf_template_options options = {
        .use_chat_template = arguments.chat,
        .train_on_all = !strcmp(arguments.train_on, "all"),
        .max_length = arguments.max_length && arguments.max_length < positions ? (int32_t)arguments.max_length
                                                                               : positions,
        .created_at_ms = mf_clock_realtime_ms(),
        .model_eos = mf_architecture_eos(mf_model_architecture(model.runtime.model))};
    status = mf_dataset_load(arguments.dataset, 1, &dataset, &error);
    if (status == MF_OK)
        status = mf_template_apply(&dataset, model.runtime.tokenizer, &options, &samples, &error);
    if (status == MF_OK)
        status = evaluate_samples(&arguments, &model, MF_EVALUATE, &samples, &error);
    mf_samples_destroy(&samples);
    mf_dataset_destroy(&dataset);
    close_model(&model);
    return status == MF_OK ? 0 : mf_command_failed(&error);
}

int mf_command_score(int argc, char **argv) {
    struct arguments arguments;
    int usage = parse(argc, argv, "mapdTjrgqN", &arguments);
    if (usage)
        return usage;
    if (!arguments.text)
        return mf_command_usage("score", "--text is needed", NULL);
    struct mf_error error;
    struct model model;
    struct mf_tokens tokens = {0};
    char *text = NULL;
    size_t bytes = 0;
    enum mf_status status = open_model(&arguments, "f32", &model, &error);
    if (status != MF_OK)
        return mf_command_failed(&error);
    status = mf_file_read(arguments.text, MAX_TEXT_BYTES, &text, &bytes, &error);
    while (status == MF_OK && bytes && text[bytes - 1] == '\n')
        bytes--; /* the end of the file's last line is no part of the text */
    if (status == MF_OK)
        status = mf_tokenizer_encode(model.runtime.tokenizer, text, bytes, MF_SPECIAL_ADD, &tokens, &error);
    const int32_t positions = mf_model_architecture(model.runtime.model)->max_positions;
    if (status == MF_OK && (tokens.count < 2 || tokens.count > (size_t)positions))
        status = mf_error_set(&error, MF_ERROR_DATASET_ROW, "%s: has %zu tokens, not 2 to %d", arguments.text,
                              tokens.count, positions);
    if (status == MF_OK) {
        struct mf_sample sample = {.token = tokens.id,
                                   .label = tokens.id,
                                   .length = (int32_t)tokens.count,
                                   .labelled = (int32_t)tokens.count - 1};
        const struct mf_samples samples = {
            .sample = &sample, .count = 1, .tokens = sample.length, .longest = sample.length};
        status = evaluate_samples(&arguments, &model, MF_SCORE, &samples, &error);
    }
    free(text);
    mf_tokens_free(&tokens);
    close_model(&model);
    return status == MF_OK ? 0 : mf_command_failed(&error);
}
