/* cancel, pause, resume, retry: a command is sent, and followed until it is known what came of it. */
#include "producer/cli/delivery.h"
#include "producer/cli/table.h"

#include "common/clock.h"
#include "common/text.h"

#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { POLL_MS = 100, FATE_S = 10 };

static const char *const help[] = {
    [MF_COMMAND_CANCEL] =
        "Cancels a job: at once while it is queued or paused, at its next step while it runs.",
    [MF_COMMAND_PAUSE] =
        "Pauses a job: a queued one at once; one that runs writes a checkpoint at its next step "
        "and gives\nits worker free. 'modelforge resume' lets it go on from there.",
    [MF_COMMAND_RESUME] = "Lets a paused job go on: it is queued again at its old place.",
    [MF_COMMAND_RETRY] =
        "Tries a failed or cancelled job again, from the start: a new job of the same request, with "
        "the next\ngeneration. --generation says which one is tried again; else it is the newest."};

struct control {
    struct mf_command command;
    const char *name;
    int64_t timeout_s;
};

static void print_help(enum mf_command_action action) {
    bool retry = action == MF_COMMAND_RETRY;
    struct mf_text text = {0};
    mf_text_printf(
        &text,
        "usage: modelforge %s JOB [--reason TEXT] [--timeout SECONDS]%s\n\n%s\n\n"
        "With database.url set it waits until a worker has taken the command in (%d s, --timeout; 0: not "
        "at all).\n\n"
        "exit status: 0 done or asked for, 1 ignored, for the job cannot do it now, 2 rejected, 6 not "
        "taken in yet\n",
        mf_command_action_name(action), retry ? " [--generation N]" : "", help[action], FATE_S);
    mf_print_help(stdout, mf_text_string(&text));
    mf_text_free(&text);
}

/* Returns -1 to go on, else an exit status. */
static int read_arguments(struct control *control, int argc, char **argv) {
    int result = -1;
    for (int i = 1; i < argc && result < 0; i++) {
        bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--help")) {
            print_help(control->command.action);
            return MF_EXIT_OK;
        }
        if (!strcmp(argv[i], "--reason") && more) {
            free(control->command.reason);
            if (!(control->command.reason = strdup(argv[++i])))
                return mf_usage(argv[0], "out of memory");
        } else if (!strcmp(argv[i], "--timeout") && more) {
            result = mf_read_number(argv[0], "--timeout", argv[++i], 0, &control->timeout_s);
        } else if (!strcmp(argv[i], "--generation") && more && control->command.action == MF_COMMAND_RETRY) {
            control->command.expected_generation.set = true;
            result = mf_read_number(argv[0], "--generation", argv[++i], 1,
                                    &control->command.expected_generation.value);
        } else if (argv[i][0] == '-' || control->name) {
            return mf_usage(argv[0], "unexpected '%s', or it lacks its value", argv[i]);
        } else {
            control->name = argv[i];
        }
    }
    return result >= 0 || control->name ? result : mf_usage(argv[0], "which job?");
}

/* Tenant, request id and, of a job id or for a retry, the generation that is meant. */
static enum mf_status name_job(struct mf_settings *settings, struct control *control,
                               struct mf_error *error) {
    struct mf_command *command = &control->command;
    int64_t generation = 0;
    enum mf_status status =
        mf_job_name(settings, control->name, &command->tenant, &command->request_id, &generation, error);
    if (!status && !generation && command->action == MF_COMMAND_RETRY && !command->expected_generation.set) {
        struct mf_database *database;
        struct mf_job_status job = {0};
        status = mf_settings_database(settings, false, &database, error);
        if (!status)
            status = mf_job_find(settings, database, control->name, &job, error);
        generation = job.generation;
        mf_job_status_free(&job);
    }
    if (!status && generation && !command->expected_generation.set)
        command->expected_generation = (struct mf_optional_integer){true, generation};
    return status;
}

static enum mf_status send_command(struct mf_settings *settings, struct control *control,
                                   struct mf_sent *sent, struct mf_error *error) {
    struct mf_receipt receipt = mf_receipt_unknown();
    struct mf_client *client = NULL;
    enum mf_status status = mf_settings_client(settings, &client, error);
    if (!status)
        status = mf_client_command(client, &control->command, mf_receipt_keep, &receipt, error);
    if (!status)
        status = mf_receipt_wait(client, &receipt, error);
    mf_client_destroy(client);
    *sent = receipt.sent;
    return status;
}

