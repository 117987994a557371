#include "worker/trainer/checkpoint.h"

#include "common/files.h"
#include "common/json.h"
#include "providers/folder.h"
#include "providers/weights/safetensors.h"
#include "worker/trainer/best.h"
#include "worker/trainer/model_files.h"
#include "worker/trainer/steps_file.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 3, META_BYTES = 1 << 30 };

static const char state_name[] = "state.safetensors", meta_name[] = "checkpoint.json";
static const char removed_ending[] = ".removed";

static enum mf_status out_of_memory(struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "checkpoint: out of memory");
}

/* One tensor of state.safetensors. */
struct part {
    struct mf_safetensors_entry entry;
    void *data; /* the executor's or the history's */
    size_t bytes;
};
enum { PARTS = MF_OPTIMIZER_STATES + 2 };

static struct part part_of(const struct mf_job *job, const char *name, int32_t id) {
    const struct mf_tensor *tensor = mf_graph_tensor(job->runtime.graph, id);
    struct part part = {.entry = {.name = name, .dtype = (enum mf_dtype)tensor->dtype, .rank = tensor->rank},
                        .data = mf_executor_data(job->runtime.executor, id),
                        .bytes = mf_executor_bytes(job->runtime.executor, id)};
    for (int i = 0; i < tensor->rank; i++)
        part.entry.dim[i] = tensor->dim[i].multiplier;
    return part;
}

/* What a checkpoint holds of the policy's bucket: parameters, the optimiser's state, and the best parameters
 * where the history has room for them. Returns how many. */
static size_t find_parts(const struct mf_job *job, const struct mf_history *history,
                         struct part part[PARTS]) {
    const struct mf_graph *graph = job->runtime.graph;
    const int32_t id = mf_graph_find_bucket(graph, MF_POLICY_SLOT);
    size_t parts = 0;
    if (id < 0)
        return 0;
    const struct mf_bucket *bucket = &graph->bucket[id];
    part[parts++] = part_of(job, "parameters", bucket->parameter);
    for (int i = 0; i < MF_OPTIMIZER_STATES; i++)
        if (bucket->state[i] >= 0)
            part[parts++] =
                part_of(job, mf_optimizer_state_name((enum mf_optimizer_state)i), bucket->state[i]);
    if (history->best) {
        part[parts] = part[0];
        part[parts].entry.name = "best_parameters";
        part[parts++].data = history->best;
    }
    return parts;
}

/* ---- writing
 * ----------------------------------------------------------------------------------------------- */

static enum mf_status write_state(const struct mf_job *job, const struct mf_history *history,
                                  const char *path, struct mf_error *error) {
    struct part part[PARTS];
    struct mf_safetensors_entry entry[PARTS];
    struct mf_safetensors_writer *writer = NULL;
    const size_t parts = find_parts(job, history, part);
    if (!parts)
        return mf_error_set(error, MF_ERROR_INTERNAL, "checkpoint: there is nothing that is trained");
    for (size_t i = 0; i < parts; i++)
        entry[i] = part[i].entry;
    enum mf_status status = mf_safetensors_create(path, entry, parts, NULL, &writer, error);
    for (size_t i = 0; status == MF_OK && i < parts; i++)
        status = mf_safetensors_write(writer, part[i].data, part[i].bytes, error);
    if (status == MF_OK)
        return mf_safetensors_finish(writer, error);
    mf_safetensors_abandon(writer);
    return status;
}

static json_t *evaluations_json(const struct mf_history *history) {
    json_t *evaluations = json_array();
    for (int64_t i = 0; i < history->evaluations; i++)
        json_array_append_new(evaluations,
                              json_pack("{s:I, s:f}", "step", (json_int_t)history->evaluation[i].step, "loss",
                                        history->evaluation[i].loss));
    return evaluations;
}

