/* modelforge: the producer's command. Reads the global flags, then hands over to a subcommand. */
#include "common/log.h"
#include "producer/cli/settings.h"

#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(struct mf_settings *, int, char **);
    const char *summary;
} commands[] = {
    {"submit", mf_command_submit, "send a training request; --wait or --watch to see it through"},
    {"batch", mf_command_batch, "send many requests from a JSONL file or a folder"},
    {"cancel", mf_command_cancel, "ask for a job to be cancelled"},
    {"status", mf_command_status, "what a job is doing, or the newest jobs"},
    {"watch", mf_command_watch, "follow a job until it ends"},
    {"history", mf_command_history, "past runs; with a job: its loss curve and artifacts"},
    {"logs", mf_command_logs, "what a job's trainer logged"},
    {"events", mf_command_events, "a job's audit trail"},
    {"ingest", mf_command_ingest, "where partitions stand; let a halted one go on"},
    {"setup", mf_command_setup, "make topics, register schemas, migrate the database"},
    {"migrate", mf_command_migrate, "bring the database to this version's schema"},
    {"doctor", mf_command_doctor, "check brokers, topics, registry and database"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_help(void) {
    puts("modelforge: fine-tuning jobs through Kafka\n\n"
         "usage: modelforge [--config FILE] [--set NAME=VALUE]... [--json] COMMAND ...\n\n"
         "commands ('modelforge COMMAND --help' says more):");
    for (int i = 0; i < COMMANDS; i++)
        printf("  %-9s %s\n", commands[i].name, commands[i].summary);
    puts("\nA JOB is a job id, a request id of your tenant (option tenant), or TENANT/REQUEST_ID.\n\n"
         "exit status: 0 done, 1 the job failed or doctor found a fault, 2 wrong command line, configuration "
         "or\n"
         "request, 3 Kafka, registry or PostgreSQL not to be reached, 4 the job was cancelled, 5 no such "
         "job,\n"
         "6 --timeout passed\n\noptions (file, environment, --set):\n");
    mf_config_print_options(mf_settings_table(), stdout);
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
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].name, argv[0]))
            return commands[i].run(settings, argc, argv);
    return mf_usage("", "unknown command '%s'", argv[0]);
}

int main(int argc, char **argv) {
    struct mf_settings settings = {0};
    int result = MF_EXIT_USAGE, i = 1;
    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
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
