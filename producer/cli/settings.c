#include "producer/cli/settings.h"

#include "sql/migrate.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The names are the worker's where the meaning is the same, so that both can read one file. */
static const struct mf_option options[] = {
    {"kafka.*", MF_OPTION_PREFIX, NULL, 0, 0, NULL, false, true,
     "Any librdkafka property by its own name: kafka.bootstrap.servers, kafka.security.protocol, ..."},
    {"registry.url", MF_OPTION_STRING, NULL, 0, 0, NULL, false, true,
     "Base URL of the schema registry (Confluent's API), with its path."},
    {"registry.username", MF_OPTION_STRING, NULL, 0, 0, NULL, false, false, "Basic authentication: user."},
    {"registry.password", MF_OPTION_STRING, NULL, 0, 0, NULL, false, true, "Basic authentication: password."},
    {"registry.ca_file", MF_OPTION_STRING, NULL, 0, 0, NULL, false, false,
     "PEM file of the authorities that may sign the registry's certificate."},
    {"database.url", MF_OPTION_STRING, NULL, 0, 0, NULL, false, true,
     "libpq URI of PostgreSQL, for status, watch, history, logs, events, migrate and doctor."},
    {"topics.requests", MF_OPTION_STRING, MF_TOPIC_REQUESTS, 0, 0, NULL, false, false,
     "Topic that requests are sent to (of several, separated by commas, the first)."},
    {"topics.commands", MF_OPTION_STRING, MF_TOPIC_COMMANDS, 0, 0, NULL, false, false,
     "Topic that commands are sent to (the first)."},
    {"topics.events", MF_OPTION_STRING, "modelforge.events", 0, 0, NULL, false, false,
     "Topic that the worker publishes job events on; made by setup, checked by doctor."},
    {"topics.dlq", MF_OPTION_STRING, "modelforge.requests.dlq", 0, 0, NULL, false, false,
     "Topic of messages that were rejected; made by setup, checked by doctor."},
    {"tenant", MF_OPTION_STRING, "default", 0, 0, NULL, false, false,
     "Tenant of requests that name none, and of a JOB given as a request id alone."},
    {"submitted.by", MF_OPTION_STRING, NULL, 0, 0, NULL, false, false,
     "Who submits, for requests that do not say."},
    {"trainer.path", MF_OPTION_STRING, NULL, 0, 0, NULL, false, false,
     "The trainer that submit --dry-run asks (the one beside this program, or in PATH)."},
    {"storage.url", MF_OPTION_STRING, NULL, 0, 0, NULL, false, false,
     "Of modelforge-worker: where it is given, doctor checks this host as a worker's, too."},
    {"worker.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"work.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"storage.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"lease.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"http.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"trainer.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"ingest.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"log.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"claim.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"provider.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"retry.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"drain.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"cancel.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"watchdog.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"spool.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"batch.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"tenants", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"tenants.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"providers.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"preempt.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"gpu.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"reserve.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
    {"download.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "of modelforge-worker"},
};
static const struct mf_config_table table = {"modelforge", options, sizeof options / sizeof *options};

const struct mf_config_table *mf_settings_table(void) {
    return &table;
}

static enum mf_status keep_property(void *context, const char *rest, const char *value,
                                    struct mf_error *error) {
    struct mf_settings *settings = context;
    struct mf_client_property *grown =
        realloc(settings->kafka, (settings->kafka_count + 1) * sizeof *settings->kafka);
    if (!grown)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for kafka.%s", rest);
    settings->kafka = grown;
    /* Both strings live in the configuration. */
    settings->kafka[settings->kafka_count++] = (struct mf_client_property){rest, value};
    return MF_OK;
}

enum mf_status mf_settings_load(struct mf_settings *settings, struct mf_error *error) {
    if (settings->config)
        return MF_OK;
    enum mf_status status = mf_config_load(&table, settings->config_path, settings->override,
                                           settings->override_count, &settings->config, error);
    if (status)
        return status;
    return mf_config_each(settings->config, "kafka.*", keep_property, settings, error);
}

void mf_settings_free(struct mf_settings *settings) {
    mf_database_close(settings->database);
    free(settings->kafka);
    free(settings->override);
    mf_config_free(settings->config);
}

enum mf_status mf_settings_database(struct mf_settings *settings, bool migrating,
                                    struct mf_database **database, struct mf_error *error) {
    enum mf_status status = mf_settings_load(settings, error);
    if (status)
        return status;
    const char *url = mf_config_string(settings->config, "database.url");
    if (!url)
        return mf_error_set(
            error, MF_ERROR_CONFIGURATION,
            "database.url is not set; give it with --set database.url=postgresql://..., in the "
            "configuration file, or as MODELFORGE_DATABASE_URL");
    if (!settings->database &&
        (status =
             mf_database_open(&(struct mf_database_options){.url = url, .application_name = "modelforge"},
                              &settings->database, error)))
        return status;
    *database = settings->database;
    return migrating ? MF_OK : mf_migrate_check(settings->database, error);
}

enum mf_status mf_settings_client(struct mf_settings *settings, struct mf_client **client,
                                  struct mf_error *error) {
    enum mf_status status = mf_settings_load(settings, error);
    if (status)
        return status;
    const struct mf_config *config = settings->config;
    if (!mf_config_string(config, "registry.url"))
        return mf_error_set(
            error, MF_ERROR_CONFIGURATION,
            "registry.url is not set; give it with --set registry.url=http://..., in the configuration "
            "file, or as MODELFORGE_REGISTRY_URL");
    char requests[MF_TOPIC_NAME_BYTES], commands[MF_TOPIC_NAME_BYTES];
    struct mf_client_options client_options = {
        .kafka = settings->kafka,
        .kafka_count = settings->kafka_count,
        .registry_url = mf_config_string(config, "registry.url"),
        .registry_username = mf_config_string(config, "registry.username"),
        .registry_password = mf_config_string(config, "registry.password"),
        .registry_ca_file = mf_config_string(config, "registry.ca_file"),
        .requests_topic = mf_topic_of_list(mf_config_string(config, "topics.requests"), 0, requests),
        .commands_topic = mf_topic_of_list(mf_config_string(config, "topics.commands"), 0, commands),
    };
    return mf_client_create(&client_options, client, error);
}

enum mf_status mf_settings_admin(struct mf_settings *settings, struct mf_admin **admin,
                                 struct mf_error *error) {
    enum mf_status status = mf_settings_load(settings, error);
    if (status)
        return status;
    if (!settings->kafka_count)
        return mf_error_set(
            error, MF_ERROR_CONFIGURATION,
            "kafka.bootstrap.servers is not set; give it with --set kafka.bootstrap.servers=host:port, "
            "in the configuration file, or as MODELFORGE_KAFKA_BOOTSTRAP_SERVERS");
    return mf_admin_create(settings->kafka, settings->kafka_count, admin, error);
}

enum mf_status mf_settings_registry(struct mf_settings *settings, struct mf_registry **registry,
                                    struct mf_error *error) {
    enum mf_status status = mf_settings_load(settings, error);
    if (status)
        return status;
    const struct mf_config *config = settings->config;
    if (!mf_config_string(config, "registry.url"))
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "registry.url is not set");
    return mf_registry_new(
        &(struct mf_registry_options){.url = mf_config_string(config, "registry.url"),
                                      .username = mf_config_string(config, "registry.username"),
                                      .password = mf_config_string(config, "registry.password"),
                                      .ca_file = mf_config_string(config, "registry.ca_file")},
        registry, error);
}

enum mf_status mf_settings_each_topic(struct mf_settings *settings, mf_topic_visit *visit, void *context,
                                      struct mf_error *error) {
    static const struct {
        const char *option;
        int record;
    } topics[] = {{"topics.requests", MF_AVRO_TRAINING_REQUEST},
                  {"topics.commands", MF_AVRO_TRAINING_COMMAND},
                  {"topics.events", MF_AVRO_JOB_EVENT},
                  {"topics.dlq", -1}};
    char name[MF_TOPIC_NAME_BYTES];
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
        const char *list = mf_config_string(settings->config, topics[i].option), *topic;
        for (int j = 0; (topic = mf_topic_of_list(list, j, name)); j++) {
            enum mf_status status = visit(context, topic, topics[i].record, error);
            if (status)
                return status;
        }
    }
    return MF_OK;
}

