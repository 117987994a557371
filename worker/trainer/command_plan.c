/* modelforge-trainer plan: what a run would do, for people and for programs. */
#include "worker/trainer/best.h"
#include "worker/trainer/commands.h"
#include "worker/trainer/job.h"
#include "worker/trainer/memory.h"
#include "worker/trainer/probe.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct plan_options {
    const char *request;
    bool json, no_probe, ledger;
};

/* What there is to tell of a prepared job. */
struct told {
    struct mf_estimate estimate; /* probe_seconds 0: not probed */
    struct mf_ledger ledger;
};

/* ---- memory by kind
 * ------------------------------------------------------------------------------------------------ */

struct kind {
    const char *name, *label;
    size_t bytes;
};
enum { KINDS = 10 };

static void memory_kinds(const struct mf_job *job, struct kind kind[KINDS]) {
    const struct mf_plan *plan = job->runtime.plan;
    const struct kind kinds[KINDS] = {
        {"weights", "weights", plan->weight_bytes},
        {"weight_copies", "copies of weights", plan->copy_bytes},
        {"parameters", "trained parameters", plan->storage_bytes[MF_ADAPTER]},
        {"gradients", "gradients", plan->storage_bytes[MF_GRADIENT]},
        {"optimizer", "optimizer", plan->storage_bytes[MF_OPTIMIZER]},
        {"state", "rounded weights", plan->storage_bytes[MF_STATE]},
        {"inputs", "inputs", plan->storage_bytes[MF_INPUT]},
        {"programs", "activations", plan->program_bytes},
        {"offloaded", "offloaded", plan->host_bytes},
        {"best", "best parameters so far", mf_best_bytes(job)},
    };
    memcpy(kind, kinds, sizeof kinds);
}

/* ---- for programs
 * -------------------------------------------------------------------------------------------------- */

static json_t *memory_json(const struct mf_job *job) {
    const struct mf_plan *plan = job->runtime.plan;
    struct kind kind[KINDS];
    char passes[160];
    json_t *kinds = json_object(), *programs = json_object();
    memory_kinds(job, kind);
    for (int i = 0; i < KINDS; i++)
        json_object_set_new(kinds, kind[i].name, json_integer((json_int_t)kind[i].bytes));
    for (int32_t p = 0; p < plan->graph->programs; p++)
        json_object_set_new(programs, mf_purpose_name((enum mf_purpose)plan->graph->program[p]->purpose),
                            json_integer((json_int_t)plan->graph->program[p]->arena_bytes));
    return json_pack("{s:I, s:I, s:i, s:s, s:o, s:o}", "managed_bytes", (json_int_t)mf_job_managed_bytes(job),
                     "budget_bytes", (json_int_t)mf_job_budget(job), "pass_tokens", (int)job->pass_tokens,
                     "passes", mf_memory_describe(&job->memory, passes, sizeof passes), "kinds", kinds,
                     "programs", programs);
}

/* Null when it was not measured. */
static json_t *estimate_json(const struct mf_estimate *estimate) {
    if (!(estimate->probe_seconds > 0))
        return json_null();
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:{s:I, s:f}}", "seconds",
                     estimate->train_seconds + estimate->evaluate_seconds, "train_seconds",
                     estimate->train_seconds, "evaluate_seconds", estimate->evaluate_seconds,
                     "train_tokens_per_second", estimate->train_tokens_per_second,
                     "evaluate_tokens_per_second", estimate->evaluate_tokens_per_second, "update_seconds",
                     estimate->update_seconds, "evaluations", (json_int_t)estimate->evaluations, "probe",
                     "tokens", (json_int_t)estimate->probe_tokens, "seconds", estimate->probe_seconds);
}

/* The stretches of the first sample, by whether they are learned. */
static enum mf_status sample_json(const struct mf_job *job, json_t **result, struct mf_error *error) {
    const struct mf_sample *sample = &job->samples.sample[0];
    json_t *parts = json_array();
    int64_t labelled = 0;
    enum mf_status status = MF_OK;
    for (int32_t first = 0; first < sample->length && status == MF_OK;) {
        char *text = NULL;
        bool learned;
        const int32_t end = mf_sample_stretch(sample, first, &learned);
        status = mf_tokenizer_decode(job->runtime.tokenizer, sample->token + first, (size_t)(end - first),
                                     false, &text, error);
        if (status == MF_OK)
            json_array_append_new(parts, json_pack("{s:s, s:b, s:i}", "text", text, "labelled", learned,
                                                   "tokens", (int)(end - first)));
        labelled += learned ? end - first : 0;
        free(text);
        first = end;
    }
    *result = json_pack("{s:i, s:I, s:o}", "tokens", (int)sample->length, "labelled", (json_int_t)labelled,
                        "parts", parts);
    return status;
}

