#include "providers/folder.h"

#include "common/files.h"
#include "common/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INDEX_FILE_BYTES = 64 << 20, COPIED_BYTES = 1 << 30 };

static bool is_gguf(const char *path) {
    char magic[4] = "";
    FILE *file = fopen(path, "rbe");
    size_t n = file ? fread(magic, 1, sizeof magic, file) : 0;
    if (file)
        (void)fclose(file);
    return n == sizeof magic && !memcmp(magic, "GGUF", sizeof magic);
}

static enum mf_status not_a_folder(const char *name, const struct stat *info, struct mf_error *error) {
    size_t length = strlen(name);
    if (info && length > 5 && !strcmp(name + length - 5, ".gguf") && !is_gguf(name))
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                            "model_name: %s cannot be read, or does not begin as a GGUF file does", name);
    if (info && length > 5 && !strcmp(name + length - 5, ".gguf"))
        return mf_error_set(
            error, MF_ERROR_MODEL_NOT_FOUND,
            "model_name: %s is a GGUF file; turn it into a model folder first: modelforge-trainer "
            "convert %s FOLDER",
            name, name);
    if (info)
        return mf_error_set(error, MF_ERROR_MODEL_NOT_FOUND, "model_name: %s is not a folder", name);
    return mf_error_set(
        error, MF_ERROR_MODEL_NOT_FOUND,
        "model_name: there is no folder '%s'; give the path of a Hugging Face model folder on "
        "this machine, or the id of a model on a hub: hf://organisation/name",
        name);
}

static enum mf_status check_file(const char *folder, const char *name, const char *advice,
                                 struct mf_error *error) {
    char *path = mf_path_join(folder, name);
    enum mf_status status = MF_OK;
    struct stat info;
    if (!path)
        return mf_error_errno(error, ENOMEM, "%s", folder);
    if (stat(path, &info) || !S_ISREG(info.st_mode))
        status =
            mf_error_set(error, MF_ERROR_MODEL_INCOMPLETE, "%s: %s is missing; %s", folder, name, advice);
    else if (access(path, R_OK))
        status = mf_error_set(error, MF_ERROR_MODEL_INCOMPLETE,
                              "%s: %s may not be read by this user; change its permissions", folder, name);
    free(path);
    return status;
}

static enum mf_status check_shards(const char *folder, const char *index_path, struct mf_error *error) {
    json_t *index = NULL;
    struct mf_error cause;
    enum mf_status status = MF_OK;
    if (mf_json_read_file(index_path, INDEX_FILE_BYTES, &index, &cause))
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s", cause.message);
    const char *name;
    json_t *file;
    json_object_foreach(json_object_get(index, "weight_map"), name, file) {
        const char *text = json_string_value(file);
        if (!text || strchr(text, '/')) {
            status =
                mf_error_set(error, MF_ERROR_BAD_WEIGHTS,
                             "%s: weight_map: %s: not the name of a file in this folder", index_path, name);
        } else {
            status = check_file(folder, text, "download the model completely", error);
        }
        if (status)
            break;
    }
    json_decref(index);
    return status;
}

static enum mf_status check_weight_files(const char *folder, struct mf_error *error) {
    char *single = mf_path_join(folder, "model.safetensors");
    char *index = mf_path_join(folder, "model.safetensors.index.json");
    char *pickle = mf_path_join(folder, "pytorch_model.bin");
    enum mf_status status;
    if (!single || !index || !pickle)
        status = mf_error_errno(error, ENOMEM, "%s", folder);
    else if (!mf_path_exists(single) && mf_path_exists(index))
        status = check_shards(folder, index, error);
    else
        status =
            check_file(folder, "model.safetensors",
                       mf_path_exists(pickle)
                           ? "pytorch_model.bin is not read, because loading a pickle runs code; save the "
                             "model again with save_pretrained"
                           : "download the model completely",
                       error);
    free(pickle);
    free(index);
    free(single);
    return status;
}

enum mf_status mf_folder_check(const struct mf_model_reference *reference, struct mf_error *error) {
    const char *folder = reference->model_id;
    struct stat info;
    if (stat(folder, &info)) {
        if (errno == EACCES)
            return mf_error_set(error, MF_ERROR_MODEL_NOT_FOUND,
                                "model_name: %s may not be read by this user; change its permissions",
                                folder);
        return not_a_folder(folder, NULL, error);
    }
    if (!S_ISDIR(info.st_mode))
        return not_a_folder(folder, &info, error);
    if (access(folder, R_OK | X_OK))
        return mf_error_set(error, MF_ERROR_MODEL_NOT_FOUND,
                            "model_name: %s may not be read by this user; change its permissions", folder);
    if (reference->revision)
        return mf_error_set(error, MF_ERROR_UNSUPPORTED_FIELD,
                            "revision: '%s' cannot be chosen: %s is a folder, which has no revisions",
                            reference->revision, folder);
    enum mf_status status;
    if ((status = check_file(folder, "config.json", "this is not a Hugging Face model folder", error)) ||
        (status =
             check_file(folder, "tokenizer.json", "save the fast tokenizer with save_pretrained", error)))
        return status;
    return check_weight_files(folder, error);
}

enum mf_status mf_folder_copy(const char *from, const char *name, const char *to, struct mf_error *error) {
    char *source = mf_path_join(from, name), *target = mf_path_join(to, name), *data = NULL;
    size_t bytes = 0;
    enum mf_status status = MF_OK;
    if (!source || !target)
        status = mf_error_errno(error, ENOMEM, "%s", name);
    else if (mf_path_exists(source)) {
        status = mf_file_read(source, COPIED_BYTES, &data, &bytes, error);
        if (status == MF_OK)
            status = mf_file_write_atomic(target, data, bytes, 0644, error);
    }
    free(data);
    free(source);
    free(target);
    return status;
}

enum mf_status mf_folder_copy_tokenizer(const char *from, const char *to, struct mf_error *error) {
    static const char *const names[] = {"tokenizer.json",      "tokenizer_config.json",
                                        "chat_template.jinja", "special_tokens_map.json",
                                        "tokenizer.model",     "vocab.json",
                                        "merges.txt",          "added_tokens.json"};
    enum mf_status status = MF_OK;
    for (size_t i = 0; status == MF_OK && i < sizeof names / sizeof *names; i++)
        status = mf_folder_copy(from, names[i], to, error);
    return status;
}

/* For file systems that cannot exchange two names: between the two renames `folder` is not there. */
static enum mf_status replace_in_two(const char *made, const char *folder, struct mf_error *error) {
    char old[4096];
    if ((size_t)snprintf(old, sizeof old, "%s.old", folder) >= sizeof old)
        return mf_error_set(error, MF_ERROR_IO, "%s: the path is too long", folder);
    enum mf_status status = mf_tree_remove(old, error);
    if (status == MF_OK && rename(folder, old) != 0)
        status = mf_error_errno(error, errno, "%s: cannot be replaced", folder);
    if (status == MF_OK && rename(made, folder) != 0)
        status = mf_error_errno(error, errno, "%s: cannot be named so", folder);
    return status == MF_OK ? mf_tree_remove(old, error) : status;
}

enum mf_status mf_folder_replace(const char *made, const char *folder, struct mf_error *error) {
    if (renameat2(AT_FDCWD, made, AT_FDCWD, folder, RENAME_EXCHANGE) == 0)
        return mf_tree_remove(made, error);
    if (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)
        if (mf_path_exists(folder))
            return replace_in_two(made, folder, error);
    if (rename(made, folder) != 0)
        return mf_error_errno(error, errno, "%s: cannot be named so", folder);
    return MF_OK;
}