const char *mf_topic_of_list(const char *list, int index, char name[MF_TOPIC_NAME_BYTES]) {
    while (index-- > 0 && list)
        list = strchr(list, ',') ? strchr(list, ',') + 1 : NULL;
    if (!list)
        return NULL;
    list += strspn(list, " ");
    snprintf(name, MF_TOPIC_NAME_BYTES, "%.*s", (int)strcspn(list, ", "), list);
    return name;
}

const char *mf_operator_name(void) {
    const struct passwd *user = getpwuid(getuid());
    return user ? user->pw_name : "unknown";
}

int mf_fail(const struct mf_error *error) {
    char text[MF_ERROR_TEXT_BYTES + 64];
    fprintf(stderr, "%smodelforge: %s%s\n", mf_colour(stderr, MF_RED),
            mf_error_format(error, text, sizeof text), mf_colour(stderr, MF_RESET));
    switch (error->status) {
    case MF_ERROR_DATABASE:
    case MF_ERROR_KAFKA:
    case MF_ERROR_QUEUE_FULL:
    case MF_ERROR_REGISTRY:
    case MF_ERROR_HTTP:
        return MF_EXIT_UNAVAILABLE;
    case MF_ERROR_NOT_FOUND:
        return MF_EXIT_NOT_FOUND;
    default:
        return mf_status_class(error->status) == MF_CLASS_REQUEST || error->status == MF_ERROR_CONFIGURATION
                   ? MF_EXIT_USAGE
                   : MF_EXIT_FAILED;
    }
}

int mf_usage(const char *command, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("modelforge: ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "; see 'modelforge %s%s--help'\n", command, *command ? " " : "");
    return MF_EXIT_USAGE;
}

int mf_read_number(const char *command, const char *flag, const char *text, int64_t least, int64_t *value) {
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    if (*end || end == text || errno || *value < least || *value > 1000000000)
        return mf_usage(command, "%s takes a whole number from %lld, not '%s'", flag, (long long)least, text);
    return -1;
}
