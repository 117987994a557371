#include "worker/attempt.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "common/log.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static enum mf_status add_run(json_t *request, const struct mf_settings *settings,
                              const struct mf_claim *claim, const char *folder, const char *resume_from,
                              struct mf_error *error) {
    char created[MF_TIME_TEXT_BYTES];
    char *output = mf_path_join(folder, "output"), *checkpoints = mf_path_join(folder, "checkpoints");
    char *downloads = mf_path_join(folder, "downloads");
    json_t *run = NULL, *roots = mf_settings_roots(settings, claim->tenant);
    if (output && checkpoints && downloads && roots)
        run = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s?, s:s, s:s, s:O, s:s?, s:s?, s:s?}", "job_id",
                        claim->lease.job_id, "attempt", (int)claim->attempt, "attempt_id", claim->attempt_id,
                        "output_dir", output, "checkpoint_dir", checkpoints, "resume_from", resume_from,
                        "created_at", mf_time_format(claim->created_at, created), "download_dir", downloads,
                        "roots", roots, "s3_endpoint", settings->storage_s3_endpoint, "s3_region",
                        settings->storage_s3_region, "ca_file", settings->download_ca_file);
    json_decref(roots);
    free(output);
    free(checkpoints);
    free(downloads);
    if (!run || json_object_set_new(request, "run", run))
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a request file");
    return MF_OK;
}

/* Lets other users through to attempts' folders, each of which lets nobody in by itself. */
static enum mf_status let_through(const char *work_dir, const char *runs, struct mf_error *error) {
    const char *const folders[] = {work_dir, runs};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        struct stat about;
        if (stat(folders[i], &about) || chmod(folders[i], (about.st_mode & 07777) | S_IXOTH))
            return mf_error_errno(error, errno, "cannot open %s to the user of providers.user", folders[i]);
    }
    return MF_OK;
}

enum mf_status mf_attempt_make_folder(const struct mf_settings *settings, const struct mf_claim *claim,
                                      char **folder, struct mf_error *error) {
    char *runs = mf_path_join(settings->work_dir, "runs");
    *folder = runs ? mf_path_join(runs, claim->attempt_id) : NULL;
    enum mf_status status =
        runs && *folder ? mf_directory_create(*folder, 0700, error)
                        : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for an attempt's folder");
    if (!status && settings->providers_user && runs && *folder) {
        /* its programs get at the folder that the trainer opens to them, and list no other */
        status = let_through(settings->work_dir, runs, error);
        if (status)
            (void)rmdir(*folder); /* nobody will know of it */
    }
    if (status) {
        free(*folder);
        *folder = NULL;
    }
    free(runs);
    return status;
}

enum mf_status mf_attempt_write_request(const struct mf_settings *settings, const struct mf_claim *claim,
                                        const char *folder, const char *resume_from, struct mf_error *error) {
    char *file = mf_path_join(folder, "request.json"), *text = NULL;
    json_t *request = NULL;
    enum mf_status status = MF_OK;
    if (!file) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a request file");
        goto done;
    }
    if ((status =
             mf_json_parse(claim->config, strlen(claim->config), "the stored request", &request, error)) ||
        (status = add_run(request, settings, claim, folder, resume_from, error)))
        goto done;
    text = json_dumps(request, JSON_INDENT(2));
    if (text)
        status = mf_file_write_atomic(file, text, strlen(text), 0600, error);
    else
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a request file");
done:
    json_decref(request);
    free(text);
    free(file);
    return status;
}

enum mf_status mf_attempt_tell_providers(const struct mf_settings *settings, struct mf_error *error) {
    const struct {
        const char *variable, *value;
    } options[] = {{"MODELFORGE_TRAINER_PROVIDERS_FOLDER", settings->providers_folder},
                   {"MODELFORGE_TRAINER_PROVIDERS_TRUSTED", settings->providers_trusted},
                   {"MODELFORGE_TRAINER_PROVIDERS_USER", settings->providers_user}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (options[i].value ? setenv(options[i].variable, options[i].value, 1)
                             : unsetenv(options[i].variable))
            return mf_error_errno(error, errno, "%s", options[i].variable);
    return MF_OK;
}

static bool is_one_of(const char *variable, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!strncmp(variable, names[i], strlen(names[i])))
            return true;
    return false;
}

static bool may_see(const char *variable, bool hub, bool s3) {
    static const char *const always[] = {
        "PATH=", "HOME=", "LANG=", "TZ=",     "TMPDIR=", "LD_LIBRARY_PATH=",   "HF_HOME=", "XDG_CACHE_HOME=",
        "LC_",   "OMP_",  "CUDA_", "NVIDIA_", "NCCL_",   "MODELFORGE_TRAINER_"};
    static const char *const hub_keys[] = {"HF_ENDPOINT=",  "HF_TOKEN=",       "HF_TOKEN_PATH=",
                                           "HF_HUB_CACHE=", "HF_HUB_OFFLINE=", "TRANSFORMERS_OFFLINE="};
    static const char *const s3_keys[] = {"AWS_"};
    return is_one_of(variable, always, sizeof always / sizeof *always) ||
           (hub && is_one_of(variable, hub_keys, sizeof hub_keys / sizeof *hub_keys)) ||
           (s3 && is_one_of(variable, s3_keys, 1));
}

const char **mf_attempt_environment(bool hub, bool s3, const char *visible_gpus) {
    static const char *const replaced[] = {"CUDA_VISIBLE_DEVICES="};
    size_t count = 0, used = 0;
    while (environ[count])
        count++;
    const char **result = calloc(count + 2, sizeof *result);
    for (size_t i = 0; result && i < count; i++)
        if (may_see(environ[i], hub, s3) && !(visible_gpus && is_one_of(environ[i], replaced, 1)))
            result[used++] = environ[i];
    if (result && visible_gpus)
        result[used] = visible_gpus;
    return result;
}

void mf_attempt_sweep(const struct mf_settings *settings) {
    struct mf_error error;
    char *runs = mf_path_join(settings->work_dir, "runs");
    if (runs && mf_tree_remove(runs, &error))
        mf_log_warning("old attempt folders could not be removed", MF_LOG_TEXT("folder", runs),
                       MF_LOG_FAILURE(&error));
    free(runs);
}