static json_t *meta_json(const struct mf_job *job, const struct mf_history *history, const char *request,
                         const char *state, json_t *blocks) {
    const struct mf_interval *interval = &history->interval;
    return json_pack(
        "{s:s, s:i, s:s, s:I, s:s, s:s, s:s, s:s, s:{s:I, s:I}, s:{s:I, s:I}, s:O, s:o, s:{s:I, s:I, s:f, "
        "s:f}, s:{s:I, s:I, s:f, s:f}}",
        "format", "modelforge-checkpoint", "format_version", FORMAT, "version", MF_VERSION, "step",
        (json_int_t)history->steps, "request_sha256", request, "dataset_sha256", job->dataset.sha256,
        "numeric_plan_sha256", job->runtime.plan->record_sha256, "state_sha256", state, "schedule",
        "total_steps", (json_int_t)job->total_steps, "warmup_steps", (json_int_t)job->warmup_steps, "sampler",
        "epoch", (json_int_t)job->sampler.epoch, "cursor", (json_int_t)job->sampler.cursor, "steps", blocks,
        "evaluations", evaluations_json(history), "totals", "trained_tokens",
        (json_int_t)history->trained_tokens, "trained_labels", (json_int_t)history->trained_labels,
        "train_seconds", history->train_seconds, "train_loss", history->train_loss, "interval", "steps",
        (json_int_t)interval->steps, "tokens", (json_int_t)interval->tokens, "loss", interval->loss,
        "seconds", interval->seconds);
}

/* The sha256 that the object without its member "sha256" has. */
static enum mf_status digest_meta(json_t *meta, char digest[MF_SHA256_TEXT_BYTES], struct mf_error *error) {
    char *text = NULL;
    json_object_del(meta, "sha256");
    enum mf_status status = mf_json_canonical(meta, &text, error);
    if (status == MF_OK)
        status = mf_sha256_text(text, strlen(text), digest, error);
    free(text);
    return status;
}

static enum mf_status write_meta(const struct mf_job *job, const struct mf_history *history, json_t *blocks,
                                 const char *state, const char *path, struct mf_error *error) {
    char request[MF_SHA256_TEXT_BYTES], digest[MF_SHA256_TEXT_BYTES], *text = NULL;
    json_t *meta = NULL;
    enum mf_status status = mf_request_hash(&job->request, request, error);
    if (status == MF_OK)
        status = mf_file_sha256(state, digest, NULL, error);
    if (status == MF_OK && !(meta = meta_json(job, history, request, digest, blocks)))
        status = mf_error_set(error, MF_ERROR_INTERNAL, "checkpoint: checkpoint.json cannot be put together");
    if (status == MF_OK && json_object_set(meta, "model_files", job->model_files) != 0)
        status = out_of_memory(error);
    if (status == MF_OK && job->validation.path &&
        json_object_set_new(meta, "validation_sha256", json_string(job->validation.sha256)) != 0)
        status = out_of_memory(error);
    if (status == MF_OK && *job->resumed_plan &&
        json_object_set_new(meta, "resumed_plan_sha256", json_string(job->resumed_plan)) != 0)
        status = out_of_memory(error);
    if (status == MF_OK)
        status = digest_meta(meta, digest, error);
    if (status == MF_OK && json_object_set_new(meta, "sha256", json_string(digest)) != 0)
        status = out_of_memory(error);
    if (status == MF_OK)
        status = mf_json_canonical(meta, &text, error);
    if (status == MF_OK)
        status = mf_file_write_atomic(path, text, strlen(text), 0644, error);
    free(text);
    json_decref(meta);
    return status;
}

