/* What every subcommand needs: the option table, the global flags, connections made on demand. */
#ifndef MF_PRODUCER_CLI_SETTINGS_H
#define MF_PRODUCER_CLI_SETTINGS_H

#include "common/config.h"
#include "common/error.h"
#include "common/terminal.h"
#include "producer/client.h"
#include "producer/topics.h"
#include "schemas/registry.h"
#include "sql/database.h"

#include <stdio.h>

/* Exit status of `modelforge`, the same for every subcommand. */
enum mf_exit {
    MF_EXIT_OK = 0,
    MF_EXIT_FAILED = 1,      /* the job failed; a command was ignored; doctor found a fault */
    MF_EXIT_USAGE = 2,       /* wrong command line, configuration or request */
    MF_EXIT_UNAVAILABLE = 3, /* Kafka, the registry or PostgreSQL cannot be used now */
    MF_EXIT_CANCELLED = 4,   /* the job that was waited for was cancelled */
    MF_EXIT_NOT_FOUND = 5,   /* no such job */
    MF_EXIT_TIMEOUT = 6      /* --timeout passed */
};

struct mf_settings {
    const char *config_path;
    struct mf_config_override *override;
    size_t override_count;
    bool json; /* --json: machine-readable output */

    struct mf_config *config; /* loaded by mf_settings_load */
    struct mf_client_property *kafka;
    size_t kafka_count;
    struct mf_database *database; /* opened by mf_settings_database */
};

const struct mf_config_table *mf_settings_table(void);

enum mf_status mf_settings_load(struct mf_settings *settings, struct mf_error *error);
void mf_settings_free(struct mf_settings *settings);

/* Opens database.url (once) and checks its schema unless `migrating`. Owned by settings. */
enum mf_status mf_settings_database(struct mf_settings *settings, bool migrating,
                                    struct mf_database **database, struct mf_error *error);
/* The caller destroys it. */
enum mf_status mf_settings_client(struct mf_settings *settings, struct mf_client **client,
                                  struct mf_error *error);
enum mf_status mf_settings_admin(struct mf_settings *settings, struct mf_admin **admin,
                                 struct mf_error *error);

/* The caller frees it. */
enum mf_status mf_settings_registry(struct mf_settings *settings, struct mf_registry **registry,
                                    struct mf_error *error);

/* Calls visit for every topic that the options name, with the enum mf_avro_record whose schema stands under
 * TOPIC-value (-1: its messages are raw bytes); stops at a failure. */
typedef enum mf_status mf_topic_visit(void *context, const char *topic, int record, struct mf_error *error);
enum mf_status mf_settings_each_topic(struct mf_settings *settings, mf_topic_visit *visit, void *context,
                                      struct mf_error *error);

enum { MF_TOPIC_NAME_BYTES = 250 }; /* Kafka's longest, 249, and a NUL */
/* The index-th name of "a,b,c", copied into `name`; NULL past the end. */
const char *mf_topic_of_list(const char *list, int index, char name[MF_TOPIC_NAME_BYTES]);

/* Who is written down as the one who did it: the login name. */
const char *mf_operator_name(void);

/* Prints "modelforge: RequestError: ..." on standard error and gives the exit status for it. */
int mf_fail(const struct mf_error *error);
/* "modelforge: <what>; see 'modelforge <command> --help'", MF_EXIT_USAGE. */
int mf_usage(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A whole number from `least` to a thousand million that a flag takes; returns -1, or an exit status after
 * saying what was expected. */
int mf_read_number(const char *command, const char *flag, const char *text, int64_t least, int64_t *value);

/* The subcommands: argv[0] is the command's name. Each returns an enum mf_exit. */
int mf_command_submit(struct mf_settings *settings, int argc, char **argv);
int mf_command_batch(struct mf_settings *settings, int argc, char **argv);
int mf_command_cancel(struct mf_settings *settings, int argc, char **argv);
int mf_command_pause(struct mf_settings *settings, int argc, char **argv);
int mf_command_resume(struct mf_settings *settings, int argc, char **argv);
int mf_command_retry(struct mf_settings *settings, int argc, char **argv);
int mf_command_status(struct mf_settings *settings, int argc, char **argv);
int mf_command_watch(struct mf_settings *settings, int argc, char **argv);
int mf_command_history(struct mf_settings *settings, int argc, char **argv);
int mf_command_logs(struct mf_settings *settings, int argc, char **argv);
int mf_command_events(struct mf_settings *settings, int argc, char **argv);
int mf_command_dlq(struct mf_settings *settings, int argc, char **argv);
int mf_command_queues(struct mf_settings *settings, int argc, char **argv);
int mf_command_provider(struct mf_settings *settings, int argc, char **argv);
int mf_command_providers(struct mf_settings *settings, int argc, char **argv);
int mf_command_ingest(struct mf_settings *settings, int argc, char **argv);
int mf_command_migrate(struct mf_settings *settings, int argc, char **argv);
int mf_command_setup(struct mf_settings *settings, int argc, char **argv);
int mf_command_doctor(struct mf_settings *settings, int argc, char **argv);
int mf_command_completion(struct mf_settings *settings, int argc, char **argv);
int mf_command_complete(struct mf_settings *settings, int argc, char **argv);

#endif
