/* submit: one request. */
#include "producer/cli/delivery.h"
#include "producer/cli/dry_run.h"
#include "producer/cli/form.h"

#include "common/json.h"
#include "common/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_submit_help(void) {
    mf_print_help(
        stdout,
        "usage: modelforge submit [FILE.json | -] [--FIELD VALUE]... [--wait | --watch] [--timeout "
        "SECONDS]\n\n"
        "Sends one training request and prints its job id. FILE holds a JSON object of fields; flags "
        "override it:\n"
        "every field is a flag with - for _, such as --learning-rate 1e-4, --target-modules q_proj,v_proj,\n"
        "--labels team=search. Folders and files that exist here are sent as absolute paths.\n\n"
        "  --wait              wait until the job has ended or was rejected, printing only its id and "
        "errors\n"
        "  --watch             the same with progress\n"
        "  --timeout SECONDS   give up waiting; the job goes on (exit status 6)\n"
        "  --dry-run           send nothing: check the request, and tell what it would do (rows, tokens, "
        "steps, memory,\n"
        "                      time, the first row with its labels) where a modelforge-trainer is found\n"
        "  --fields            print every field with its default and meaning, and end\n\n"
        "A request_id makes the command safe to repeat: the same request twice is one job.");
}

static int print_fields(void) {
    struct mf_error error;
    char *text;
    if (mf_request_fields_markdown(&text, &error))
        return mf_fail(&error);
    fputs(text, stdout);
    free(text);
    return MF_EXIT_OK;
}

struct submission {
    const char *file;
    bool wait, watch, dry_run;
    int64_t timeout_s;
    json_t *object;
};

/* Returns -1 to go on, else an exit status. */
static int read_command_line(struct submission *submission, int argc, char **argv) {
    struct mf_error error;
    const char **flag = calloc((size_t)argc * 2, sizeof *flag);
    int flags = 0, result = -1;
    for (int i = 1; i < argc && result < 0; i++) {
        if (!strcmp(argv[i], "--help")) {
            print_submit_help();
            result = MF_EXIT_OK;
        } else if (!strcmp(argv[i], "--fields")) {
            result = print_fields();
        } else if (!strcmp(argv[i], "--wait")) {
            submission->wait = true;
        } else if (!strcmp(argv[i], "--watch")) {
            submission->watch = true;
        } else if (!strcmp(argv[i], "--dry-run")) {
            submission->dry_run = true;
        } else if (!strncmp(argv[i], "--", 2) && argv[i][2]) {
            if (i + 1 == argc)
                result = mf_usage("submit", "%s needs a value", argv[i]);
            else if (!strcmp(argv[i], "--timeout"))
                result = mf_read_number("submit", "--timeout", argv[++i], 0, &submission->timeout_s);
            else {
                flag[flags * 2] = argv[i];
                flag[flags++ * 2 + 1] = argv[i + 1];
                i++;
            }
        } else if (submission->file) {
            result = mf_usage("submit", "one FILE at most, '%s' is a second", argv[i]);
        } else {
            submission->file = argv[i];
        }
    }
    if (result < 0 && submission->file && mf_form_read(submission->file, &submission->object, &error))
        result = mf_fail(&error);
    if (result < 0 && !submission->object)
        submission->object = json_object();
    if (result < 0 && !json_is_object(submission->object))
        result = mf_usage("submit", "%s: a request is a JSON object, this is %s", submission->file,
                          mf_json_type_name(submission->object));
    for (int i = 0; i < flags && result < 0; i++)
        if (mf_form_flag(submission->object, flag[i * 2], flag[i * 2 + 1], &error))
            result = mf_fail(&error);
    free(flag);
    return result;
}

static enum mf_status send_request(struct mf_settings *settings, const struct submission *submission,
                                   char job_id[MF_UUID_TEXT_BYTES], struct mf_sent *sent,
                                   struct mf_error *error) {
    enum mf_status status;
    struct mf_client *client = NULL;
    struct mf_request request = {0};
    struct mf_receipt receipt = mf_receipt_unknown();
    struct mf_database *database;
    bool followed = submission->wait || submission->watch; /* what cannot be followed is not sent */
    if ((status = mf_form_request(settings, submission->object, &request, error)) ||
        (followed && (status = mf_settings_database(settings, false, &database, error))) ||
        (status = mf_settings_client(settings, &client, error)) ||
        (status = mf_client_submit(client, &request, mf_receipt_keep, &receipt, job_id, error)) ||
        (status = mf_receipt_wait(client, &receipt, error)))
        goto done;
    *sent = receipt.sent;
    if (settings->json)
        printf("{\"job_id\":\"%s\",\"accepted\":true}\n", job_id);
    else if (followed)
        printf("job %s\n", job_id);
    else
        printf("%s\n", job_id);
    fflush(stdout);
done:
    mf_client_destroy(client);
    mf_request_free(&request);
    return status;
}

static int try_request(struct mf_settings *settings, const struct submission *submission) {
    struct mf_request request = {0};
    struct mf_error error;
    const int result = mf_form_request(settings, submission->object, &request, &error)
                           ? mf_fail(&error)
                           : mf_dry_run(settings, &request);
    mf_request_free(&request);
    return result;
}

int mf_command_submit(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    struct submission submission = {0};
    struct mf_sent sent;
    char job_id[MF_UUID_TEXT_BYTES];
    int result = read_command_line(&submission, argc, argv);
    if (result < 0 && submission.dry_run) {
        result = try_request(settings, &submission);
    } else if (result < 0) {
        if (send_request(settings, &submission, job_id, &sent, &error))
            result = mf_fail(&error);
        else if (submission.wait || submission.watch)
            result = mf_job_follow(settings, job_id, &sent, !submission.watch, submission.timeout_s);
        else
            result = MF_EXIT_OK;
    }
    json_decref(submission.object);
    return result;
}
