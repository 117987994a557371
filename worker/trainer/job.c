#include "worker/trainer/job.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "kernels/passes/cast.h"
#include "kernels/passes/columns.h"
#include "kernels/passes/fold.h"
#include "providers/models/trained.h"
#include "worker/trainer/best.h"
#include "worker/trainer/checkpoint.h"
#include "worker/trainer/memory.h"
#include "worker/trainer/outputs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A pass on a CPU, on a GPU, gains nothing beyond so many tokens, and costs memory. */
enum { PASS_TOKENS = 512, PASS_TOKENS_ON_GPU = 16384 };
/* As many as max_steps may ask for; each step has a record in memory and in training.json. */
enum { MAX_STEPS = 100000000 };

/* ---- the request file
 * -------------------------------------------------------------------------------------- */

static enum mf_status read_access(struct mf_job *job, const char *where, struct mf_error *error) {
    struct mf_access *access = &job->access;
    const json_t *root;
    size_t i;
    enum mf_status status =
        mf_json_optional_string(job->run, where, "s3_endpoint", 1024, &access->s3_endpoint, error);
    if (status == MF_OK)
        status = mf_json_optional_string(job->run, where, "s3_region", 64, &access->s3_region, error);
    if (status == MF_OK)
        status = mf_json_optional_string(job->run, where, "ca_file", 4000, &access->ca_file, error);
    access->roots = json_object_get(job->run, "roots");
    if (status == MF_OK && access->roots && !json_is_array(access->roots))
        status = mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: run.roots is not an array", where);
    json_array_foreach(access->roots, i, root) if (status == MF_OK && !json_is_string(root)) status =
        mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: run.roots holds what is no string", where);
    return status;
}

static enum mf_status read_run(struct mf_job *job, const char *where, struct mf_error *error) {
    const char *output = NULL, *created = NULL, *resume = NULL, *checkpoints = NULL, *downloads = NULL;
    enum mf_status status = mf_json_optional_string(job->run, where, "output_dir", 4000, &output, error);
    if (status == MF_OK)
        status = mf_json_optional_string(job->run, where, "resume_from", 4000, &resume, error);
    if (status == MF_OK)
        status = mf_json_optional_string(job->run, where, "checkpoint_dir", 4000, &checkpoints, error);
    if (status == MF_OK)
        status = mf_json_optional_string(job->run, where, "created_at", 64, &created, error);
    if (status == MF_OK)
        status = mf_json_optional_string(job->run, where, "download_dir", 4000, &downloads, error);
    if (status == MF_OK)
        status = read_access(job, where, error);
    if (status == MF_OK && downloads && !(job->download_dir = strdup(downloads)))
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    if (status == MF_OK && created && !mf_time_parse(created, &job->created_at_ms))
        status = mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: run.created_at: '%s' is not a time", where,
                              created);
    if (status == MF_OK && output && !job->output_dir)
        job->output_dir = strdup(output);
    if (status == MF_OK && resume && !job->resume_from && !(job->resume_from = strdup(resume)))
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    if (status == MF_OK && checkpoints && !(job->checkpoint_dir = strdup(checkpoints)))
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    return status;
}

static enum mf_status read_request(struct mf_job *job, const char *path, struct mf_error *error) {
    json_t *file = NULL;
    enum mf_status status = mf_json_read_file(path, 0, &file, error);
    if (status != MF_OK)
        return status;
    status = mf_request_from_json(file, true, &job->request, error);
    json_t *run = json_object_get(file, "run");
    if (status == MF_OK && run && !json_is_object(run))
        status = mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: run is not an object", path);
    if (status == MF_OK && run) {
        job->run = json_incref(run);
        status = read_run(job, path, error);
    }
    json_decref(file);
    if (status == MF_OK && !job->output_dir)
        job->output_dir = strdup("modelforge-output");
    if (status == MF_OK && job->output_dir && !job->checkpoint_dir)
        job->checkpoint_dir = mf_path_join(job->output_dir, "checkpoints");
    if (status == MF_OK && !job->checkpoint_dir)
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    return status;
}

