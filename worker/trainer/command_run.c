/* modelforge-trainer run and plan. */
#include "common/files.h"
#include "worker/trainer/commands.h"
#include "worker/trainer/job.h"
#include "worker/trainer/loop.h"
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

static enum mf_status train(struct mf_job *job, struct mf_event *done, struct mf_error *error) {
    struct mf_history history = {0};
    int claimed = -1;
    enum mf_status status = claim_folder(job->output_dir, &claimed, error);
    if (status == MF_OK)
        status = mf_job_prepare(job, error);
    if (status == MF_OK)
        status = mf_loop_run(job, &history, error);
    if (status == MF_OK && history.paused) {
        *done = (struct mf_event){.type = MF_EVENT_PAUSED};
        goto done;
    }
    if (status == MF_OK)
        status = mf_outputs_write(job, &history, error);
    if (status == MF_OK) {
        const struct mf_evaluation_record *last =
            history.evaluations ? &history.evaluation[history.evaluations - 1] : NULL;
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
    struct mf_event done = {0};
    enum mf_status status = mf_report_open(&report, &error);
    if (status != MF_OK)
        return mf_command_failed(&error);
    status = mf_job_open(argv[optind], output, resume, report, &job, &error);
    if (status == MF_OK) {
        status = train(&job, &done, &error);
        mf_job_close(&job);
    }
    int result = mf_report_end(report, status, &done, &error);
    mf_report_close(report);
    return result;
}

/* ---- plan
 * -------------------------------------------------------------------------------------------------- */

static void print_quantization(const struct mf_model *model) {
    bool nested;
    const enum mf_quantization quantization = mf_model_quantization(model, &nested);
    if (quantization != MF_QUANTIZATION_NONE)
        printf(
            "weights    %s%s, of linear modules but the head; kept dequantised in %s, without the quantised "
            "copy\n",
            mf_quantization_name(quantization), nested ? " with quantised scales" : "",
            mf_dtype_name(mf_model_compute_dtype(model)));
}

static enum mf_status print_plan(const struct mf_job *job, struct mf_error *error) {
    char *text = NULL;
    enum mf_status status = mf_sample_show(&job->samples.sample[0], job->runtime.tokenizer, &text, error);
    if (status != MF_OK)
        return status;
    const struct mf_request *request = &job->request;
    printf("rows       %zu in %s; %zu train, %zu evaluate, %lld truncated, %lld dropped\n", job->dataset.rows,
           job->dataset.path, job->split.train_count, job->split.eval_count,
           (long long)job->samples.truncated_rows, (long long)job->samples.dropped_rows);
    printf("tokens     %lld an epoch; longest row %d\n", (long long)job->train_tokens, job->samples.longest);
    printf("steps      %lld, of them %lld warm-up; %lld rows each; %s schedule up to %g\n",
           (long long)job->total_steps, (long long)job->warmup_steps,
           (long long)request->per_device_train_batch_size * request->gradient_accumulation_steps,
           request->lr_scheduler_type, request->learning_rate);
    printf("trained    %lld parameters of %lld\n", (long long)job->trainable_parameters,
           (long long)mf_model_parameters(job->runtime.model));
    printf("passes     of at most %d tokens, computed in %s\n", job->pass_tokens,
           mf_dtype_name(mf_model_compute_dtype(job->runtime.model)));
    print_quantization(job->runtime.model);
    printf("memory     ");
    fflush(stdout);
    mf_plan_print(job->runtime.plan, stdout);
    printf("numeric    %s\n", job->runtime.plan->record_sha256);
    printf("first row  as trained, labels in «»:\n%s\n", text);
    free(text);
    return MF_OK;
}

int mf_command_plan(int argc, char **argv) {
    if (argc != 2)
        return mf_command_usage("plan", "one REQUEST.json is needed", NULL);
    struct mf_report *report = NULL;
    struct mf_error error;
    struct mf_job job;
    enum mf_status status = mf_report_open(&report, &error);
    if (status != MF_OK)
        return mf_command_failed(&error);
    status = mf_job_open(argv[1], NULL, NULL, report, &job, &error);
    if (status == MF_OK) {
        status = mf_job_prepare(&job, &error);
        if (status == MF_OK)
            status = print_plan(&job, &error);
        mf_job_close(&job);
    }
    mf_report_close(report);
    return status == MF_OK ? 0 : mf_command_failed(&error);
}
