#include "worker/trainer/external_input.h"

#include "common/files.h"
#include "common/json.h"
#include "providers/locate.h"
#include "providers/tokenizer/tokenizer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NO_LIMIT = 1 << 20, CHECKPOINT_DEPTH = 8 };

static enum mf_status no_memory(struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
}

/* ---- files for another user ---- */

static enum mf_status give(const struct mf_external *program, const char *path, struct mf_error *error) {
    if (program->switches && lchown(path, program->user.uid, program->user.gid))
        return mf_error_errno(error, errno, "cannot give %s to the provider's user", path);
    return MF_OK;
}

static enum mf_status make_folder(const struct mf_external *program, const char *path,
                                  struct mf_error *error) {
    enum mf_status status = mf_directory_create(path, 0700, error);
    return status ? status : give(program, path, error);
}

/* The folder of a worker's attempt lets nobody in but the worker's user: the program's group goes through,
 * without listing it. Alone, the trainer was told where to write, and leaves the folders above as they are.
 */
static enum mf_status open_attempt(const struct mf_job *job, const struct mf_external *program,
                                   struct mf_error *error) {
    struct stat about;
    if (!program->switches || !job->download_dir)
        return MF_OK;
    char *attempt = realpath(job->download_dir, NULL);
    if (!attempt)
        return mf_error_errno(error, errno, "cannot resolve %s", job->download_dir);
    *strrchr(attempt, '/') = 0;
    enum mf_status status = MF_OK;
    if (stat(attempt, &about) || chown(attempt, (uid_t)-1, program->user.gid) ||
        chmod(attempt, (about.st_mode & 07777) | S_IXGRP))
        status = mf_error_errno(error, errno, "cannot open %s to the provider's user", attempt);
    free(attempt);
    return status;
}

static enum mf_status copy_file(const char *from, const char *to, struct mf_error *error) {
    const int source = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    const int target = source < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ssize_t n = target < 0 ? -1 : 1;
    while (n > 0)
        n = sendfile(target, source, NULL, 1 << 30);
    enum mf_status status = n < 0 ? mf_error_errno(error, errno, "cannot copy %s", from) : MF_OK;
    if (source >= 0)
        close(source);
    if (target >= 0)
        close(target);
    return status;
}

static enum mf_status copy_tree(const struct mf_external *program, const char *from, const char *to,
                                int depth, struct mf_error *error);

static enum mf_status copy_entry(const struct mf_external *program, const char *from, const char *to,
                                 int depth, struct mf_error *error) {
    struct stat about;
    if (lstat(from, &about))
        return mf_error_errno(error, errno, "cannot copy %s", from);
    if (S_ISDIR(about.st_mode) && depth > 1)
        return copy_tree(program, from, to, depth - 1, error);
    if (!S_ISREG(about.st_mode))
        return mf_error_set(error, MF_ERROR_IO, "cannot copy %s: %s", from,
                            S_ISDIR(about.st_mode) ? "it lies too deep" : "it is no file");
    enum mf_status status = copy_file(from, to, error);
    return status ? status : give(program, to, error);
}

/* A checkpoint lies in the storage, where the program's user may not look. */
static enum mf_status copy_tree(const struct mf_external *program, const char *from, const char *to,
                                int depth, struct mf_error *error) {
    struct dirent **entry = NULL;
    enum mf_status status = make_folder(program, to, error);
    const int count = status == MF_OK ? scandir(from, &entry, NULL, NULL) : 0;
    if (count < 0)
        status = mf_error_errno(error, errno, "cannot copy %s", from);
    for (int i = 0; i < count; i++) {
        const char *name = entry[i]->d_name;
        if (status == MF_OK && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            char *source = mf_path_join(from, name), *target = mf_path_join(to, name);
            status = source && target ? copy_entry(program, source, target, depth, error) : no_memory(error);
            free(source);
            free(target);
        }
        free(entry[i]);
    }
    free(entry);
    return status;
}

/* ---- rows ---- */

/* A file in the program's folder; *path is freed by the caller. */
static enum mf_status open_file(const struct mf_external_input *input, const char *name, char **path,
                                FILE **file, struct mf_error *error) {
    *path = mf_path_join(input->folder, name);
    *file = *path ? fopen(*path, "wxe") : NULL;
    return *file ? MF_OK : mf_error_errno(error, *path ? errno : ENOMEM, "cannot write %s", name);
}