/* It may take longer than any silence that a worker allows. */
static void show_download(void *report, const char *file, int64_t done_bytes, int64_t total_bytes) {
    char text[400];
    const double mib = 1.0 / (1 << 20);
    mf_report_progress(report, MF_PHASE_LOAD, 0); /* that it lives: how far, the log says */
    if (done_bytes == 0) {
        snprintf(text, sizeof text, "downloading %.200s, %.1f MiB", file, (double)total_bytes * mib);
        mf_report_log(report, "info", "%s", text);
    }
}

static void show_note(void *report, const char *text) {
    mf_report_log(report, "warning", "%s", text);
}

enum mf_status mf_job_open(const char *request_path, const char *output, const char *resume,
                           struct mf_report *report, struct mf_job *job, struct mf_error *error) {
    *job = (struct mf_job){.report = report,
                           .context = {.cancelled = mf_report_cancelled,
                                       .progress = show_download,
                                       .note = show_note,
                                       .argument = report},
                           .access = {.cancelled = mf_report_cancelled, .context = report},
                           .created_at_ms = mf_clock_realtime_ms(),
                           .output_dir = output ? strdup(output) : NULL,
                           .resume_from = resume ? strdup(resume) : NULL};
    enum mf_status status = read_request(job, request_path, error);
    if (status == MF_OK)
        status = mf_strategy_find(job->request.strategy, &job->strategy, error);
    if (status != MF_OK)
        mf_job_close(job);
    return status;
}

void mf_job_close(struct mf_job *job) {
    mf_sampler_destroy(&job->sampler);
    mf_split_destroy(&job->split);
    mf_samples_destroy(&job->validation_samples);
    mf_dataset_destroy(&job->validation);
    mf_samples_destroy(&job->samples);
    mf_dataset_destroy(&job->dataset);
    mf_adapter_close(job->start);
    mf_runtime_close(&job->runtime);
    mf_request_free(&job->request);
    json_decref(job->run);
    json_decref(job->model_files);
    free(job->output_dir);
    free(job->checkpoint_dir);
    free(job->resume_from);
    free(job->download_dir);
    *job = (struct mf_job){0};
}

/* ---- model and rows
 * ---------------------------------------------------------------------------------------- */

/* bf16 where it is given; else what 4-bit weights are to be computed in, since a CPU computes all in one
 * type. */
static enum mf_compute compute_of(const struct mf_request *request) {
    const char *four_bit = request->bnb_4bit_compute_dtype;
    if (request->bf16.set)
        return request->bf16.value ? MF_COMPUTE_BF16 : MF_COMPUTE_F32;
    return !four_bit ? MF_COMPUTE_AUTO : !strcmp(four_bit, "bfloat16") ? MF_COMPUTE_BF16 : MF_COMPUTE_F32;
}

static enum mf_quantization quantization_of(const struct mf_request *request) {
    const bool four_bit =
        !strcmp(request->strategy, "qlora") || (request->use_4bit.set && request->use_4bit.value);
    if (four_bit)
        return !strcmp(request->bnb_4bit_quant_type, "fp4") ? MF_QUANTIZATION_FP4 : MF_QUANTIZATION_NF4;
    return request->use_8bit ? MF_QUANTIZATION_INT8 : MF_QUANTIZATION_NONE;
}

/* Whether the request asks for another value of a field than the adapter has. */
static enum mf_status check_same(const struct mf_request *request, enum mf_request_field field, double asked,
                                 double there, struct mf_error *error) {
    if (asked == there || mf_request_has_default(request, field))
        return MF_OK;
    return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                        "%s: %.6g here, but the adapter that training continues from has %.6g; leave it out",
                        mf_request_fields()[field].name, asked, there);
}