/* Until the record was taken in or the time is over; a rejection is the call's status. */
static enum mf_status follow(struct mf_database *database, const struct control *control,
                             const struct mf_sent *sent, struct mf_command_fate *fate,
                             struct mf_error *error) {
    int64_t end_ms = mf_clock_monotonic_ms() + control->timeout_s * 1000;
    for (;;) {
        bool taken = false;
        enum mf_status status =
            mf_store_record_fate(database, sent->topic, sent->partition, sent->offset, &taken, error);
        if (status && taken)
            return mf_error_prefix(error, "the command was rejected");
        if (!status && taken)
            return mf_store_command_fate(database, control->command.command_id, fate, error);
        if (status || mf_clock_monotonic_ms() >= end_ms)
            return status;
        poll(NULL, 0, POLL_MS);
    }
}

static int print_json(const struct control *control, const struct mf_command_fate *fate) {
    json_t *object = json_pack("{s:s, s:b}", "command_id", control->command.command_id, "accepted", 1);
    const char *const pair[][2] = {
        {"outcome", fate->outcome}, {"note", fate->note}, {"job_id", fate->job_id}, {"state", fate->state}};
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++)
        json_object_set_new(object, pair[i][0], *pair[i][1] ? json_string(pair[i][1]) : json_null());
    json_object_set_new(object, "generation",
                        fate->generation ? json_integer(fate->generation) : json_null());
    return mf_json_print(object);
}

/* Says what came of it. */
static int report(const struct mf_settings *settings, const struct control *control, bool followed,
                  const struct mf_command_fate *fate) {
    const struct mf_command *command = &control->command;
    const char *action = mf_command_action_name(command->action);
    bool ignored = !strcmp(fate->outcome, "ignored");
    int result = ignored ? MF_EXIT_FAILED : followed && !*fate->outcome ? MF_EXIT_TIMEOUT : MF_EXIT_OK;
    if (settings->json) {
        int printed = print_json(control, fate);
        return printed ? printed : result;
    }
    if (ignored)
        fprintf(stderr, "modelforge: %s of %s/%s was ignored: %s\n", action, command->tenant,
                command->request_id, fate->note);
    else if (!followed)
        printf("%s of %s/%s accepted\n", action, command->tenant, command->request_id);
    else if (!*fate->outcome)
        fprintf(stderr, "modelforge: %s of %s/%s is accepted by Kafka, but no worker has taken it in yet\n",
                action, command->tenant, command->request_id);
    else if (!strcmp(fate->outcome, "waiting"))
        printf("there is no request %s/%s yet; the %s waits for it, a day at most\n", command->tenant,
               command->request_id, action);
    else if (command->action == MF_COMMAND_RETRY)
        printf("job %s, generation %d\n", fate->job_id, fate->generation);
    else if (!strcmp(fate->state, "running") && command->action != MF_COMMAND_RESUME)
        printf("%s of %s/%s asked for; its worker hears of it at its next heartbeat\n", action,
               command->tenant, command->request_id);
    else
        printf("%s/%s is %s\n", command->tenant, command->request_id, fate->state);
    return result;
}

static int control_job(struct mf_settings *settings, enum mf_command_action action, int argc, char **argv) {
    struct mf_error error;
    struct control control = {.command = {.action = action}, .timeout_s = FATE_S};
    struct mf_command_fate fate = {.generation = 0};
    struct mf_database *database = NULL;
    struct mf_sent sent = {.partition = -1};
    bool followed = false;
    int result = read_arguments(&control, argc, argv);
    if (result < 0) {
        enum mf_status status = name_job(settings, &control, &error);
        if (!status)
            status = send_command(settings, &control, &sent, &error);
        followed = !status && control.timeout_s && mf_config_string(settings->config, "database.url");
        if (followed)
            status = mf_settings_database(settings, false, &database, &error);
        if (followed && !status)
            status = follow(database, &control, &sent, &fate, &error);
        result = status ? mf_fail(&error) : report(settings, &control, followed, &fate);
    }
    mf_command_free(&control.command);
    return result;
}

int mf_command_cancel(struct mf_settings *settings, int argc, char **argv) {
    return control_job(settings, MF_COMMAND_CANCEL, argc, argv);
}

int mf_command_pause(struct mf_settings *settings, int argc, char **argv) {
    return control_job(settings, MF_COMMAND_PAUSE, argc, argv);
}

int mf_command_resume(struct mf_settings *settings, int argc, char **argv) {
    return control_job(settings, MF_COMMAND_RESUME, argc, argv);
}

int mf_command_retry(struct mf_settings *settings, int argc, char **argv) {
    return control_job(settings, MF_COMMAND_RETRY, argc, argv);
}