static enum mf_status write_folder(const struct mf_job *job, struct mf_history *history, const char *made,
                                   const char *folder, struct mf_error *error) {
    char *state = mf_path_join(made, state_name), *meta = mf_path_join(made, meta_name),
         *once = mf_path_join(job->checkpoint_dir, "steps");
    json_t *blocks = NULL;
    enum mf_status status = state && meta && once ? mf_tree_remove(made, error) : out_of_memory(error);
    if (status == MF_OK)
        status = mf_directory_create(made, 0755, error);
    if (status == MF_OK)
        status = write_state(job, history, state, error);
    if (status == MF_OK)
        status = mf_steps_write(history, once, made, &blocks, error);
    if (status == MF_OK)
        status = write_meta(job, history, blocks, state, meta, error);
    if (status == MF_OK)
        status = mf_directory_sync(made, error);
    if (status == MF_OK)
        status = mf_folder_replace(made, folder, error);
    if (status == MF_OK)
        status = mf_directory_sync(job->checkpoint_dir, error);
    if (status != MF_OK) {
        struct mf_error ignored;
        (void)mf_tree_remove(made, &ignored);
    }
    json_decref(blocks);
    free(once);
    free(state);
    free(meta);
    return status;
}

enum mf_status mf_checkpoint_write(struct mf_job *job, struct mf_history *history, char **path,
                                   struct mf_error *error) {
    char *made = NULL, *folder = NULL;
    enum mf_status status = MF_OK;
    *path = NULL;
    if (asprintf(&folder, "%s/step-%08lld", job->checkpoint_dir, (long long)history->steps) < 0 ||
        asprintf(&made, "%s.partial", folder) < 0)
        status = out_of_memory(error);
    if (status == MF_OK)
        status = mf_directory_create(job->checkpoint_dir, 0755, error);
    if (status == MF_OK)
        status = write_folder(job, history, made, folder, error);
    free(made);
    if (status == MF_OK)
        *path = folder;
    else
        free(folder);
    return status;
}

/* ---- keeping few
 * ----------------------------------------------------------------------------------------------- */

/* The step of a complete checkpoint's name; 0: the name of something else. */
static int64_t step_of(const char *name) {
    char back[64];
    const int64_t step = strncmp(name, "step-", 5) == 0 ? strtoll(name + 5, NULL, 10) : 0;
    snprintf(back, sizeof back, "step-%08lld", (long long)step);
    return step > 0 && strcmp(back, name) == 0 ? step : 0;
}

static int by_step(const struct dirent **left, const struct dirent **right) {
    const int64_t one = step_of((*left)->d_name), other = step_of((*right)->d_name);
    return one != other ? (one < other ? -1 : 1) : strcmp((*left)->d_name, (*right)->d_name);
}

static bool ends_with(const char *name, const char *ending) {
    const size_t length = strlen(name), end = strlen(ending);
    return length > end && !strcmp(name + length - end, ending);
}

/* Another name first: a crash leaves no half checkpoint under a checkpoint's name. */
static enum mf_status remove_checkpoint(const char *folder, const char *name, bool complete,
                                        struct mf_error *error) {
    char *path = mf_path_join(folder, name), *removed = NULL;
    enum mf_status status = MF_OK;
    if (!path || asprintf(&removed, "%s%s", path, complete ? removed_ending : "") < 0)
        status = out_of_memory(error);
    if (status == MF_OK && complete && rename(path, removed) != 0)
        status = mf_error_errno(error, errno, "%s", path);
    if (status == MF_OK && complete)
        status = mf_directory_sync(folder, error);
    if (status == MF_OK)
        status = mf_tree_remove(removed, error);
    free(path);
    free(removed);
    return status;
}

enum mf_status mf_checkpoint_limit(const char *folder, int64_t newest, int64_t limit,
                                   struct mf_error *error) {
    struct dirent **entry = NULL;
    enum mf_status status = MF_OK;
    int64_t kept = 0;
    const int count = scandir(folder, &entry, NULL, by_step);
    if (count < 0)
        return mf_error_errno(error, errno, "%s", folder);
    for (int i = count - 1; i >= 0; i--) {
        const char *name = entry[i]->d_name;
        const int64_t step = step_of(name);
        if (status == MF_OK && step && step <= newest && ++kept > limit)
            status = remove_checkpoint(folder, name, true, error);
        else if (status == MF_OK && !strncmp(name, "step-", 5) && ends_with(name, removed_ending))
            status = remove_checkpoint(folder, name, false, error);
        free(entry[i]);
    }
    free(entry);
    return status;
}