/* An artifact's URI names a folder, too. */
static enum mf_status open_start(struct mf_job *job, struct mf_error *error) {
    const struct mf_request *request = &job->request;
    const char *folder = request->adapter_name_or_path;
    if (!strncmp(folder, "file://", 7))
        folder += 7;
    char *allowed = NULL;
    enum mf_status status = mf_access_model(&job->access, folder, &allowed, error);
    if (status == MF_ERROR_MODEL_FORBIDDEN)
        return mf_error_set(
            error, status,
            "adapter_name_or_path: %.500s is not among what this worker lets this tenant read "
            "(tenants.roots)",
            folder);
    if (status == MF_OK)
        status = mf_adapter_open(allowed, &job->start, error);
    free(allowed);
    if (status != MF_OK)
        return mf_error_prefix(error, "adapter_name_or_path");
    const struct mf_adapter_settings *settings = mf_adapter_file_settings(job->start);
    if (!mf_request_has_default(request, MF_REQUEST_modules_to_save))
        return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                            "modules_to_save: which modules are trained whole is the adapter's that training "
                            "continues from; leave modules_to_save out");
    status = check_same(request, MF_REQUEST_lora_r, (double)request->lora_r, settings->rank, error);
    if (status == MF_OK)
        status = check_same(request, MF_REQUEST_lora_alpha, request->lora_alpha, settings->alpha, error);
    if (status == MF_OK)
        status = check_same(request, MF_REQUEST_use_rslora, request->use_rslora, settings->rslora, error);
    if (status == MF_OK && !mf_request_has_default(request, MF_REQUEST_lora_dropout))
        mf_adapter_file_set_dropout(job->start, request->lora_dropout);
    if (status == MF_OK && strcmp(mf_adapter_file_base(job->start), request->model_name) != 0)
        mf_report_log(job->report, "warning", "the adapter %s says that its base model is '%s', not '%s'",
                      folder, mf_adapter_file_base(job->start), request->model_name);
    return status;
}

/* The request's provider_config as the ABI has it; freed with free(). The texts are the request's. */
static const char **settings_of(const struct mf_request *request) {
    const char **pairs = calloc(2 * json_object_size(request->provider_config) + 1, sizeof *pairs), *name;
    size_t count = 0;
    json_t *value;
    json_object_foreach(request->provider_config, name, value) {
        if (pairs) {
            pairs[count++] = name;
            pairs[count++] = json_string_value(value);
        }
    }
    return pairs;
}

/* Models that a provider reads beside the request's, as its settings say. The request's own, wherever a hub's
 * cache has put it, is not asked for again. */
static enum mf_status allow_model(void *argument, const char *path, struct mf_error *error) {
    const struct mf_job *job = argument;
    char *allowed = NULL;
    const char *own = job->runtime.location.folder;
    enum mf_status status = MF_OK;
    if (!own || strcmp(own, path) != 0)
        status = mf_access_model(&job->access, path, &allowed, error);
    free(allowed);
    return status;
}

static enum mf_status load_model(struct mf_job *job, struct mf_error *error) {
    const struct mf_request *request = &job->request;
    char *model = NULL;
    enum mf_status status = mf_access_model(&job->access, request->model_name, &model, error);
    if (status != MF_OK)
        return status;
    const char **settings = settings_of(request);
    job->context.scratch = job->download_dir; /* without a worker: the machine's own place for such files */
    job->context.allow = allow_model;
    job->context.allow_argument = job;
    struct mf_runtime_options options = {.device_map = request->device_map,
                                         .provider_config = settings,
                                         .provider = request->provider,
                                         .model = model,
                                         .revision = request->revision,
                                         .compute = compute_of(request),
                                         .quantization = quantization_of(request),
                                         .nested_quantization = request->use_nested_quant,
                                         .context = &job->context};
    status = settings ? mf_device_choice_parse(request->device, &options.device, error)
                      : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    if (status == MF_OK)
        status = mf_device_choice_check(
            options.device, request->device_map, request->gpus,
            request->min_gpu_memory_gib.set ? request->min_gpu_memory_gib.value : 0, error);
    if (status == MF_OK)
        status = mf_runtime_open(&options, &job->runtime, error);
    free(settings);
    free(model);
    if (status == MF_OK)
        status = mf_provider_require(job->runtime.provider, &job->runtime.device,
                                     mf_model_architecture(job->runtime.model)->model_type, request->task,
                                     request->strategy, error);
    if (status == MF_OK)
        status = mf_outputs_check(request, job->runtime.model, error);
    if (status == MF_OK && request->adapter_name_or_path)
        status = open_start(job, error);
    if (status == MF_OK && request->chat_template)
        status = mf_tokenizer_set_chat_template(job->runtime.tokenizer, request->chat_template, error);
    return status;
}

