/* setup, migrate, doctor: the services that jobs need. */
#include "producer/cli/settings.h"

#include "schemas/registry.h"
#include "sql/migrate.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* The topics of the contract, with the record whose schema stands under <topic>-value (-1: raw bytes). */
static const struct {
    const char *option;
    int record;
} topics[] = {
    {"topics.requests", MF_AVRO_TRAINING_REQUEST},
    {"topics.commands", MF_AVRO_TRAINING_COMMAND},
    {"topics.events", MF_AVRO_JOB_EVENT},
    {"topics.dlq", -1},
};
enum { TOPICS = sizeof topics / sizeof *topics };

static enum mf_status open_registry(struct mf_settings *settings, struct mf_registry **registry,
                                    struct mf_error *error) {
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

/* Calls visit for every topic that the options name, with its record; stops at a failure. */
static enum mf_status each_topic(struct mf_settings *settings,
                                 enum mf_status (*visit)(void *context, const char *topic, int record,
                                                         struct mf_error *error),
                                 void *context, struct mf_error *error) {
    char name[MF_TOPIC_NAME_BYTES];
    for (int i = 0; i < TOPICS; i++) {
        const char *list = mf_config_string(settings->config, topics[i].option), *topic;
        for (int j = 0; (topic = mf_topic_of_list(list, j, name)); j++) {
            enum mf_status status = visit(context, topic, topics[i].record, error);
            if (status)
                return status;
        }
    }
    return MF_OK;
}

struct topic_maker {
    struct mf_admin *admin;
    int partitions, replicas;
};

static enum mf_status make_topic(void *context, const char *topic, int record, struct mf_error *error) {
    struct topic_maker *maker = context;
    bool created;
    (void)record;
    enum mf_status status =
        mf_admin_create_topic(maker->admin, topic, maker->partitions, maker->replicas, &created, error);
    if (!status)
        printf("topic %-26s %s\n", topic, created ? "made" : "is there");
    return status;
}

static enum mf_status make_topics(struct mf_settings *settings, int partitions, int replicas,
                                  struct mf_error *error) {
    struct topic_maker maker = {NULL, partitions, replicas};
    enum mf_status status = mf_settings_admin(settings, &maker.admin, error);
    if (!status)
        status = each_topic(settings, make_topic, &maker, error);
    mf_admin_destroy(maker.admin);
    return status;
}

static enum mf_status register_schema(void *context, const char *topic, int record, struct mf_error *error) {
    struct mf_registry *registry = context;
    uint32_t id;
    if (record < 0)
        return MF_OK;
    char *subject = mf_registry_subject(topic);
    if (!subject)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a subject name");
    enum mf_status status =
        mf_registry_register(registry, subject, mf_avro_schema_text((enum mf_avro_record)record), &id, error);
    if (!status)
        status = mf_registry_set_compatibility(registry, subject, "BACKWARD", error);
    if (!status)
        printf("schema %-25s id %u, BACKWARD\n", subject, id);
    free(subject);
    return status;
}

static enum mf_status register_schemas(struct mf_settings *settings, struct mf_error *error) {
    struct mf_registry *registry = NULL;
    enum mf_status status = open_registry(settings, &registry, error);
    if (!status)
        status = each_topic(settings, register_schema, registry, error);
    mf_registry_free(registry);
    return status;
}

static enum mf_status migrate(struct mf_settings *settings, const struct mf_migrate_options *options,
                              struct mf_error *error) {
    struct mf_database *database;
    struct mf_migrate_report report;
    enum mf_status status = mf_settings_database(settings, true, &database, error);
    if (!status)
        status = mf_migrate(database, options, &report, error);
    if (!status)
        printf("database                         version %d, %d migration(s) applied\n", report.version,
               report.applied);
    return status;
}

static const char migrate_help[] =
    "usage: modelforge migrate [--worker-login NAME] [--reader-login NAME]\n\n"
    "Brings the database at database.url to this version's schema. Needs a superuser, or the owner of the\n"
    "database with CREATEROLE. The logins are made when they are missing and become members of\n"
    "modelforge_worker and modelforge_reader; a password is taken from MODELFORGE_WORKER_PASSWORD and\n"
    "MODELFORGE_READER_PASSWORD. Safe to repeat.";

int mf_command_migrate(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    struct mf_migrate_login logins[2];
    struct mf_migrate_options options = {logins, 0};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            puts(migrate_help);
            return MF_EXIT_OK;
        }
        bool worker = !strcmp(argv[i], "--worker-login");
        if ((!worker && strcmp(argv[i], "--reader-login") != 0) || i + 1 == argc || options.login_count == 2)
            return mf_usage("migrate", "unexpected '%s', or it lacks its value", argv[i]);
        logins[options.login_count++] = (struct mf_migrate_login){
            worker ? "modelforge_worker" : "modelforge_reader", argv[++i],
            getenv(worker ? "MODELFORGE_WORKER_PASSWORD" : "MODELFORGE_READER_PASSWORD")};
    }
    return migrate(settings, &options, &error) ? mf_fail(&error) : MF_EXIT_OK;
}