static int64_t truncated(const struct mf_job *job) {
    return job->samples.truncated_rows + job->validation_samples.truncated_rows;
}
static int64_t dropped(const struct mf_job *job) {
    return job->samples.dropped_rows + job->validation_samples.dropped_rows;
}

/* validation_path: null where rows are split off. */
static json_t *rows_json(const struct mf_job *job) {
    return json_pack("{s:s, s:s?, s:I, s:I, s:I, s:I, s:I, s:I}", "path", job->dataset.path,
                     "validation_path", job->validation.path, "packs", (json_int_t)job->sampler.count, "rows",
                     (json_int_t)job->dataset.rows, "train", (json_int_t)job->split.train_count, "evaluate",
                     (json_int_t)job->split.eval_count, "truncated", (json_int_t)truncated(job), "dropped",
                     (json_int_t)dropped(job));
}

static json_t *steps_json(const struct mf_job *job) {
    const struct mf_request *request = &job->request;
    const json_int_t rows = request->per_device_train_batch_size * request->gradient_accumulation_steps;
    return json_pack("{s:I, s:I, s:I, s:s, s:f}", "total", (json_int_t)job->total_steps, "warmup",
                     (json_int_t)job->warmup_steps, "rows", rows, "schedule", request->lr_scheduler_type,
                     "learning_rate", request->learning_rate);
}