/* Rows from where the request says, if this run may read them. */
static enum mf_status read_rows(const struct mf_job *job, const char *from, size_t min_rows,
                                struct mf_dataset *dataset, struct mf_error *error) {
    struct mf_opened opened;
    enum mf_status status =
        mf_access_dataset(&job->access, from, job->download_dir ? job->download_dir : job->output_dir,
                          MF_DATASET_MAX_BYTES, &opened, error);
    if (status == MF_OK) {
        const struct mf_dataset_source source = {.path = opened.path,
                                                 .name = from,
                                                 .min_rows = min_rows,
                                                 .cancelled = job->context.cancelled,
                                                 .cancelled_argument = job->context.argument};
        status = mf_dataset_load_from(&source, dataset, error);
    }
    mf_access_close(&opened);
    return status;
}

enum mf_status mf_job_read_samples(struct mf_job *job, const struct mf_tokenizer *tokenizer,
                                   int32_t positions, int32_t model_eos, struct mf_error *error) {
    const struct mf_request *request = &job->request;
    if (request->max_seq_length.set && request->max_seq_length.value > positions)
        return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                            "max_seq_length: %lld is more than the model's %d positions",
                            (long long)request->max_seq_length.value, positions);
    const struct mf_template_options options = {
        .use_chat_template = request->use_chat_template,
        .train_on_all = !strcmp(request->train_on, "all"),
        .on_overflow = !strcmp(request->on_overflow, "drop")    ? MF_OVERFLOW_DROP
                       : !strcmp(request->on_overflow, "error") ? MF_OVERFLOW_ERROR
                                                                : MF_OVERFLOW_TRUNCATE,
        .max_length = request->max_seq_length.set ? (int32_t)request->max_seq_length.value : positions,
        .created_at_ms = job->created_at_ms,
        .model_eos = model_eos,
        .cancelled = job->context.cancelled,
        .cancelled_argument = job->context.argument};
    enum mf_status status = MF_OK;
    if (request->validation_dataset)
        status = read_rows(job, request->validation_dataset, 1, &job->validation, error);
    if (status == MF_OK)
        status = read_rows(job, request->dataset, MF_DATASET_MIN_ROWS, &job->dataset, error);
    if (status == MF_OK && request->validation_dataset)
        status = mf_template_apply(&job->validation, tokenizer, &options, &job->validation_samples, error);
    job->eval_samples = request->validation_dataset ? &job->validation_samples : &job->samples;
    if (status == MF_OK)
        status = mf_template_apply(&job->dataset, tokenizer, &options, &job->samples, error);
    if (status == MF_OK && job->samples.count < MF_DATASET_MIN_ROWS)
        status = mf_error_set(error, MF_ERROR_DATASET_TOO_SMALL,
                              "%s: %zu of its %zu rows can be trained on, needs at least %d",
                              job->dataset.path, job->samples.count, job->dataset.rows, MF_DATASET_MIN_ROWS);
    return status;
}

static enum mf_status load_rows(struct mf_job *job, struct mf_error *error) {
    const struct mf_architecture *architecture = mf_model_architecture(job->runtime.model);
    enum mf_status status = mf_job_read_samples(job, job->runtime.tokenizer, architecture->max_positions,
                                                mf_architecture_eos(architecture), error);
    if (status == MF_OK)
        mf_model_set_longest_row(job->runtime.model, mf_job_longest(job));
    return status;
}

