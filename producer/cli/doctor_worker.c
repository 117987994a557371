/* doctor: this host as a worker's. The worker's own program looks, since a client links neither storage nor
 * trainer. */
#include "producer/cli/doctor.h"

#include "common/answer.h"
#include "producer/cli/program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_BYTES = 1 << 20, ANSWER_MS = 180000, MORE_ARGUMENTS = 10 };

static const char worker_name[] = "modelforge-worker";

/* This process's environment; where the worker has a file of its own, without what is set for modelforge's
 * programs here. NULL: no memory. */
static const char **check_environment(bool own_file) {
    static const char prefix[] = "MODELFORGE_";
    size_t count = 0, used = 0;
    while (environ[count])
        count++;
    const char **result = calloc(count + 1, sizeof *result);
    for (size_t i = 0; result && i < count; i++)
        if (!own_file || strncmp(environ[i], prefix, sizeof prefix - 1) != 0)
            result[used++] = environ[i];
    return result;
}

/* Everything that the program prints. */
static enum mf_status run_check(const char *const *argv, const char *const *environment,
                                struct mf_text *answer, struct mf_error *error) {
    int out[2];
    if (pipe2(out, O_CLOEXEC))
        return mf_error_errno(error, errno, "a pipe");
    const struct mf_process_descriptor descriptor = {out[1], STDOUT_FILENO};
    const struct mf_process_options options = {.argv = argv,
                                               .environment = environment,
                                               .descriptors = &descriptor,
                                               .descriptor_count = 1,
                                               .death_signal = SIGKILL};
    struct mf_process process;
    struct mf_process_exit exit;
    enum mf_answer end = MF_ANSWER_WHOLE;
    enum mf_status status = mf_process_spawn(&options, &process, error);
    close(out[1]);
    if (!status)
        status = mf_answer_read(&process, out[0], ANSWER_BYTES, ANSWER_MS, answer, &exit, &end, error);
    close(out[0]);
    if (!status && end != MF_ANSWER_WHOLE)
        status = mf_error_set(error, MF_ERROR_CONFIGURATION, "'%s check' %s", *argv,
                              end == MF_ANSWER_TOO_LONG ? "says too much" : "does not come to an end");
    return status ? status : mf_text_status(answer, error);
}

/* `modelforge-worker check --json`, ended by NULL; what --set gave this command is given to it. NULL: no
 * memory. */
static const char **check_arguments(const struct mf_examination *examination, const char *program,
                                    struct mf_text *settings_text) {
    const struct mf_settings *settings = examination->settings;
    const size_t override_count = examination->worker_config ? 0 : settings->override_count;
    const char **argv = calloc(override_count * 2 + MORE_ARGUMENTS, sizeof *argv);
    const char *config = examination->worker_config ? examination->worker_config : settings->config_path;
    size_t count = 0;
    for (size_t i = 0; i < override_count; i++) {
        mf_text_printf(settings_text, "%s=%s", settings->override[i].name, settings->override[i].value);
        mf_text_append(settings_text, "", 1);
    }
    if (!argv || settings_text->failed) {
        free(argv);
        return NULL;
    }
    argv[count++] = program;
    argv[count++] = "check";
    argv[count++] = "--json";
    if (examination->development)
        argv[count++] = "--development";
    if (config) {
        argv[count++] = "--config";
        argv[count++] = config;
    }
    const char *setting = settings_text->data;
    for (size_t i = 0; i < override_count; i++, setting += strlen(setting) + 1) {
        argv[count++] = "--set";
        argv[count++] = setting;
    }
    return argv;
}

static enum mf_status ask_worker(struct mf_examination *examination, const char *program,
                                 struct mf_error *error) {
    struct mf_text answer = {0}, settings_text = {0};
    json_t *findings = NULL;
    const char **argv = check_arguments(examination, program, &settings_text);
    const char **environment = check_environment(examination->worker_config);
    enum mf_status status = argv && environment
                                ? run_check(argv, environment, &answer, error)
                                : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for arguments");
    if (!status) {
        findings = json_loadb(mf_text_string(&answer), answer.length, 0, NULL);
        if (!mf_findings_take(&examination->findings, findings))
            status = mf_error_set(error, MF_ERROR_CONFIGURATION,
                                  "'%s check' says nothing; is it of this version?", program);
    }
    json_decref(findings);
    free(argv);
    free(environment);
    mf_text_free(&settings_text);
    mf_text_free(&answer);
    return status;
}

void mf_doctor_worker(struct mf_examination *examination) {
    struct mf_error error;
    if (!examination->worker_config && !mf_config_string(examination->settings->config, "storage.url"))
        return;
    char *program = mf_program_find(worker_name);
    if (!program)
        mf_find(&examination->findings, examination->worker_config ? MF_FINDING_FAULT : MF_FINDING_WARNING,
                "this host", "install it here, or run doctor on a worker's host",
                "not looked at: there is no %s beside this program or in PATH", worker_name);
    else if (ask_worker(examination, program, &error))
        mf_find(&examination->findings, MF_FINDING_FAULT, "this host", NULL, "%s", error.message);
    free(program);
}
