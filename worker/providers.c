#include "worker/providers.h"

#include "common/answer.h"
#include "common/json.h"
#include "common/text.h"
#include "schemas/request.h"
#include "worker/attempt.h"
#include "worker/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Programs and libraries that hang are given up by the trainer, each after a time of its own: this is for a
 * trainer that hangs itself. */
enum { ANSWER_MS = 600000, ANSWER_BYTES = 16 << 20 };

static enum mf_status fail(const struct mf_worker *worker, struct mf_error *error, const char *reason) {
    return mf_error_set(error, MF_ERROR_CONFIGURATION, "trainer.path: '%s providers --json' %s",
                        worker->settings->trainer_path, reason);
}

/* Standard output of the program, until it ends. */
static enum mf_status run(struct mf_worker *worker, struct mf_text *answer, struct mf_error *error) {
    int out[2];
    const char **environment = mf_attempt_environment(false, false, NULL);
    if (!environment || pipe2(out, O_CLOEXEC)) {
        free(environment);
        return mf_error_errno(error, errno, "a pipe to the trainer");
    }
    const char *const argv[] = {worker->settings->trainer_path, "providers", "--json", NULL};
    const struct mf_process_descriptor descriptors[] = {{out[1], STDOUT_FILENO}};
    const struct mf_process_options options = {.argv = argv,
                                               .environment = environment,
                                               .descriptors = descriptors,
                                               .descriptor_count = 1,
                                               .death_signal = SIGKILL};
    struct mf_process process;
    struct mf_process_exit exit;
    enum mf_answer end;
    enum mf_status status = mf_spawner_spawn(worker->spawner, &options, &process, error);
    close(out[1]);
    free(environment);
    if (status) {
        close(out[0]);
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "trainer.path: %s", error->message);
    }
    status = mf_answer_read(&process, out[0], ANSWER_BYTES, ANSWER_MS, answer, &exit, &end, error);
    close(out[0]);
    if (status)
        return status;
    if (end != MF_ANSWER_WHOLE)
        return fail(worker, error,
                    end == MF_ANSWER_TOO_LONG ? "wrote more than 16 MiB" : "did not end within 10 minutes");
    if (exit.signal || exit.code) {
        char how[128];
        return fail(worker, error, mf_process_exit_text(&exit, how, sizeof how));
    }
    return mf_text_status(answer, error);
}

/* Whether a provider computes on `device`; one that says nothing does on the CPU. What is not a program of
 * its own computes with the trainer's kernels: on GPUs only where the trainer can use some. */
static bool runs_on(const json_t *answer, const json_t *provider, const char *device) {
    const json_t *devices = json_object_get(provider, "devices");
    const char *kind = json_string_value(json_object_get(provider, "kind"));
    if (!devices)
        return !strcmp(device, "cpu");
    return json_is_true(json_object_get(json_object_get(devices, device), "available")) &&
           (json_integer_value(json_object_get(json_object_get(answer, "devices"), device)) > 0 ||
            (kind && !strcmp(kind, "program")));
}

static enum mf_status take(struct mf_worker *worker, const json_t *answer, struct mf_error *error) {
    const json_t *list = json_object_get(answer, "providers");
    size_t i;
    json_t *item;
    worker->providers = calloc(json_array_size(list) + 1, sizeof *worker->providers);
    if (!worker->providers)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for providers");
    json_array_foreach(list, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (!name || !mf_provider_name_valid(name))
            return fail(worker, error, "names no usable provider");
        if (json_is_false(json_object_get(item, "available")))
            continue;
        char *copy = strdup(name);
        if (!copy)
            return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for providers");
        worker->providers[worker->provider_count++] = (struct mf_worker_provider){
            .name = copy,
            .on_cpu = runs_on(answer, item, "cpu"),
            .on_gpu = runs_on(answer, item, "cuda"),
            .many_gpus =
                runs_on(answer, item, "cuda") && json_integer_value(json_object_get(item, "max_gpus")) > 1};
    }
    return MF_OK;
}

enum mf_status mf_providers_ask(struct mf_worker *worker, struct mf_error *error) {
    struct mf_text answer = {0};
    json_t *object = NULL, *details = NULL;
    enum mf_status status = run(worker, &answer, error);
    if (!status)
        status = mf_json_parse(mf_text_string(&answer), answer.length, "providers --json", &object, error);
    const json_t *list = json_object_get(object, "providers");
    if (!status && !json_is_array(list))
        status = fail(worker, error, "gave no array \"providers\"");
    if (!status)
        status = take(worker, object, error);
    if (!status) {
        long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
        details = json_pack("{s:O, s:I, s:I}", "trainer", object, "processors",
                            (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "memory_bytes",
                            (json_int_t)pages * (json_int_t)page_bytes);
        worker->details = details ? json_dumps(details, JSON_COMPACT) : NULL;
        if (!worker->details)
            status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for providers");
    }
    json_decref(details);
    json_decref(object);
    mf_text_free(&answer);
    return status;
}

void mf_providers_free(struct mf_worker *worker) {
    for (size_t i = 0; i < worker->provider_count; i++)
        free((void *)worker->providers[i].name);
    free(worker->providers);
    free(worker->details);
}