/* ---- steps
 * ------------------------------------------------------------------------------------------------- */

enum mf_status mf_job_split(struct mf_job *job, struct mf_error *error) {
    const struct mf_request *request = &job->request;
    const double share = request->validation_dataset ? 0 : request->eval_split;
    enum mf_status status =
        mf_split_make(job->samples.count, share, (uint64_t)request->seed, &job->split, error);
    if (status == MF_OK && request->validation_dataset)
        status = mf_split_validation(job->validation_samples.count, &job->split, error);
    return status;
}

static enum mf_status decide_steps(struct mf_job *job, struct mf_error *error) {
    const struct mf_request *request = &job->request;
    const struct mf_sampler_options options = {
        .seed = (uint64_t)request->seed,
        .batch_size = (int32_t)request->per_device_train_batch_size,
        .accumulation = (int32_t)request->gradient_accumulation_steps,
        .group_by_length = request->group_by_length,
        .pack_tokens = request->packing ? (int32_t)request->max_seq_length.value : 0};
    enum mf_status status = mf_job_split(job, error);
    if (status == MF_OK)
        status = mf_sampler_init(&job->sampler, &job->samples, job->split.train, job->split.train_count,
                                 &options, error);
    if (status != MF_OK)
        return status;
    const int64_t rows = (int64_t)job->sampler.count;
    const int64_t batches = (rows + options.batch_size - 1) / options.batch_size;
    job->total_steps = request->max_steps > 0 ? request->max_steps
                                              : mf_schedule_total_steps(request->num_train_epochs, batches,
                                                                        options.accumulation);
    if (job->total_steps > MAX_STEPS)
        return mf_error_set(
            error, MF_ERROR_CONFLICTING_FIELDS,
            "num_train_epochs: %g epochs of %lld rows are %lld steps, more than %d; ask for fewer "
            "epochs or set max_steps",
            request->num_train_epochs, (long long)rows, (long long)job->total_steps, MAX_STEPS);
    job->warmup_steps = request->warmup_steps > 0
                            ? request->warmup_steps
                            : mf_schedule_warmup_steps(request->warmup_ratio, job->total_steps);
    for (size_t i = 0; i < job->split.train_count; i++)
        job->train_tokens += job->samples.sample[job->split.train[i]].length;
    const struct mf_schedule_options schedule = {.name = request->lr_scheduler_type,
                                                 .settings = request->lr_scheduler_kwargs,
                                                 .learning_rate = request->learning_rate,
                                                 .warmup_steps = job->warmup_steps,
                                                 .total_steps = job->total_steps};
    return mf_schedule_init(&job->schedule, &schedule, error);
}

size_t mf_job_managed_bytes(const struct mf_job *job) {
    return (size_t)mf_runtime_managed_bytes(&job->runtime) + mf_best_bytes(job);
}

int32_t mf_job_longest(const struct mf_job *job) {
    return job->validation_samples.longest > job->samples.longest ? job->validation_samples.longest
                                                                  : job->samples.longest;
}

/* ---- programs
 * ---------------------------------------------------------------------------------------------- */

/* The modules that the request names must be those that the adapter has; all of one rank, as it is saved
 * again. */
static enum mf_status check_start(const struct mf_job *job, const bool *chosen, struct mf_error *error) {
    const struct mf_graph *graph = job->runtime.graph;
    const struct mf_model *model = job->runtime.model;
    const bool asked = !mf_request_has_default(&job->request, MF_REQUEST_target_modules);
    for (size_t i = 0; i < mf_model_module_count(model); i++) {
        const char *name = mf_model_module(model, i)->name;
        const int32_t adapter =
            mf_graph_find_adapter(graph, MF_POLICY_SLOT, mf_graph_find_module(graph, name));
        if (asked && chosen[i] != (adapter >= 0))
            return mf_error_set(
                error, MF_ERROR_CONFLICTING_FIELDS,
                "target_modules: '%s' is %s, but the adapter that training continues from has %s for it; "
                "leave target_modules out",
                name, chosen[i] ? "named" : "not named", chosen[i] ? "nothing" : "weights");
        if (adapter >= 0 &&
            mf_graph_tensor(graph, graph->adapter[adapter].a)->dim[0].multiplier != job->adapter.rank)
            return mf_error_set(
                error, MF_ERROR_ADAPTER_MISMATCH,
                "%s: rank %d at '%s' and %d elsewhere; only adapters of one rank can be continued",
                job->request.adapter_name_or_path,
                mf_graph_tensor(graph, graph->adapter[adapter].a)->dim[0].multiplier, name,
                job->adapter.rank);
    }
    return MF_OK;
}