static enum mf_status close_file(const struct mf_external *program, FILE *file, const char *path,
                                 struct mf_error *error) {
    const bool failed = ferror(file) != 0;
    if (fclose(file) || failed)
        return mf_error_errno(error, errno ? errno : EIO, "cannot write %s", path);
    return give(program, path, error);
}

static enum mf_status write_rows(const struct mf_external *program, const struct mf_external_input *input,
                                 const struct mf_dataset *dataset, const char *name, char **path,
                                 struct mf_error *error) {
    FILE *file;
    enum mf_status status = open_file(input, name, path, &file, error);
    if (status != MF_OK)
        return status;
    for (size_t i = 0; i < dataset->rows && status == MF_OK; i++) {
        const struct mf_row *row = &dataset->row[i];
        json_t *line =
            row->text ? json_pack("{s:s}", "text", row->text) : json_pack("{s:O}", "messages", row->messages);
        if (!line || json_dumpf(line, file, JSON_COMPACT) || fputc('\n', file) < 0)
            status = mf_error_errno(error, errno ? errno : ENOMEM, "cannot write %s", *path);
        json_decref(line);
    }
    enum mf_status closed = close_file(program, file, *path, status == MF_OK ? error : NULL);
    return status != MF_OK ? status : closed;
}

static void write_numbers(FILE *file, const int32_t *number, int32_t count) {
    for (int32_t i = 0; i < count; i++)
        fprintf(file, i ? ",%d" : "%d", number[i]);
}

static enum mf_status write_samples(const struct mf_external *program, const struct mf_external_input *input,
                                    const struct mf_samples *samples, const size_t *index, size_t count,
                                    const char *name, char **path, struct mf_error *error) {
    FILE *file;
    enum mf_status status = open_file(input, name, path, &file, error);
    if (status != MF_OK)
        return status;
    for (size_t i = 0; i < count; i++) {
        const struct mf_sample *sample = &samples->sample[index[i]];
        fputs("{\"input_ids\":[", file);
        write_numbers(file, sample->token, sample->length);
        fputs("],\"labels\":[", file);
        write_numbers(file, sample->label, sample->length);
        fputs("]}\n", file);
    }
    return close_file(program, file, *path, error);
}

/* ---- the model ---- */

struct base {
    char *allowed;
    struct mf_model_location location;
    char architecture[64]; /* model_type */
    int32_t positions, eos;
};

static enum mf_status read_config(struct base *base, struct mf_error *error) {
    char *path = mf_path_join(base->location.folder, "config.json");
    json_t *config = NULL;
    enum mf_status status = path ? mf_json_read_file(path, 0, &config, error) : no_memory(error);
    if (status != MF_OK)
        goto done;
    const json_t *type = json_object_get(config, "model_type"),
                 *eos = json_object_get(config, "eos_token_id"),
                 *positions = json_object_get(config, "max_position_embeddings");
    if (!json_is_string(type)) {
        status = mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: model_type is no text", path);
        goto done;
    }
    snprintf(base->architecture, sizeof base->architecture, "%s", json_string_value(type));
    if (json_is_array(eos))
        eos = json_array_get(eos, 0);
    base->eos = json_is_integer(eos) ? (int32_t)json_integer_value(eos) : -1;
    const json_int_t most = json_is_integer(positions) ? json_integer_value(positions) : NO_LIMIT;
    base->positions = most > 0 && most < NO_LIMIT ? (int32_t)most : NO_LIMIT;
done:
    json_decref(config);
    free(path);
    return status;
}

static enum mf_status find_model(struct mf_job *job, struct base *base, struct mf_error *error) {
    struct mf_model_reference reference = {.size = sizeof reference, .revision = job->request.revision};
    enum mf_status status = mf_access_model(&job->access, job->request.model_name, &base->allowed, error);
    reference.model_id = base->allowed;
    if (status == MF_OK)
        status = mf_model_check(&job->context, &reference, error);
    if (status == MF_OK)
        status = mf_model_locate(&job->context, &reference, &base->location, error);
    return status ? status : read_config(base, error);
}

static void free_base(struct base *base) {
    mf_model_location_free(&base->location);
    free(base->allowed);
}

/* ---- the request ---- */

static enum mf_status put_text(json_t *object, const char *name, const char *value, struct mf_error *error) {
    return json_object_set_new(object, name, value ? json_string(value) : json_null()) ? no_memory(error)
                                                                                       : MF_OK;
}