int mf_command_setup(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    long partitions = 6, replicas = MF_TOPIC_REPLICATION;
    for (int i = 1; i < argc; i++) {
        char *end = NULL;
        if (!strcmp(argv[i], "--help")) {
            puts("usage: modelforge setup [--partitions N] [--replication-factor N]\n\n"
                 "Makes the topics (6 partitions, 3 replicas, min.insync.replicas 2, 7 days), registers the "
                 "schemas\n"
                 "with BACKWARD compatibility, and migrates the database. What is there already is left as "
                 "it is;\n"
                 "'modelforge doctor' says whether it will do.");
            return MF_EXIT_OK;
        }
        if (!strcmp(argv[i], "--partitions") && i + 1 < argc)
            partitions = strtol(argv[++i], &end, 10);
        else if (!strcmp(argv[i], "--replication-factor") && i + 1 < argc)
            replicas = strtol(argv[++i], &end, 10);
        if (!end || *end || partitions < 1 || partitions > 10000 || replicas < 1 || replicas > 100)
            return mf_usage("setup", "unexpected '%s', or it lacks its number", argv[i]);
    }
    if (make_topics(settings, (int)partitions, (int)replicas, &error) || register_schemas(settings, &error) ||
        migrate(settings, &(struct mf_migrate_options){0}, &error))
        return mf_fail(&error);
    return MF_EXIT_OK;
}

/* ---- doctor ---- */

struct examination {
    struct mf_settings *settings;
    json_t *findings; /* with --json */
    int faults;
    bool development; /* a single broker is fine */
    struct mf_admin *admin;
};

static void find(struct examination *examination, bool good, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void find(struct examination *examination, bool good, const char *what, const char *format, ...) {
    char text[MF_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    examination->faults += !good;
    if (examination->settings->json)
        json_array_append_new(examination->findings,
                              json_pack("{s:s,s:b,s:s}", "check", what, "ok", good, "detail", text));
    else
        printf("%s%s%s %-32s %s\n", mf_colour(stdout, good ? MF_GREEN : MF_RED), good ? "ok   " : "FAULT",
               mf_colour(stdout, MF_RESET), what, text);
}

static void examine_topic(struct examination *examination, const char *topic) {
    struct mf_admin *admin = examination->admin;
    bool development = examination->development;
    struct mf_error error;
    struct mf_topic_state state;
    char days[32];
    int replicas = development ? 1 : MF_TOPIC_REPLICATION, in_sync = development ? 1 : MF_TOPIC_MIN_INSYNC;
    if (mf_admin_describe_topic(admin, topic, &state, &error)) {
        find(examination, false, topic, "%s", error.message);
        return;
    }
    if (!state.exists) {
        find(examination, false, topic, "does not exist; 'modelforge setup' makes it");
        return;
    }
    bool kept = state.retention_ms < 0 || state.retention_ms >= MF_TOPIC_RETENTION_MS;
    if (state.retention_ms < 0)
        snprintf(days, sizeof days, "kept for ever");
    else
        snprintf(days, sizeof days, "kept %.3g days", (double)state.retention_ms / 86400e3);
    bool good = state.replicas >= replicas && state.min_insync >= in_sync && !state.compacted && kept;
    find(examination, good, topic, "%d partition(s), %d replica(s)%s, min.insync.replicas %d%s, %s%s, %s%s",
         state.partitions, state.replicas, state.replicas < replicas ? " (3 needed)" : "", state.min_insync,
         state.min_insync < in_sync ? " (2 needed)" : "", state.compacted ? "compacted" : "deleted by age",
         state.compacted ? " (cleanup.policy=delete needed)" : "", days, kept ? "" : " (7 needed)");
}

static enum mf_status visit_topic(void *context, const char *topic, int record, struct mf_error *error) {
    (void)record;
    (void)error;
    examine_topic(context, topic);
    return MF_OK;
}

static void examine_kafka(struct examination *examination) {
    bool development = examination->development;
    struct mf_error error;
    struct mf_admin *admin = NULL;
    int brokers;
    if (mf_settings_admin(examination->settings, &admin, &error) ||
        mf_admin_brokers(admin, &brokers, &error)) {
        find(examination, false, "kafka", "%s", error.message);
    } else {
        bool enough = development || brokers >= MF_TOPIC_REPLICATION;
        find(examination, enough, "kafka", "%d broker(s)%s", brokers,
             enough ? "" : "; 3 are needed to keep what was accepted (--development exempts this)");
        examination->admin = admin;
        each_topic(examination->settings, visit_topic, examination, &error);
    }
    mf_admin_destroy(admin);
}

static void examine_registry(struct examination *examination) {
    struct mf_error error;
    struct mf_registry *registry = NULL;
    if (open_registry(examination->settings, &registry, &error) || mf_registry_ping(registry, &error))
        find(examination, false, "registry", "%s", error.message);
    else
        find(examination, true, "registry", "answers");
    mf_registry_free(registry);
}

static void examine_database(struct examination *examination) {
    struct mf_error error;
    struct mf_database *database;
    if (mf_settings_database(examination->settings, false, &database, &error))
        find(examination, false, "database", "%s", error.message);
    else
        find(examination, true, "database", "answers, its schema fits this version");
}

int mf_command_doctor(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    struct examination examination = {.settings = settings};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            puts("usage: modelforge doctor [--development]\n\n"
                 "Checks that brokers and topics keep what they accept (3 replicas, min.insync.replicas 2,\n"
                 "cleanup.policy delete, 7 days or more), that the registry answers, and that the database "
                 "fits.\n"
                 "--development exempts a single broker from the replicas. Exit status 1 when there is a "
                 "fault.");
            return MF_EXIT_OK;
        }
        if (strcmp(argv[i], "--development") != 0)
            return mf_usage("doctor", "unexpected '%s'", argv[i]);
        examination.development = true;
    }
    if (mf_settings_load(settings, &error))
        return mf_fail(&error);
    examination.findings = json_array();
    examine_kafka(&examination);
    examine_registry(&examination);
    examine_database(&examination);
    if (settings->json) {
        char *text = json_dumps(examination.findings, JSON_COMPACT);
        puts(text ? text : "[]");
        free(text);
    }
    json_decref(examination.findings);
    return examination.faults ? MF_EXIT_FAILED : MF_EXIT_OK;
}
