#include "worker/trainer/record.h"

#include "common/clock.h"
#include "common/files.h"
#include "worker/trainer/best.h"
#include "worker/trainer/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *number_or_null(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *steps_json(const struct mf_history *history) {
    json_t *steps = json_array();
    for (int64_t i = 0; i < history->steps; i++) {
        const struct mf_step_record *step = &history->step[i];
        json_array_append_new(
            steps, json_pack("{s:I,s:o,s:o,s:o,s:I,s:o}", "step", (json_int_t)i + 1, "loss",
                             number_or_null(step->loss), "learning_rate", number_or_null(step->learning_rate),
                             "gradient_norm", number_or_null(step->gradient_norm), "tokens",
                             (json_int_t)step->tokens, "seconds", number_or_null(step->seconds)));
    }
    return steps;
}

static json_t *evaluations_json(const struct mf_history *history) {
    json_t *evaluations = json_array();
    for (int64_t i = 0; i < history->evaluations; i++) {
        const struct mf_evaluation_record *one = &history->evaluation[i];
        json_array_append_new(evaluations, json_pack("{s:I,s:o,s:o}", "step", (json_int_t)one->step, "loss",
                                                     number_or_null(one->loss), "perplexity",
                                                     number_or_null(one->perplexity)));
    }
    return evaluations;
}

static json_t *dataset_json(const struct mf_job *job) {
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "path", job->dataset.path,
                     "sha256", job->dataset.sha256, "rows", (json_int_t)job->dataset.rows, "train_rows",
                     (json_int_t)job->split.train_count, "eval_rows", (json_int_t)job->split.eval_count,
                     "packs", (json_int_t)job->sampler.count, "train_tokens", (json_int_t)job->train_tokens,
                     "longest_row", (json_int_t)job->samples.longest, "truncated_rows",
                     (json_int_t)job->samples.truncated_rows, "dropped_rows",
                     (json_int_t)job->samples.dropped_rows);
}

/* null, or the rows of validation_dataset. */
static json_t *validation_json(const struct mf_job *job) {
    const struct mf_samples *samples = &job->validation_samples;
    if (!job->validation.path)
        return json_null();
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "path", job->validation.path, "sha256",
                     job->validation.sha256, "rows", (json_int_t)job->validation.rows, "longest_row",
                     (json_int_t)samples->longest, "truncated_rows", (json_int_t)samples->truncated_rows,
                     "dropped_rows", (json_int_t)samples->dropped_rows);
}

/* null, or the adapter that training continued from. */
static json_t *start_json(const struct mf_job *job) {
    char digest[MF_SHA256_TEXT_BYTES];
    struct mf_error ignored;
    if (!job->start)
        return json_null();
    return json_pack("{s:s, s:s, s:o}", "path", job->request.adapter_name_or_path, "base_model",
                     mf_adapter_file_base(job->start), "sha256",
                     mf_adapter_file_digest(job->start, digest, &ignored) == MF_OK ? json_string(digest)
                                                                                   : json_null());
}

/* null without evaluations. */
static json_t *best_json(const struct mf_job *job, const struct mf_history *history) {
    const struct mf_evaluation_record *best = mf_best_evaluation(&job->request, history);
    const char *metric = job->request.metric_for_best_model;
    return best ? json_pack("{s:s, s:I, s:o, s:o}", "metric", metric ? metric : "eval_loss", "step",
                            (json_int_t)best->step, "loss", number_or_null(best->loss), "perplexity",
                            number_or_null(best->perplexity))
                : json_null();
}

/* null, or the file that the provider's code came from. */
static json_t *library_json(const struct mf_job *job) {
    const char *path, *sha256;
    return mf_provider_library(job->runtime.provider, &path, &sha256)
               ? json_pack("{s:s, s:s}", "path", path, "sha256", sha256)
               : json_null();
}

