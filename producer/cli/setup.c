/* setup, migrate: the services that jobs need. */
#include "producer/cli/settings.h"

#include "schemas/registry.h"
#include "sql/migrate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        status = mf_settings_each_topic(settings, make_topic, &maker, error);
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
    enum mf_status status = mf_settings_registry(settings, &registry, error);
    if (!status)
        status = mf_settings_each_topic(settings, register_schema, registry, error);
    mf_registry_free(registry);
    return status;
}

static enum mf_status migrate(struct mf_settings *settings, const struct mf_migrate_options *options,
                              bool restored, struct mf_error *error) {
    struct mf_database *database;
    struct mf_migrate_report report;
    enum mf_status status = mf_settings_database(settings, true, &database, error);
    if (!status)
        status = mf_migrate(database, options, &report, error);
    if (!status)
        printf("database                         version %d, %d migration(s) applied\n", report.version,
               report.applied);
    if (!status && restored && !(status = mf_migrate_renew_incarnation(database, error)))
        printf("database                         a new incarnation: no lease of before counts\n");
    return status;
}

static const char migrate_help[] =
    "usage: modelforge migrate [--worker-login NAME] [--reader-login NAME] [--restored]\n\n"
    "Brings the database at database.url to this version's schema. Needs a superuser, or the owner of the\n"
    "database with CREATEROLE. The logins are made when they are missing and become members of\n"
    "modelforge_worker and modelforge_reader; a password is taken from MODELFORGE_WORKER_PASSWORD and\n"
    "MODELFORGE_READER_PASSWORD. Safe to repeat.\n\n"
    "--restored: the database was restored from a backup. Workers that took jobs in the time that is lost "
    "can write\n"
    "nothing more for them. Run it before workers are let in.";

int mf_command_migrate(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    struct mf_migrate_login logins[2];
    struct mf_migrate_options options = {logins, 0};
    bool restored = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            mf_print_help(stdout, migrate_help);
            return MF_EXIT_OK;
        }
        if (!strcmp(argv[i], "--restored")) {
            restored = true;
            continue;
        }
        bool worker = !strcmp(argv[i], "--worker-login");
        if ((!worker && strcmp(argv[i], "--reader-login") != 0) || i + 1 == argc || options.login_count == 2)
            return mf_usage("migrate", "unexpected '%s', or it lacks its value", argv[i]);
        logins[options.login_count++] = (struct mf_migrate_login){
            worker ? "modelforge_worker" : "modelforge_reader", argv[++i],
            getenv(worker ? "MODELFORGE_WORKER_PASSWORD" : "MODELFORGE_READER_PASSWORD")};
    }
    return migrate(settings, &options, restored, &error) ? mf_fail(&error) : MF_EXIT_OK;
}

int mf_command_setup(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    long partitions = 6, replicas = MF_TOPIC_REPLICATION;
    for (int i = 1; i < argc; i++) {
        char *end = NULL;
        if (!strcmp(argv[i], "--help")) {
            mf_print_help(
                stdout,
                "usage: modelforge setup [--partitions N] [--replication-factor N]\n\n"
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
        migrate(settings, &(struct mf_migrate_options){0}, false, &error))
        return mf_fail(&error);
    return MF_EXIT_OK;
}
