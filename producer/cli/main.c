/* modelforge: the producer's command. Reads the global flags, then hands over to a subcommand. */
#include "common/log.h"
#include "producer/cli/command.h"

#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define CONTROL "--reason --timeout"
#define FOLLOW  "--wait --watch --timeout "
static const struct mf_cli_command commands[] = {
    {"submit", mf_command_submit, "send a training request; --wait or --watch to see it through",
     FOLLOW "--fields --dry-run", "", true},
    {"batch", mf_command_batch, "send many requests from a JSONL file or a folder", FOLLOW "--check", "",
     true},
    {"cancel", mf_command_cancel, "end a job for good", CONTROL, "", false},
    {"pause", mf_command_pause, "stop a job for now; its work is kept", CONTROL, "", false},
    {"resume", mf_command_resume, "let a paused job go on", CONTROL, "", false},
    {"retry", mf_command_retry, "try a failed or cancelled job again", CONTROL " --generation", "", false},
    {"status", mf_command_status, "what a job is doing, or the newest jobs", "--tenant --limit", "", false},
    {"watch", mf_command_watch, "follow a job until it ends", "--timeout", "", false},
    {"history", mf_command_history, "past runs; with a job: its loss curve and artifacts", "--tenant --limit",
     "", false},
    {"logs", mf_command_logs, "what a job's trainer logged", "--limit", "", false},
    {"events", mf_command_events, "a job's audit trail", "", "", false},
    {"queues", mf_command_queues, "what waits and runs by tenant; set caps and weights",
     "--tenant --cap --weight", "list set", false},
    {"providers", mf_command_providers, "what live workers can train, by provider", "--markdown", "", false},
    {"provider", mf_command_provider, "check whether a provider's program keeps its contract", "--trust",
     "check", false},
    {"dlq", mf_command_dlq, "what was rejected; send it again", "--topic --code --limit --raw",
     "list show replay", false},
    {"ingest", mf_command_ingest, "where partitions stand; let a halted one go on", "--from", "status reset",
     false},
    {"setup", mf_command_setup, "make topics, register schemas, migrate the database",
     "--partitions --replication-factor", "", false},
    {"migrate", mf_command_migrate, "bring the database to this version's schema",
     "--worker-login --reader-login --restored", "", false},
    {"doctor", mf_command_doctor, "say what is wrong with the system, and how to mend it",
     "--development --worker", "", false},
    {"completion", mf_command_completion, "teach bash, zsh or fish to complete these commands", "",
     "bash zsh fish", false},
    {"complete", mf_command_complete, NULL, "", "", false},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

const struct mf_cli_command *mf_cli_commands(size_t *count) {
    *count = COMMANDS;
    return commands;
}

const struct mf_cli_command *mf_cli_command_find(const char *name) {
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

static void print_help(void) {
    char *options = NULL;
    size_t bytes;
    FILE *memory = open_memstream(&options, &bytes);
    mf_print_help(stdout, "modelforge: fine-tuning jobs through Kafka\n\n"
                          "usage: modelforge [--config FILE] [--set NAME=VALUE]... [--json] COMMAND ...\n\n"
                          "commands ('modelforge COMMAND --help' says more):\n");
    for (int i = 0; i < COMMANDS; i++)
        if (commands[i].summary)
            printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    mf_print_help(
        stdout,
        "\nA JOB is a job id, a request id of your tenant (option tenant), or TENANT/REQUEST_ID.\n\n"
        "exit status: 0 done, 1 the job failed, a command was ignored or doctor found a fault, 2 wrong "
        "command line, configuration or request, 3 Kafka, registry or PostgreSQL not to be reached, 4 the "
        "job was cancelled, 5 no such job, 6 --timeout passed\n\n");
    if (!memory)
        return;
    mf_config_print_options(mf_settings_table(), memory);
    if (fclose(memory) == 0)
        mf_print_help(stdout, options);
    free(options);
}

static int add_override(struct mf_settings *settings, char *text) {
    char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return mf_usage("", "--set takes NAME=VALUE, not '%s'", text);
    *equals = 0;
    struct mf_config_override *grown =
        realloc(settings->override, (settings->override_count + 1) * sizeof *settings->override);
    if (!grown)
        return mf_usage("", "out of memory");
    settings->override = grown;
    settings->override[settings->override_count++] = (struct mf_config_override){text, equals + 1};
    return MF_EXIT_OK;
}

static int run_command(struct mf_settings *settings, int argc, char **argv) {
    const struct mf_cli_command *command = mf_cli_command_find(argv[0]);
    return command ? command->run(settings, argc, argv) : mf_usage("", "unknown command '%s'", argv[0]);
}

int main(int argc, char **argv) {
    struct mf_settings settings = {0};
    int result = MF_EXIT_USAGE, i = 1;
    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    mf_log_set_level(MF_LOG_ERROR);
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_help();
            result = MF_EXIT_OK;
            goto done;
        }
        if (!strcmp(argv[i], "--version")) {
            puts("modelforge " MF_VERSION);
            result = MF_EXIT_OK;
            goto done;
        }
        if (!strcmp(argv[i], "--json")) {
            settings.json = true;
        } else if (!strcmp(argv[i], "--config") && i + 1 < argc) {
            settings.config_path = argv[++i];
        } else if (!strcmp(argv[i], "--set") && i + 1 < argc) {
            if ((result = add_override(&settings, argv[++i])) != MF_EXIT_OK)
                goto done;
        } else {
            result = mf_usage("", "unknown option '%s', or it lacks its value", argv[i]);
            goto done;
        }
    }
    if (i == argc)
        result = mf_usage("", "no command given");
    else
        result = run_command(&settings, argc - i, argv + i);
done:
    mf_settings_free(&settings);
    if (fflush(stdout) != 0 && result == MF_EXIT_OK)
        result = MF_EXIT_FAILED;
    return result;
}