/* What the program may know of the worker's "run" object. */
static json_t *run_for_program(const struct mf_job *job, json_t *changed) {
    static const char *const kept[] = {"job_id", "attempt", "attempt_id", "created_at"};
    json_t *run = json_object(), *names = json_array(), *value;
    const char *name;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if ((value = json_object_get(job->run, kept[i])))
            json_object_set(run, kept[i], value);
    json_object_foreach(changed, name, value) json_array_append_new(names, json_string(name));
    json_object_set_new(run, "changed", names);
    return run;
}

static enum mf_status write_request(const struct mf_external *program, const struct mf_external_input *input,
                                    const json_t *request, struct mf_error *error) {
    char *text = json_dumps(request, JSON_INDENT(2) | JSON_SORT_KEYS);
    enum mf_status status =
        text ? mf_file_write_atomic(input->request_path, text, strlen(text), 0600, error) : no_memory(error);
    free(text);
    return status ? status : give(program, input->request_path, error);
}

/* Everything but the request's own fields is put in place by now. */
struct layout {
    struct mf_job *job;
    const struct mf_external *program;
    struct mf_external_input *input;
    struct base base;
    json_t *request, *run; /* run is borrowed from request */
};

static enum mf_status begin_request(struct layout *layout, struct mf_error *error) {
    json_t *changed = NULL;
    enum mf_status status = mf_request_to_json(&layout->job->request, false, &layout->request, error);
    if (status == MF_OK)
        status = mf_request_to_json(&layout->job->request, true, &changed, error);
    if (status == MF_OK)
        json_object_set_new(layout->request, "run", run_for_program(layout->job, changed));
    json_decref(changed);
    layout->run = json_object_get(layout->request, "run");
    return status || layout->run ? status : no_memory(error);
}

static enum mf_status lay_out_model(struct layout *layout, struct mf_error *error) {
    struct mf_job *job = layout->job;
    const char *adapter = job->request.adapter_name_or_path;
    char *allowed = NULL;
    enum mf_status status = put_text(layout->request, "model_name", layout->base.location.folder, error);
    if (status == MF_OK)
        status = put_text(layout->request, "revision", NULL, error);
    if (status != MF_OK || !adapter)
        return status;
    status = mf_access_model(&job->access, !strncmp(adapter, "file://", 7) ? adapter + 7 : adapter, &allowed,
                             error);
    if (status == MF_OK)
        status = put_text(layout->request, "adapter_name_or_path", allowed, error);
    free(allowed);
    return status ? mf_error_prefix(error, "adapter_name_or_path") : status;
}

static enum mf_status lay_out_rows(struct layout *layout, struct mf_error *error) {
    struct mf_job *job = layout->job;
    struct mf_tokenizer *tokenizer = NULL;
    const char *names[] = {"dataset", "validation_dataset", "train_samples", "eval_samples"};
    const struct mf_dataset *datasets[] = {&job->dataset, job->validation.path ? &job->validation : NULL};
    char *path = NULL;
    enum mf_status status = mf_tokenizer_open(layout->base.location.folder, &tokenizer, error);
    if (status == MF_OK)
        status = mf_job_read_samples(job, tokenizer, layout->base.positions, layout->base.eos, error);
    mf_tokenizer_close(tokenizer);
    if (status == MF_OK)
        status = mf_job_split(job, error);
    for (int i = 0; i < 2 && status == MF_OK; i++) {
        if (!datasets[i])
            continue;
        status = write_rows(layout->program, layout->input, datasets[i],
                            i ? "validation.jsonl" : "rows.jsonl", &path, error);
        if (status == MF_OK)
            status = put_text(layout->request, names[i], path, error);
        free(path);
        path = NULL;
    }
    for (int i = 0; i < 2 && status == MF_OK; i++) {
        const size_t count = i ? job->split.eval_count : job->split.train_count;
        if (!count)
            continue;
        status = write_samples(layout->program, layout->input, i ? job->eval_samples : &job->samples,
                               i ? job->split.eval : job->split.train, count,
                               i ? "eval-samples.jsonl" : "train-samples.jsonl", &path, error);
        if (status == MF_OK)
            status = put_text(layout->run, names[2 + i], path, error);
        free(path);
        path = NULL;
    }
    layout->input->dropped_rows = job->samples.dropped_rows + job->validation_samples.dropped_rows;
    layout->input->truncated_rows = job->samples.truncated_rows + job->validation_samples.truncated_rows;
    return status;
}

static enum mf_status add_place(struct layout *layout, const char *name, const char *variable,
                                const char *path, struct mf_error *error) {
    enum mf_status status = put_text(layout->run, name, path, error);
    return status ? status : put_text(layout->input->environment, variable, path, error);
}