static enum mf_status print_json(const struct mf_job *job, const struct told *told, struct mf_error *error) {
    const struct mf_model *model = job->runtime.model;
    bool nested;
    json_t *sample = NULL;
    enum mf_status status = sample_json(job, &sample, error);
    json_t *plan = json_pack(
        "{s:o, s:{s:I, s:i}, s:o, s:{s:I, s:I, s:s, s:s}, s:o, s:s, s:o, s:o}", "rows", rows_json(job),
        "tokens", "epoch", (json_int_t)job->train_tokens, "longest_row", (int)mf_job_longest(job), "steps",
        steps_json(job), "model", "parameters", (json_int_t)mf_model_parameters(model), "trained_parameters",
        (json_int_t)job->trainable_parameters, "computed_in", mf_dtype_name(mf_model_compute_dtype(model)),
        "quantization", mf_quantization_name(mf_model_quantization(model, &nested)), "memory",
        memory_json(job), "numeric_plan_sha256", job->runtime.plan->record_sha256, "estimate",
        estimate_json(&told->estimate), "first_row", sample);
    if (status == MF_OK && plan && told->ledger.steps)
        json_object_set_new(plan, "ledger", mf_ledger_json(&told->ledger));
    char *text = status == MF_OK && plan ? json_dumps(plan, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    if (status == MF_OK && !text)
        status = mf_error_set(error, MF_ERROR_INTERNAL, "the plan cannot be put together");
    if (text)
        printf("%s\n", text);
    free(text);
    json_decref(plan);
    return status;
}

/* ---- for people
 * ---------------------------------------------------------------------------------------------------- */

static double mebibytes(size_t bytes) {
    return (double)bytes / 1048576;
}

static void print_memory(const struct mf_job *job) {
    struct kind kind[KINDS];
    char passes[160];
    memory_kinds(job, kind);
    printf("memory     %.1f MiB, of %.1f that may be used\n", mebibytes(mf_job_managed_bytes(job)),
           mebibytes(mf_job_budget(job)));
    for (int i = 0; i < KINDS; i++)
        if (kind[i].bytes)
            printf("           %9.1f MiB %s\n", mebibytes(kind[i].bytes), kind[i].label);
    printf("passes     of at most %d tokens, computed in %s; %s\n", job->pass_tokens,
           mf_dtype_name(mf_model_compute_dtype(job->runtime.model)),
           mf_memory_describe(&job->memory, passes, sizeof passes));
}

static void print_quantization(const struct mf_job *job) {
    const struct mf_model *model = job->runtime.model;
    bool nested;
    const enum mf_quantization quantization = mf_model_quantization(model, &nested);
    if (quantization == MF_QUANTIZATION_NONE)
        return;
    printf("weights    %s%s, of linear modules but the head; ", mf_quantization_name(quantization),
           nested ? " with quantised scales" : "");
    if (job->memory.quantized)
        printf("kept so, dequantised to %s where they are used\n",
               mf_dtype_name(mf_model_compute_dtype(model)));
    else
        printf("kept dequantised in %s, without the quantised copy\n",
               mf_dtype_name(mf_model_compute_dtype(model)));
}

/* "3 s", "5 min", "2 h 10 min": an estimate has no more to say. */
static void print_duration(double seconds) {
    const int64_t minutes = (int64_t)(seconds / 60 + 0.5);
    if (seconds < 100)
        printf("%.0f s", seconds);
    else if (minutes < 100)
        printf("%lld min", (long long)minutes);
    else
        printf("%lld h %lld min", (long long)(minutes / 60), (long long)(minutes % 60));
}

static void print_estimate(const struct mf_estimate *estimate) {
    if (!(estimate->probe_seconds > 0))
        return;
    printf("time       about ");
    print_duration(estimate->train_seconds + estimate->evaluate_seconds);
    printf(" on this machine, without loading and saving: ");
    print_duration(estimate->train_seconds);
    printf(" of training at %.0f tokens/s", estimate->train_tokens_per_second);
    if (estimate->evaluations) {
        printf(", ");
        print_duration(estimate->evaluate_seconds);
        printf(" of evaluation at %.0f tokens/s", estimate->evaluate_tokens_per_second);
    }
    printf("; measured on a pass of %lld tokens\n", (long long)estimate->probe_tokens);
}

/* Labels in «», and bold on a terminal. */
static enum mf_status print_sample(const struct mf_job *job, struct mf_error *error) {
    const bool bold = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
    const char *before = bold ? "\033[1m«" : "«", *after = bold ? "»\033[0m" : "»";
    char *text = NULL;
    const enum mf_status status =
        mf_sample_show(&job->samples.sample[0], job->runtime.tokenizer, before, after, &text, error);
    if (status == MF_OK)
        printf("first row  as trained, labels in %s%s:\n%s\n", before, after, text);
    free(text);
    return status;
}

static enum mf_status print_text(const struct mf_job *job, const struct told *told, struct mf_error *error) {
    const struct mf_request *request = &job->request;
    printf("rows       %zu in %s; %zu train, %zu evaluate, %lld truncated, %lld dropped\n", job->dataset.rows,
           job->dataset.path, job->split.train_count, job->split.eval_count, (long long)truncated(job),
           (long long)dropped(job));
    if (job->validation.path)
        printf("           %zu in %s to evaluate\n", job->validation.rows, job->validation.path);
    if (request->packing)
        printf("packing    %zu packs of at most %lld tokens, which count as rows below\n", job->sampler.count,
               (long long)request->max_seq_length.value);
    printf("tokens     %lld an epoch; longest row %d\n", (long long)job->train_tokens, mf_job_longest(job));
    printf("steps      %lld, of them %lld warm-up; %lld rows each; %s schedule up to %g\n",
           (long long)job->total_steps, (long long)job->warmup_steps,
           (long long)request->per_device_train_batch_size * request->gradient_accumulation_steps,
           request->lr_scheduler_type, request->learning_rate);
    printf("trained    %lld parameters of %lld\n", (long long)job->trainable_parameters,
           (long long)mf_model_parameters(job->runtime.model));
    print_quantization(job);
    print_memory(job);
    print_estimate(&told->estimate);
    printf("numeric    %s\n", job->runtime.plan->record_sha256);
    const enum mf_status status = print_sample(job, error);
    if (status == MF_OK && told->ledger.steps) {
        printf("\n");
        mf_ledger_print(&told->ledger, stdout);
    }
    return status;
}

/* ---- the command
 * --------------------------------------------------------------------------------------------------- */

static enum mf_status tell(const struct plan_options *options, struct mf_error *error) {
    struct mf_job job;
    struct told *told = calloc(1, sizeof *told);
    if (!told)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    enum mf_status status = mf_job_open(options->request, NULL, NULL, NULL, &job, error);
    if (status == MF_OK) {
        status = mf_job_prepare(&job, error);
        if (status == MF_OK && (!options->no_probe || options->ledger))
            status = mf_probe(&job, &told->estimate, options->ledger ? &told->ledger : NULL, error);
        if (status == MF_OK)
            status = options->json ? print_json(&job, told, error) : print_text(&job, told, error);
        mf_job_close(&job);
    }
    free(told);
    return status;
}

int mf_command_plan(int argc, char **argv) {
    static const struct option known[] = {{"json", no_argument, NULL, 'j'},
                                          {"no-probe", no_argument, NULL, 'n'},
                                          {"ledger", no_argument, NULL, 'l'},
                                          {0}};
    struct plan_options options = {0};
    struct mf_error error;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == '?')
            return mf_command_usage("plan", "unknown option", NULL);
        options.json |= option == 'j';
        options.no_probe |= option == 'n';
        options.ledger |= option == 'l';
    }
    if (argc - optind != 1)
        return mf_command_usage("plan", "one REQUEST.json is needed", NULL);
    options.request = argv[optind];
    /* Without a report nothing is printed but the plan; a signal ends the program at once. */
    const enum mf_status status = tell(&options, &error);
    return status == MF_OK ? 0 : mf_command_failed(&error);
}