/* Before the parameters have their bucket. */
static void count_trainable(struct mf_job *job) {
    const struct mf_graph *graph = job->runtime.graph;
    job->trainable_parameters = 0;
    for (int32_t i = 0; i < graph->tensors; i++) {
        const struct mf_tensor *tensor = mf_graph_tensor(graph, i);
        if (tensor->storage == MF_ADAPTER && tensor->slot == MF_POLICY_SLOT)
            job->trainable_parameters += mf_tensor_elements(tensor, NULL);
    }
}

static bool any(const bool *chosen, size_t count) {
    bool some = false;
    for (size_t i = 0; i < count; i++)
        some |= chosen[i];
    return some;
}

static enum mf_status add_adapters(struct mf_job *job, struct mf_error *error) {
    const struct mf_request *request = &job->request;
    const struct mf_model *model = job->runtime.model;
    bool *chosen = calloc(mf_model_module_count(model) + 1, sizeof *chosen);
    if (!chosen)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    enum mf_status status = mf_model_choose_modules(model, (const char *const *)request->target_modules.item,
                                                    request->target_modules.count, chosen, error);
    if (job->start) {
        job->adapter = *mf_adapter_file_settings(job->start);
        if (status == MF_OK)
            status = mf_adapter_attach(job->start, model, job->runtime.graph, MF_POLICY_SLOT, error);
        if (status == MF_OK)
            status = check_start(job, chosen, error);
    } else if (status == MF_OK) {
        job->adapter = (struct mf_adapter_settings){.rank = (int32_t)request->lora_r,
                                                    .alpha = request->lora_alpha,
                                                    .dropout = request->lora_dropout,
                                                    .rslora = request->use_rslora};
        status = mf_model_train_modules(model, job->runtime.graph, MF_POLICY_SLOT,
                                        (const char *const *)request->modules_to_save.item,
                                        request->modules_to_save.count, chosen, error);
        if (status == MF_OK && !any(chosen, mf_model_module_count(model)))
            status = mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                                  "target_modules and modules_to_save: all modules that adapters are asked "
                                  "for are trained whole; name others, or use finetuning full");
        if (status == MF_OK)
            status = mf_adapter_add(model, job->runtime.graph, MF_POLICY_SLOT, chosen, &job->adapter, error);
    }
    free(chosen);
    return status;
}

static enum mf_status add_parameters(struct mf_job *job, struct mf_error *error) {
    const enum mf_status status =
        mf_request_trains_all(&job->request)
            ? mf_model_train_all(job->runtime.model, job->runtime.graph, MF_POLICY_SLOT, error)
            : add_adapters(job, error);
    count_trainable(job);
    return status;
}

static int by_length(const void *left, const void *right) {
    const int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    return (a > b) - (a < b);
}

/* How many of the shortest rows fill a pass: no pass has more. */
static enum mf_status count_most_sequences(const struct mf_samples *samples, int32_t pass_tokens,
                                           int32_t *most, struct mf_error *error) {
    int32_t *length = calloc(samples->count + 1, sizeof *length);
    if (!length)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    for (size_t i = 0; i < samples->count; i++)
        length[i] = samples->sample[i].length;
    qsort(length, samples->count, sizeof *length, by_length);
    int64_t tokens = 0;
    int32_t count = 0;
    for (size_t i = 0; i < samples->count && (tokens += length[i]) <= pass_tokens; i++)
        count++;
    free(length);
    *most = count > *most ? count : *most;
    return MF_OK;
}