/* Whole names: the program runs in a folder of its own. */
static enum mf_status add_folder(struct layout *layout, const char *name, const char *variable,
                                 const char *path, struct mf_error *error) {
    enum mf_status status = make_folder(layout->program, path, error);
    char *real = status == MF_OK ? realpath(path, NULL) : NULL;
    if (status == MF_OK)
        status = real ? add_place(layout, name, variable, real, error)
                      : mf_error_errno(error, errno, "cannot resolve %s", path);
    free(real);
    return status;
}

static enum mf_status lay_out_folders(struct layout *layout, struct mf_error *error) {
    struct mf_job *job = layout->job;
    struct mf_external_input *input = layout->input;
    enum mf_status status = put_text(input->environment, "MODELFORGE_PROTOCOL", "1", error);
    char *copy = mf_path_join(input->folder, "checkpoint");
    if (status == MF_OK)
        status = add_folder(layout, "output_dir", "MODELFORGE_OUTPUT_DIR", job->output_dir, error);
    if (status == MF_OK)
        status =
            add_folder(layout, "checkpoint_dir", "MODELFORGE_CHECKPOINT_DIR", job->checkpoint_dir, error);
    if (status == MF_OK)
        status = copy && input->work_folder ? make_folder(layout->program, input->work_folder, error)
                                            : no_memory(error);
    if (status == MF_OK && copy && job->resume_from) {
        const bool own = !layout->program->switches;
        if (!own)
            status = copy_tree(layout->program, job->resume_from, copy, CHECKPOINT_DEPTH, error);
        if (status == MF_OK)
            status = add_place(layout, "resume_from", "MODELFORGE_RESUME_FROM", own ? job->resume_from : copy,
                               error);
    }
    free(copy);
    return status;
}

/* FOLDER/program, empty. What an earlier run left there is gone. */
static enum mf_status begin_folder(struct layout *layout, struct mf_error *error) {
    struct mf_job *job = layout->job;
    struct mf_external_input *input = layout->input;
    char *parent = realpath(job->download_dir ? job->download_dir : job->output_dir, NULL);
    input->folder = parent ? mf_path_join(parent, "program") : NULL;
    free(parent);
    input->request_path = input->folder ? mf_path_join(input->folder, "request.json") : NULL;
    input->work_folder = input->folder ? mf_path_join(input->folder, "work") : NULL;
    input->environment = json_object();
    if (!input->request_path || !input->work_folder || !input->environment)
        return no_memory(error);
    enum mf_status status = mf_tree_remove(input->folder, error);
    return status ? status : make_folder(layout->program, input->folder, error);
}

enum mf_status mf_external_input_make(struct mf_job *job, const struct mf_external *program,
                                      const json_t *answer, struct mf_external_input *input,
                                      struct mf_error *error) {
    struct layout layout = {.job = job, .program = program, .input = input};
    const char *places[] = {job->output_dir, job->download_dir};
    enum mf_status status = MF_OK;
    *input = (struct mf_external_input){0};
    for (size_t i = 0; i < 2 && status == MF_OK; i++)
        if (places[i])
            status = mf_directory_create(places[i], 0755, error);
    if (status == MF_OK)
        status = open_attempt(job, program, error);
    if (status == MF_OK)
        status = find_model(job, &layout.base, error);
    if (status == MF_OK)
        status = mf_external_require(program, answer, layout.base.architecture, job->request.task,
                                     job->request.strategy, error);
    static enum mf_status (*const stages[])(struct layout *, struct mf_error *) = {
        begin_folder, begin_request, lay_out_model, lay_out_rows, lay_out_folders};
    for (size_t i = 0; i < sizeof stages / sizeof *stages && status == MF_OK; i++)
        status = stages[i](&layout, error);
    if (status == MF_OK)
        status = write_request(program, input, layout.request, error);
    if (status == MF_OK)
        memcpy(job->runtime.location.commit, layout.base.location.commit, sizeof layout.base.location.commit);
    json_decref(layout.request);
    free_base(&layout.base);
    if (status != MF_OK)
        mf_external_input_close(input);
    return status;
}

void mf_external_input_close(struct mf_external_input *input) {
    struct mf_error error;
    if (input->folder)
        (void)mf_tree_remove(input->folder, &error);
    json_decref(input->environment);
    free(input->folder);
    free(input->request_path);
    free(input->work_folder);
    *input = (struct mf_external_input){0};
}