static json_t *versions_json(const struct mf_job *job) {
    const struct mf_backend *backend = job->runtime.backend;
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:o, s:s}", "modelforge", MF_VERSION, "backend",
                     backend->name, "instruction_set", backend->instruction_set, "threads",
                     (int)backend->threads, "library", backend->library, "provider",
                     job->runtime.provider->get_provider_name(), "provider_library", library_json(job),
                     "compute_dtype", mf_dtype_name(mf_model_compute_dtype(job->runtime.model)));
}

/* null, or in which form the linear modules but the head were quantised. */
static json_t *quantization_json(const struct mf_job *job) {
    const struct mf_model *model = job->runtime.model;
    bool nested;
    const enum mf_quantization quantization = mf_model_quantization(model, &nested);
    if (quantization == MF_QUANTIZATION_NONE)
        return json_null();
    return json_pack("{s:s, s:b, s:o, s:s, s:s}", "type", mf_quantization_name(quantization), "nested",
                     nested, "block_size",
                     quantization == MF_QUANTIZATION_INT8 ? json_null() : json_integer(MF_QUANTIZATION_BLOCK),
                     "kept", job->memory.quantized ? "quantized" : "dequantized", "kept_dtype",
                     job->memory.quantized ? mf_quantization_name(quantization)
                                           : mf_dtype_name(mf_model_compute_dtype(model)));
}

static json_t *results_json(const struct mf_job *job, const struct mf_history *history) {
    return json_pack("{s:I, s:b, s:b, s:I, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "steps",
                     (json_int_t)history->steps, "exact", !*job->resumed_plan, "stopped_early",
                     history->stopped_early, "kept_step", (json_int_t)history->kept_step, "best",
                     best_json(job, history), "warmup_steps", (json_int_t)job->warmup_steps, "trained_tokens",
                     (json_int_t)history->trained_tokens, "trained_labels",
                     (json_int_t)history->trained_labels, "train_loss", number_or_null(history->train_loss),
                     "train_seconds", number_or_null(history->train_seconds), "history", steps_json(history),
                     "evaluations", evaluations_json(history));
}

enum mf_status mf_record_write(const char *path, const struct mf_job *job, const struct mf_history *history,
                               struct mf_error *error) {
    json_t *request = NULL, *record = NULL;
    char created[MF_TIME_TEXT_BYTES], memory[160], *text = NULL;
    enum mf_status status = mf_request_to_json(&job->request, false, &request, error);
    if (status != MF_OK)
        goto done;
    record = json_pack(
        "{s:s, s:O, s:O?, s:o, s:I, s:I, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:{s:s, s:O}, s:o, s:o, s:s, "
        "s:o, s:o}",
        "created_at", mf_time_format(job->created_at_ms, created), "request", request, "run", job->run,
        "versions", versions_json(job), "seed", (json_int_t)job->request.seed, "pass_tokens",
        (json_int_t)job->pass_tokens, "memory", mf_memory_describe(&job->memory, memory, sizeof memory),
        "memory_budget_bytes", (json_int_t)mf_job_budget(job), "managed_bytes",
        (json_int_t)mf_job_managed_bytes(job), "trainable_parameters", (json_int_t)job->trainable_parameters,
        "dataset", dataset_json(job), "validation", validation_json(job), "continued_from", start_json(job),
        "model", "path", job->request.model_name, "files", job->model_files, "quantization",
        quantization_json(job), "device_memory", mf_device_memory_json(&job->device_memory),
        "numeric_plan_sha256", job->runtime.plan->record_sha256, "numeric_plan",
        json_loads(job->runtime.plan->record, 0, NULL), "results", results_json(job, history));
    text = record ? json_dumps(record, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
    status = text ? mf_file_write_atomic(path, text, strlen(text), 0644, error)
                  : mf_error_set(error, MF_ERROR_INTERNAL, "training.json: cannot be put together");
done:
    free(text);
    json_decref(record);
    json_decref(request);
    return status;
}