/* Of the rows of one pass. */
static enum mf_status find_most_sequences(struct mf_job *job, struct mf_error *error) {
    job->pass_sequences = 1;
    enum mf_status status =
        count_most_sequences(&job->samples, job->pass_tokens, &job->pass_sequences, error);
    return status == MF_OK
               ? count_most_sequences(&job->validation_samples, job->pass_tokens, &job->pass_sequences, error)
               : status;
}

/* A pass of training lies within a window, packs aside. */
static int32_t most_sequences(const struct mf_job *job, int32_t program) {
    const struct mf_request *request = &job->request;
    const int64_t window = request->per_device_train_batch_size * request->gradient_accumulation_steps;
    const bool train = program == job->programs.train.program && !request->packing;
    return train && window < job->pass_sequences ? (int32_t)window : job->pass_sequences;
}

static void set_bounds(struct mf_job *job, int32_t program) {
    mf_program_set_bound(job->runtime.graph, program, MF_TOKENS, job->pass_tokens);
    mf_program_set_bound(job->runtime.graph, program, MF_LABELLED, job->pass_tokens);
    mf_program_set_bound(job->runtime.graph, program, MF_SEQUENCES, most_sequences(job, program));
    mf_program_set_bound(job->runtime.graph, program, MF_LONGEST, mf_job_longest(job));
}

/* paged_adamw_32bit is adamw_torch: the plan has room for all of the state. */
static struct mf_optimizer optimizer_of(const struct mf_request *request) {
    const struct mf_optimizer optimizer = {.kind = !strcmp(request->optim, "sgd")          ? MF_SGD
                                                   : !strcmp(request->optim, "adamw_8bit") ? MF_ADAMW_8BIT
                                                                                           : MF_ADAMW,
                                           .adamw = {.beta1 = (float)request->adam_beta1,
                                                     .beta2 = (float)request->adam_beta2,
                                                     .epsilon = (float)request->adam_epsilon,
                                                     .weight_decay = (float)request->weight_decay}};
    return optimizer;
}

/* What saves copies and changes no result: last, when the nodes stand. */
static enum mf_status tidy(struct mf_job *job, int32_t program, struct mf_error *error) {
    struct mf_graph *graph = job->runtime.graph;
    enum mf_status status = mf_pass_columns(graph, program, error);
    return status == MF_OK && job->runtime.backend->converts_adapters ? mf_pass_cast(graph, program, error)
                                                                      : status;
}

/* What changes results, if only by rounding, and so belongs to the numeric plan. */
static enum mf_status fold(struct mf_job *job, struct mf_error *error) {
    const struct mf_runtime *runtime = &job->runtime;
    const int32_t granule = runtime->backend->fold_granule;
    if (!mf_model_fuses(runtime->model) || !granule)
        return MF_OK;
    enum mf_status status = mf_pass_fold(runtime->graph, job->programs.train.program, granule, error);
    return status == MF_OK ? mf_pass_fold(runtime->graph, job->programs.evaluate.program, granule, error)
                           : status;
}

static enum mf_status build_programs(struct mf_job *job, struct mf_error *error) {
    const struct mf_optimizer optimizer = optimizer_of(&job->request);
    struct mf_graph *graph = job->runtime.graph;
    enum mf_status status = add_parameters(job, error);
    if (status == MF_OK)
        status = job->strategy->build(job->runtime.model, graph, MF_POLICY_SLOT, &job->programs, error);
    if (status == MF_OK) {
        set_bounds(job, job->programs.train.program);
        set_bounds(job, job->programs.evaluate.program);
        status = fold(job, error);
    }
    if (status == MF_OK)
        status = mf_pass_memory(graph, job->programs.train.program, &job->memory, error);
    if (status == MF_OK)
        status = mf_pass_memory(graph, job->programs.evaluate.program,
                                &(struct mf_memory_choice){.quantized = job->memory.quantized}, error);
    if (status == MF_OK)
        status = tidy(job, job->programs.train.program, error);
    if (status == MF_OK)
        status = tidy(job, job->programs.evaluate.program, error);
    if (status == MF_OK)
        status = mf_graph_build_update(graph, MF_POLICY_SLOT, &optimizer, &job->update, &job->norm, error);
    return status;
}