/* ---- reading
 * ----------------------------------------------------------------------------------------------- */

/* Whatever is wrong inside a checkpoint is the checkpoint's fault; memory and cancellation are not. */
static enum mf_status blame(enum mf_status status, const char *folder, struct mf_error *error) {
    if (status == MF_OK || status == MF_ERROR_OUT_OF_MEMORY || status == MF_ERROR_BAD_CHECKPOINT ||
        status == MF_ERROR_CHECKPOINT_PLAN)
        return status;
    struct mf_error reason = *error;
    return mf_error_set(error, MF_ERROR_BAD_CHECKPOINT, "%s cannot be resumed from: %s", folder,
                        reason.message);
}

static enum mf_status check_digest(json_t *meta, const char *path, struct mf_error *error) {
    char digest[MF_SHA256_TEXT_BYTES], wanted[MF_SHA256_TEXT_BYTES];
    const char *text = NULL;
    enum mf_status status = mf_json_string(meta, path, "sha256", 64, &text, error);
    if (status != MF_OK)
        return status;
    snprintf(wanted, sizeof wanted, "%s", text); /* `text` lies in the member that goes */
    status = digest_meta(meta, digest, error);
    if (status == MF_OK && strcmp(digest, wanted) != 0)
        status = mf_error_set(error, MF_ERROR_BAD_CHECKPOINT,
                              "%s: the file is damaged: its sha256 is not the "
                              "one that it holds",
                              path);
    return status;
}

/* One member that names what the checkpoint belongs to. */
static enum mf_status check_owner(const json_t *meta, const char *path, const char *key, const char *own,
                                  enum mf_status code, const char *what, struct mf_error *error) {
    const char *text = NULL;
    enum mf_status status = mf_json_string(meta, path, key, 64, &text, error);
    if (status == MF_OK && strcmp(text, own) != 0)
        status = mf_error_set(error, code, "%s: %s (%s is %s here, %s there)", path, what, key, own, text);
    return status;
}

static enum mf_status check_owners(const struct mf_job *job, const json_t *meta, const char *path,
                                   struct mf_error *error) {
    char request[MF_SHA256_TEXT_BYTES];
    int64_t version = 0;
    enum mf_status status = mf_json_integer(meta, path, "format_version", FORMAT, FORMAT, &version, error);
    if (status == MF_OK)
        status = mf_request_hash(&job->request, request, error);
    if (status == MF_OK)
        status = check_owner(meta, path, "request_sha256", request, MF_ERROR_BAD_CHECKPOINT,
                             "the checkpoint belongs to another request", error);
    if (status == MF_OK)
        status = check_owner(meta, path, "dataset_sha256", job->dataset.sha256, MF_ERROR_BAD_CHECKPOINT,
                             "the dataset has changed since the checkpoint was written", error);
    if (status == MF_OK && job->validation.path)
        status = check_owner(meta, path, "validation_sha256", job->validation.sha256, MF_ERROR_BAD_CHECKPOINT,
                             "the validation_dataset has changed since the checkpoint was written", error);
    return status;
}

static enum mf_status check_meta(const struct mf_job *job, const json_t *meta, const char *path,
                                 struct mf_error *error) {
    json_t *files = NULL;
    enum mf_status status = check_owners(job, meta, path, error);
    if (status == MF_OK)
        status = mf_json_array(meta, path, "model_files", 100000, &files, error);
    if (status == MF_OK)
        status = mf_model_files_compare(job, files, path, error);
    return status;
}

