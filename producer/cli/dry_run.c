#include "producer/cli/dry_run.h"

#include "producer/cli/trainer.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Writes the request into a new file; the caller removes and frees *path. */
static enum mf_status write_request(const struct mf_request *request, char **path, struct mf_error *error) {
    const char *folder = getenv("TMPDIR");
    json_t *object = NULL;
    enum mf_status status = mf_request_to_json(request, true, &object, error);
    char *name = NULL;
    if (status != MF_OK)
        return status;
    if (asprintf(&name, "%s/modelforge-dry-run-XXXXXX", folder ? folder : "/tmp") < 0)
        name = NULL;
    const int descriptor = name ? mkstemp(name) : -1;
    if (descriptor < 0) {
        status = mf_error_errno(error, errno, "%s", name ? name : "a temporary file");
        free(name);
    } else {
        *path = name;
        if (json_dumpfd(object, descriptor, 0) != 0)
            status = mf_error_errno(error, errno, "%s", name);
        close(descriptor);
    }
    json_decref(object);
    return status;
}

static void print_no_trainer(const struct mf_settings *settings) {
    if (settings->json)
        puts("{\"valid\":true,\"plan\":null}");
    else
        printf(
            "the request is valid; what it would do cannot be told here, because there is no %s beside this "
            "program or in PATH (option trainer.path)\n",
            MF_TRAINER_NAME);
}

int mf_dry_run(struct mf_settings *settings, const struct mf_request *request) {
    struct mf_process_exit exit = {0};
    struct mf_error error;
    char *trainer = NULL, *file = NULL, text[64];
    enum mf_status status = mf_trainer_find(settings, &trainer, &error);
    if (status == MF_OK && !trainer) {
        print_no_trainer(settings);
        return MF_EXIT_OK;
    }
    if (status == MF_OK)
        status = write_request(request, &file, &error);
    fflush(stdout);
    const char *const argv[] = {trainer, "plan", file, settings->json ? "--json" : NULL, NULL};
    if (status == MF_OK)
        status = mf_trainer_run(argv, &exit, &error);
    if (status == MF_OK && (exit.signal || exit.code > 1))
        status = mf_error_set(&error, MF_ERROR_IO, "%s plan: %s", trainer,
                              mf_process_exit_text(&exit, text, sizeof text));
    if (file)
        unlink(file);
    free(file);
    free(trainer);
    if (status != MF_OK)
        return mf_fail(&error);
    return exit.code == 0 ? MF_EXIT_OK : MF_EXIT_FAILED;
}