/* The largest pass that gains something, if memory allows. */
static enum mf_status plan_programs(struct mf_job *job, struct mf_error *error) {
    const struct mf_request *request = &job->request;
    const int64_t longest = mf_job_longest(job);
    const int64_t window =
        request->per_device_train_batch_size * request->gradient_accumulation_steps * longest;
    const int64_t batch = request->per_device_eval_batch_size * longest;
    const int64_t most = job->runtime.device.kind == MF_DEVICE_CUDA ? PASS_TOKENS_ON_GPU : PASS_TOKENS;
    int64_t pass = window > batch ? window : batch;
    pass = pass > most ? most : pass;
    job->pass_tokens = (int32_t)(pass > longest ? pass : longest);
    enum mf_status status = find_most_sequences(job, error);
    if (status == MF_OK)
        status = mf_job_fit_memory(job, build_programs, error);
    if (status == MF_OK)
        status = mf_outputs_check_trained(job, error);
    return status ? status : mf_runtime_realize(&job->runtime, error);
}

static void report_plan(const struct mf_job *job) {
    mf_report_event(
        job->report,
        &(struct mf_event){
            .type = MF_EVENT_PLAN,
            .plan = {.managed_bytes = (int64_t)mf_job_managed_bytes(job),
                     .total_steps = job->total_steps,
                     .train_rows = (int64_t)job->split.train_count,
                     .eval_rows = (int64_t)job->split.eval_count,
                     .train_tokens = job->train_tokens,
                     .truncated_rows = job->samples.truncated_rows + job->validation_samples.truncated_rows,
                     .dropped_rows = job->samples.dropped_rows + job->validation_samples.dropped_rows,
                     .numeric_plan_sha256 = job->runtime.plan->record_sha256,
                     .dataset_sha256 = job->dataset.sha256,
                     .base_revision = job->runtime.location.commit,
                     .resumed_plan_sha256 = job->resumed_plan}});
}

/* Of what is trained. */
static enum mf_status first_values(struct mf_job *job, struct mf_error *error) {
    struct mf_runtime *runtime = &job->runtime;
    const enum mf_status status =
        mf_model_load_trained(runtime->model, runtime->graph, MF_POLICY_SLOT, runtime->executor, error);
    if (status == MF_OK && job->start)
        return mf_adapter_load(job->start, runtime->graph, runtime->executor, error);
    mf_adapter_initialize(runtime->graph, MF_POLICY_SLOT, runtime->executor, (uint64_t)job->request.seed);
    return status;
}

enum mf_status mf_job_prepare(struct mf_job *job, struct mf_error *error) {
    static enum mf_status (*const stages[])(struct mf_job *, struct mf_error *) = {
        load_model, load_rows, decide_steps, plan_programs};
    static const struct {
        enum mf_phase phase;
        double fraction;
    } after[] = {{MF_PHASE_LOAD, 0.5}, {MF_PHASE_LOAD, 1}, {MF_PHASE_PLAN, 0.1}, {MF_PHASE_PLAN, 1}};
    mf_report_progress(job->report, MF_PHASE_LOAD, 0);
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        enum mf_status status = stages[i](job, error);
        if (status == MF_OK)
            status = mf_report_check(job->report, error);
        if (status != MF_OK)
            return status;
        mf_report_progress(job->report, after[i].phase, after[i].fraction);
    }
    enum mf_status status = first_values(job, error);
    if (status == MF_OK && job->resume_from)
        status = mf_checkpoint_compare_plan(job, error);
    if (status == MF_OK)
        report_plan(job);
    return status;
}