static enum mf_status read_part(const struct mf_safetensors *file, const char *path, const struct part *part,
                                struct mf_error *error) {
    const struct mf_stored_tensor *stored = mf_safetensors_find(file, part->entry.name);
    bool same = stored && stored->dtype == part->entry.dtype && stored->rank == part->entry.rank &&
                stored->bytes == part->bytes;
    for (int i = 0; same && i < part->entry.rank; i++)
        same = stored->dim[i] == part->entry.dim[i];
    if (!same)
        return mf_error_set(error, MF_ERROR_BAD_CHECKPOINT, "%s: '%s' is missing or has another shape", path,
                            part->entry.name);
    memcpy(part->data, stored->data, stored->bytes);
    return MF_OK;
}

static enum mf_status read_state(const struct mf_job *job, const json_t *meta, const char *where,
                                 const char *path, struct mf_history *history, struct mf_error *error) {
    char digest[MF_SHA256_TEXT_BYTES];
    const char *wanted = NULL;
    struct part part[PARTS];
    struct mf_safetensors *file = NULL;
    if (history->evaluations && mf_best_bytes(job) && !(history->best = malloc(mf_best_bytes(job))))
        return out_of_memory(error);
    const size_t parts = find_parts(job, history, part);
    enum mf_status status = mf_json_string(meta, where, "state_sha256", 64, &wanted, error);
    if (status == MF_OK)
        status = mf_file_sha256(path, digest, NULL, error);
    if (status == MF_OK && strcmp(digest, wanted) != 0)
        status = mf_error_set(error, MF_ERROR_BAD_CHECKPOINT,
                              "%s: the file is damaged: its sha256 is not the one in checkpoint.json", path);
    if (status == MF_OK)
        status = mf_safetensors_open_file(path, &file, error);
    for (size_t i = 0; status == MF_OK && i < parts; i++)
        status = read_part(file, path, &part[i], error);
    mf_safetensors_close(file);
    return status;
}

static enum mf_status read_evaluations(const json_t *meta, const char *where, struct mf_history *history,
                                       struct mf_error *error) {
    json_t *list = NULL, *one;
    size_t i;
    enum mf_status status =
        mf_json_array(meta, where, "evaluations", (size_t)history->evaluation_room, &list, error);
    if (status != MF_OK)
        return status;
    json_array_foreach(list, i, one) {
        struct mf_evaluation_record *record = &history->evaluation[history->evaluations];
        status = mf_json_integer(one, where, "step", 1, history->steps, &record->step, error);
        if (status == MF_OK)
            status = mf_json_number(one, where, "loss", -1e300, 1e300, &record->loss, error);
        if (status != MF_OK)
            return status;
        record->perplexity = exp(record->loss);
        history->evaluations++;
    }
    return MF_OK;
}

static enum mf_status read_sums(const json_t *meta, const char *where, struct mf_history *history,
                                struct mf_error *error) {
    json_t *totals = NULL, *interval = NULL;
    struct mf_interval *since = &history->interval;
    enum mf_status status = mf_json_object(meta, where, "totals", &totals, error);
    if (status == MF_OK)
        status =
            mf_json_integer(totals, where, "trained_tokens", 0, INT64_MAX, &history->trained_tokens, error);
    if (status == MF_OK)
        status =
            mf_json_integer(totals, where, "trained_labels", 0, INT64_MAX, &history->trained_labels, error);
    if (status == MF_OK)
        status = mf_json_number(totals, where, "train_seconds", 0, 1e300, &history->train_seconds, error);
    if (status == MF_OK)
        status = mf_json_number(totals, where, "train_loss", -1e300, 1e300, &history->train_loss, error);
    if (status == MF_OK)
        status = mf_json_object(meta, where, "interval", &interval, error);
    if (status == MF_OK)
        status = mf_json_integer(interval, where, "steps", 0, INT64_MAX, &since->steps, error);
    if (status == MF_OK)
        status = mf_json_integer(interval, where, "tokens", 0, INT64_MAX, &since->tokens, error);
    if (status == MF_OK)
        status = mf_json_number(interval, where, "loss", -1e300, 1e300, &since->loss, error);
    if (status == MF_OK)
        status = mf_json_number(interval, where, "seconds", 0, 1e300, &since->seconds, error);
    return status;
}

