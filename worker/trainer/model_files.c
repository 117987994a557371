#include "worker/trainer/model_files.h"

#include "common/files.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool belongs_to_model(const char *name) {
    static const char *const endings[] = {".json", ".safetensors", ".jinja", ".model", ".txt"};
    const size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (length > strlen(endings[i]) && !strcmp(name + length - strlen(endings[i]), endings[i]))
            return true;
    return false;
}

static int in_order(const struct dirent **left, const struct dirent **right) {
    return strcmp((*left)->d_name, (*right)->d_name);
}

/* Folders, pipes and the like are no part of a model, whatever they are called. */
static bool is_file(const char *path) {
    struct stat information;
    return stat(path, &information) == 0 && S_ISREG(information.st_mode);
}

static enum mf_status digest_file(struct mf_job *job, const char *folder, const char *name,
                                  struct mf_error *error) {
    char *path = mf_path_join(folder, name), digest[MF_SHA256_TEXT_BYTES];
    uint64_t bytes = 0;
    enum mf_status status = MF_OK;
    if (!path)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    if (belongs_to_model(name) && is_file(path)) {
        status = mf_report_check(job->report, error);
        if (status == MF_OK)
            status = mf_file_sha256(path, digest, &bytes, error);
        if (status == MF_OK &&
            json_array_append_new(job->model_files, json_pack("{s:s,s:I,s:s}", "name", name, "size_bytes",
                                                              (json_int_t)bytes, "sha256", digest)) != 0)
            status = mf_error_set(error, MF_ERROR_INTERNAL, "%s: the name is not UTF-8", path);
    }
    free(path);
    return status;
}

enum mf_status mf_model_files_digest(struct mf_job *job, struct mf_error *error) {
    const char *folder = mf_model_folder(job->runtime.model);
    struct dirent **entry = NULL;
    enum mf_status status = MF_OK;
    if (!(job->model_files = json_array()))
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    const int count = scandir(folder, &entry, NULL, in_order);
    if (count < 0)
        return mf_error_errno(error, errno, "model folder %s", folder);
    for (int i = 0; i < count; i++) {
        if (status == MF_OK)
            status = digest_file(job, folder, entry[i]->d_name, error);
        mf_report_progress(job->report, MF_PHASE_PLAN, 1);
        free(entry[i]);
    }
    free(entry);
    return status;
}

/* The member "sha256" of the file of that name; NULL without one. */
static const char *digest_of(const json_t *files, const char *name) {
    const json_t *file;
    size_t i;
    json_array_foreach(files, i, file) {
        const char *own = json_string_value(json_object_get(file, "name"));
        if (own && !strcmp(own, name))
            return json_string_value(json_object_get(file, "sha256"));
    }
    return NULL;
}

enum mf_status mf_model_files_compare(const struct mf_job *job, const json_t *there, const char *where,
                                      struct mf_error *error) {
    const json_t *const lists[] = {job->model_files, there};
    for (int list = 0; list < 2; list++) {
        const json_t *file;
        size_t i;
        json_array_foreach(lists[list], i, file) {
            const char *name = json_string_value(json_object_get(file, "name"));
            const char *own = name ? digest_of(job->model_files, name) : NULL;
            const char *other = name ? digest_of(there, name) : NULL;
            if (own && other && !strcmp(own, other))
                continue;
            return mf_error_set(error, MF_ERROR_BAD_CHECKPOINT,
                                "%s: the base model has changed since the checkpoint was written: %s/%s is "
                                "%s (sha256 %s here, "
                                "%s there)",
                                where, mf_model_folder(job->runtime.model), name ? name : "?",
                                !own     ? "gone"
                                : !other ? "new"
                                         : "another file",
                                own ? own : "none", other ? other : "none");
        }
    }
    return MF_OK;
}
