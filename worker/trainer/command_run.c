/* modelforge-trainer run. */
#include "common/files.h"
#include "common/json.h"
#include "worker/trainer/commands.h"
#include "worker/trainer/external_run.h"
#include "worker/trainer/job.h"
#include "worker/trainer/loop.h"
#include "worker/trainer/model_files.h"
#include "worker/trainer/outputs.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

/* Two runs into one folder would mix their files. The lock ends with *descriptor, which the caller closes, or
 * with the process; file systems without locks give none. */
static enum mf_status claim_folder(const char *folder, int *descriptor, struct mf_error *error) {
    enum mf_status status = mf_directory_create(folder, 0755, error);
    if (status != MF_OK)
        return status;
    *descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*descriptor < 0)
        return mf_error_errno(error, errno, "%s", folder);
    if (flock(*descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return mf_error_set(
            error, MF_ERROR_IO,
            "%s: another run writes into this folder; wait for its end or choose another folder "
            "with --output",
            folder);
    return MF_OK;
}

/* Will this request compute on a GPU here? For `hello`, which comes before the request is checked. */
static bool asks_for_cuda(const char *request_path) {
    enum mf_device_choice choice = MF_ON_AUTO;
    struct mf_error error;
    json_t *file = NULL;
    bool cuda = false;
    if (mf_json_read_file(request_path, 0, &file, &error) == MF_OK) {
        const char *device = json_string_value(json_object_get(file, "device"));
        if (mf_device_choice_parse(device ? device : "auto", &choice, &error) == MF_OK)
            cuda = mf_device_choice_is_cuda(choice);
    }
    json_decref(file);
    return cuda;
}

static enum mf_status train(struct mf_job *job, struct mf_event *done, struct mf_error *error) {
    struct mf_history history = {0};
    int claimed = -1;
    enum mf_status status = claim_folder(job->output_dir, &claimed, error);
    if (status == MF_OK)
        status = mf_job_prepare(job, error);
    if (status == MF_OK)
        status = mf_model_files_digest(job, error);
    if (status == MF_OK)
        status = mf_loop_run(job, &history, error);
    if (status == MF_OK && history.paused) {
        *done = (struct mf_event){.type = MF_EVENT_PAUSED};
        goto done;
    }
    if (status == MF_OK)
        status = mf_outputs_write(job, &history, error);
    if (status == MF_OK) {
        const struct mf_evaluation_record *last = mf_history_kept(&history);
        *done = (struct mf_event){.type = MF_EVENT_DONE,
                                  .done = {.steps = history.steps,
                                           .train_loss = history.train_loss,
                                           .eval_loss = last ? last->loss : (double)NAN,
                                           .perplexity = last ? last->perplexity : (double)NAN,
                                           .trained_tokens = history.trained_tokens}};
    }
done:
    if (claimed >= 0)
        close(claimed);
    mf_history_destroy(&history);
    return status;
}

/* Returns the exit status. */
static int run_job(struct mf_job *job, struct mf_error *error) {
    struct mf_event done = {0};
    struct mf_external *program = NULL;
    struct mf_report *report = job->report;
    enum mf_status status = MF_OK;
    if (mf_provider_is_program(job->request.provider))
        status = mf_external_find(job->request.provider, &program, error);
    int result;
    if (status == MF_OK && program)
        status = mf_external_run(job, program, &done, error);
    else if (status == MF_OK)
        status = train(job, &done, error);
    result = status == MF_OK && program ? mf_report_end_as(report, &done)
                                        : mf_report_end(report, status, &done, error);
    if (program)
        mf_event_destroy(&done);
    mf_external_free(program);
    return result;
}

int mf_command_run(int argc, char **argv) {
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'}, {"resume", required_argument, NULL, 'r'}, {0}};
    const char *output = NULL, *resume = NULL;
    for (int option; (option = getopt_long(argc, argv, "o:r:", options, NULL)) != -1;) {
        if (option == 'o')
            output = optarg;
        else if (option == 'r')
            resume = optarg;
        else
            return mf_command_usage("run", "unknown option", NULL);
    }
    if (argc - optind != 1)
        return mf_command_usage("run", "one REQUEST.json is needed", NULL);
    struct mf_report *report = NULL;
    struct mf_error error;
    struct mf_job job;
    enum mf_status status = mf_report_open(asks_for_cuda(argv[optind]), &report, &error);
    if (status != MF_OK)
        return mf_command_failed(&error);
    status = mf_job_open(argv[optind], output, resume, report, &job, &error);
    int result;
    if (status == MF_OK) {
        result = run_job(&job, &error);
        mf_job_close(&job);
    } else {
        result = mf_report_end(report, status, NULL, &error);
    }
    mf_report_close(report);
    return result;
}