static enum mf_status read_position(struct mf_job *job, const json_t *meta, const char *where,
                                    struct mf_history *history, struct mf_error *error) {
    json_t *sampler = NULL;
    int64_t epoch = 0, cursor = 0;
    enum mf_status status = mf_json_integer(meta, where, "step", 1, job->total_steps, &history->steps, error);
    if (status == MF_OK)
        status = mf_json_object(meta, where, "sampler", &sampler, error);
    if (status == MF_OK)
        status = mf_json_integer(sampler, where, "epoch", 0, UINT32_MAX - 1, &epoch, error);
    if (status == MF_OK)
        status = mf_json_integer(sampler, where, "cursor", 0, (int64_t)job->sampler.count, &cursor, error);
    if (status == MF_OK)
        mf_sampler_seek(&job->sampler, (uint32_t)epoch, (size_t)cursor);
    return status;
}

enum mf_status mf_checkpoint_compare_plan(struct mf_job *job, struct mf_error *error) {
    const char *folder = job->resume_from, *own = job->runtime.plan->record_sha256, *there = NULL,
               *earlier = NULL;
    char *path = mf_path_join(folder, meta_name);
    json_t *meta = NULL;
    enum mf_status status = path ? mf_json_read_file(path, META_BYTES, &meta, error) : out_of_memory(error);
    if (status == MF_OK)
        status = check_digest(meta, path, error);
    if (status == MF_OK)
        status = check_owners(job, meta, path, error);
    if (status == MF_OK)
        status = mf_json_string(meta, path, "numeric_plan_sha256", 64, &there, error);
    if (status == MF_OK)
        status = mf_json_optional_string(meta, path, "resumed_plan_sha256", 64, &earlier, error);
    if (status == MF_OK && job->request.exact_resume)
        status =
            check_owner(meta, path, "numeric_plan_sha256", own, MF_ERROR_CHECKPOINT_PLAN,
                        "an exact resume needs the kind of device, the thread count and the version that "
                        "wrote the checkpoint; exact_resume false goes on without them",
                        error);
    if (status == MF_OK) {
        const bool same = strcmp(there, own) == 0;
        snprintf(job->resumed_plan, sizeof job->resumed_plan, "%s", earlier ? earlier : same ? "" : there);
        if (!same)
            mf_report_log(
                job->report, "warning",
                "goes on from a checkpoint of another device, thread count or version: the result is not "
                "that of an uninterrupted run (numeric_plan_sha256 is %s here, %s there)",
                own, there);
    }
    json_decref(meta);
    free(path);
    return blame(status, folder, error);
}

enum mf_status mf_checkpoint_read(const char *folder, struct mf_job *job, struct mf_history *history,
                                  struct mf_error *error) {
    char *path = mf_path_join(folder, meta_name), *state = mf_path_join(folder, state_name);
    json_t *meta = NULL, *blocks = NULL;
    enum mf_status status =
        path && state ? mf_json_read_file(path, META_BYTES, &meta, error) : out_of_memory(error);
    if (status == MF_OK)
        status = check_digest(meta, path, error);
    if (status == MF_OK)
        status = check_meta(job, meta, path, error);
    if (status == MF_OK)
        status = read_position(job, meta, path, history, error);
    if (status == MF_OK)
        status = mf_json_array(meta, path, "steps", 1 << 20, &blocks, error);
    if (status == MF_OK)
        status = mf_steps_read(history, folder, blocks, path, error);
    if (status == MF_OK)
        status = read_evaluations(meta, path, history, error);
    if (status == MF_OK)
        status = read_sums(meta, path, history, error);
    if (status == MF_OK)
        status = read_state(job, meta, path, state, history, error);
    if (status == MF_OK)
        mf_executor_round_copies(job->runtime.executor);
    json_decref(meta);
    free(path);
    free(state);
    return blame(status, folder, error);
}
