/* doctor: whether brokers, topics, registry, database and workers do what they should. */
#include "producer/cli/doctor.h"

#include "common/clock.h"
#include "common/text.h"
#include "schemas/avro_codec.h"
#include "sql/migrate.h"
#include "sql/store.h"

#include <stdlib.h>
#include <string.h>

enum { CLOCK_TOLERANCE_MS = 5000 };

/* Fault, or fine under --development. */
static enum mf_finding_level unless_development(const struct mf_examination *examination, bool good) {
    return good || examination->development ? MF_FINDING_OK : MF_FINDING_FAULT;
}

/* ---- Kafka ---- */

/* The settings of a topic that are not as they must be: "min.insync.replicas=2,...". */
static void wanted_settings(const struct mf_topic_state *state, int in_sync, struct mf_text *wanted) {
    if (state->min_insync < in_sync)
        mf_text_printf(wanted, ",min.insync.replicas=%d", in_sync);
    if (state->compacted)
        mf_text_puts(wanted, ",cleanup.policy=delete");
    if (state->retention_ms >= 0 && state->retention_ms < MF_TOPIC_RETENTION_MS)
        mf_text_printf(wanted, ",retention.ms=%lld", (long long)MF_TOPIC_RETENTION_MS);
}

static void judge_topic(struct mf_examination *examination, const char *topic,
                        const struct mf_topic_state *state) {
    const bool development = examination->development;
    const int replicas = development ? 1 : MF_TOPIC_REPLICATION;
    const int in_sync = development ? 1 : MF_TOPIC_MIN_INSYNC;
    struct mf_text wanted = {0}, mend = {0};
    char days[32] = "kept for ever";
    wanted_settings(state, in_sync, &wanted);
    if (state->replicas < replicas)
        mf_text_puts(&mend, "kafka-reassign-partitions.sh raises the number of replicas");
    if (wanted.length)
        mf_text_printf(&mend, "%skafka-configs.sh --alter --topic %s --add-config %s",
                       mend.length ? "; " : "", topic, wanted.data + 1);
    if (state->retention_ms >= 0)
        snprintf(days, sizeof days, "kept %.3g days", (double)state->retention_ms / 86400e3);
    mf_find(&examination->findings, mend.length ? MF_FINDING_FAULT : MF_FINDING_OK, topic, mend.data,
            "%d partition(s), %d replica(s)%s, min.insync.replicas %d%s, %s%s, %s%s", state->partitions,
            state->replicas, state->replicas < replicas ? " (3 needed)" : "", state->min_insync,
            state->min_insync < in_sync ? " (2 needed)" : "",
            state->compacted ? "compacted" : "deleted by age",
            state->compacted ? " (cleanup.policy=delete needed)" : "", days,
            state->retention_ms >= 0 && state->retention_ms < MF_TOPIC_RETENTION_MS ? " (7 needed)" : "");
    mf_text_free(&wanted);
    mf_text_free(&mend);
}

static enum mf_status examine_topic(void *context, const char *topic, int record, struct mf_error *error) {
    struct mf_examination *examination = context;
    struct mf_topic_state state;
    (void)record;
    if (mf_admin_describe_topic(examination->admin, topic, &state, error))
        mf_find(&examination->findings, MF_FINDING_FAULT, topic, NULL, "%s", error->message);
    else if (!state.exists)
        mf_find(&examination->findings, MF_FINDING_FAULT, topic, "modelforge setup", "does not exist");
    else
        judge_topic(examination, topic, &state);
    return MF_OK;
}

static void examine_kafka(struct mf_examination *examination) {
    struct mf_error error;
    struct mf_admin *admin = NULL;
    int brokers;
    if (mf_settings_admin(examination->settings, &admin, &error) ||
        mf_admin_brokers(admin, &brokers, &error)) {
        mf_find(&examination->findings, MF_FINDING_FAULT, "kafka",
                "kafka.bootstrap.servers names brokers that run and that this host reaches; "
                "kafka.security.protocol, "
                "kafka.ssl.* and kafka.sasl.* are what they ask for",
                "%s", error.message);
    } else {
        const enum mf_finding_level level = unless_development(examination, brokers >= MF_TOPIC_REPLICATION);
        mf_find(&examination->findings, level, "kafka",
                level ? "add brokers; --development exempts a cluster that need not keep anything" : NULL,
                "%d broker(s)%s", brokers, level ? "; 3 are needed to keep what was accepted" : "");
        examination->admin = admin;
        mf_settings_each_topic(examination->settings, examine_topic, examination, &error);
    }
    mf_admin_destroy(admin);
    examination->admin = NULL;
}

/* ---- the registry ---- */

struct schema_visit {
    struct mf_examination *examination;
    struct mf_registry *registry;
};

static enum mf_status examine_schema(void *context, const char *topic, int record, struct mf_error *error) {
    struct schema_visit *visit = context;
    struct mf_findings *findings = &visit->examination->findings;
    char level[MF_COMPATIBILITY_BYTES], *subject = record < 0 ? NULL : mf_registry_subject(topic);
    uint32_t id;
    if (!subject)
        return MF_OK;
    enum mf_status status = mf_registry_find(visit->registry, subject,
                                             mf_avro_schema_text((enum mf_avro_record)record), &id, error);
    if (status == MF_ERROR_UNKNOWN_SCHEMA)
        mf_find(findings, MF_FINDING_FAULT, subject, "modelforge setup",
                "this version's schema is not registered");
    else if (status || mf_registry_compatibility(visit->registry, subject, level, error))
        mf_find(findings, MF_FINDING_FAULT, subject, NULL, "%s", error->message);
    else if (!strncmp(level, "BACKWARD", 8) || !strncmp(level, "FULL", 4))
        mf_find(findings, MF_FINDING_OK, subject, NULL, "schema %u, %s", id, level);
    else
        mf_find(
            findings, MF_FINDING_FAULT, subject, "modelforge setup",
            "schema %u, but its compatibility is %s: a schema that workers cannot read could be registered",
            id, level);
    free(subject);
    return MF_OK;
}

static void examine_registry(struct mf_examination *examination) {
    struct mf_error error;
    struct schema_visit visit = {.examination = examination};
    if (mf_settings_registry(examination->settings, &visit.registry, &error) ||
        mf_registry_ping(visit.registry, &error)) {
        mf_find(&examination->findings, MF_FINDING_FAULT, "registry",
                "registry.url names a registry that runs, with its path (/apis/ccompat/v7 of Apicurio); "
                "registry.username, registry.password and registry.ca_file are what it asks for",
                "%s", error.message);
    } else {
        mf_find(&examination->findings, MF_FINDING_OK, "registry", NULL, "answers");
        mf_settings_each_topic(examination->settings, examine_schema, &visit, &error);
    }
    mf_registry_free(visit.registry);
}

/* ---- the database, and what it says of the rest ---- */

static const char *cell(const struct mf_text_table *row, const char *column) {
    for (size_t c = 0; c < row->columns; c++)
        if (!strcmp(row->column[c], column))
            return row->cell[c];
    return NULL;
}

static long long count_of(const struct mf_text_table *row, const char *column) {
    const char *text = cell(row, column);
    return text ? strtoll(text, NULL, 10) : 0;
}

static void judge_server(struct mf_examination *examination, const struct mf_text_table *row,
                         int64_t asked_ms, int64_t answered_ms) {
    struct mf_findings *findings = &examination->findings;
    const bool fits = !strcmp(cell(row, "server_fits"), "t");
    const char *missing = cell(row, "roles_missing"), *logins = cell(row, "worker_logins");
    const int64_t there_ms = count_of(row, "clock_ms");
    const int64_t apart_ms = there_ms < asked_ms      ? asked_ms - there_ms
                             : there_ms > answered_ms ? there_ms - answered_ms
                                                      : 0;
    mf_find(findings, fits ? MF_FINDING_OK : MF_FINDING_FAULT, "database",
            fits ? NULL : "PostgreSQL 14 or later is needed", "PostgreSQL %s, its schema fits this version",
            cell(row, "server"));
    if (missing)
        mf_find(findings, MF_FINDING_FAULT, "roles", "modelforge migrate", "missing: %s", missing);
    else if (!logins && !examination->development)
        mf_find(findings, MF_FINDING_WARNING, "roles", "modelforge migrate --worker-login NAME",
                "no login is a member of modelforge_worker: workers have more rights than they need");
    else
        mf_find(findings, MF_FINDING_OK, "roles", NULL, "logins of workers: %s", logins ? logins : "none");
    mf_find(findings, apart_ms > CLOCK_TOLERANCE_MS ? MF_FINDING_WARNING : MF_FINDING_OK, "clock",
            apart_ms > CLOCK_TOLERANCE_MS
                ? "let both keep time by NTP; until then run_at and deadline are as wrong as "
                  "the clock of who wrote them"
                : NULL,
            "%.1f s between this host and PostgreSQL", (double)apart_ms / 1000);
}

static void judge_workers(struct mf_examination *examination, const struct mf_text_table *row) {
    struct mf_findings *findings = &examination->findings;
    const char *providers = cell(row, "providers"), *others = cell(row, "other_versions");
    const char *silent = cell(row, "silent"), *gpus = cell(row, "faulty_gpus");
    const long long live = count_of(row, "live");
    if (live)
        mf_find(findings, MF_FINDING_OK, "workers", NULL, "%lld live, offering %s", live,
                providers ? providers : "no provider");
    else
        mf_find(findings, unless_development(examination, false), "workers",
                examination->development ? NULL
                                         : "start modelforge-worker; its log says why it does not stay",
                "none is live: jobs wait until one is started");
    if (gpus)
        mf_find(findings, MF_FINDING_WARNING, "GPUs",
                "no job gets them until they work; nvidia-smi -q on the host", "faulty: %s", gpus);
    if (others)
        mf_find(findings, MF_FINDING_WARNING, "workers' versions",
                "one version everywhere, workers before clients", "this is %s, others are: %s", MF_VERSION,
                others);
    if (silent)
        mf_find(findings, MF_FINDING_WARNING, "silent workers",
                "look at the host; a worker that was stopped by SIGTERM is not listed",
                "not heard for longer than they said, and not stopped: %s", silent);
}

static void judge_work(struct mf_examination *examination, const struct mf_text_table *row) {
    struct mf_findings *findings = &examination->findings;
    const long long halted = count_of(row, "halted"), parked = count_of(row, "parked");
    const long long unplaceable = count_of(row, "unplaceable");
    mf_find(findings, halted ? MF_FINDING_FAULT : MF_FINDING_OK, "partitions",
            halted ? "modelforge ingest status says why; modelforge ingest reset lets them go on" : NULL,
            "%lld read, %lld halted", count_of(row, "partitions"), halted);
    mf_find(findings, parked ? MF_FINDING_FAULT : MF_FINDING_OK, "outbox",
            parked ? "SELECT * FROM outbox_parked says why Kafka refused them" : NULL,
            "%lld event(s) or dead letter(s) that Kafka refused for good", parked);
    mf_find(findings, unplaceable ? MF_FINDING_WARNING : MF_FINDING_OK, "jobs",
            unplaceable ? "modelforge status JOB says what they wait for" : NULL,
            "%lld queued, %lld running, %lld that no live worker can take", count_of(row, "queued"),
            count_of(row, "running"), unplaceable);
}

static void examine_database(struct mf_examination *examination) {
    struct mf_error error;
    struct mf_database *database;
    struct mf_text_table row = {0};
    const char *url;
    enum mf_status status = mf_settings_database(examination->settings, true, &database, &error);
    if (status) {
        url = mf_config_string(examination->settings->config, "database.url");
        mf_find(
            &examination->findings, MF_FINDING_FAULT, "database",
            url ? "database.url names a server that runs, a database that exists and a login that may read it"
                : NULL,
            "%s", error.message);
        return;
    }
    if (mf_migrate_check(database, &error)) {
        mf_find(&examination->findings, MF_FINDING_FAULT, "database", NULL, "%s", error.message);
        return;
    }
    const int64_t asked_ms = mf_clock_realtime_ms();
    if (mf_store_health(database, &row, &error)) {
        mf_find(&examination->findings, MF_FINDING_FAULT, "database", NULL, "%s", error.message);
    } else if (row.rows == 1) {
        judge_server(examination, &row, asked_ms, mf_clock_realtime_ms());
        judge_workers(examination, &row);
        judge_work(examination, &row);
    }
    mf_text_table_free(&row);
}

static const char help[] =
    "usage: modelforge doctor [--development] [--worker FILE]\n\n"
    "Looks at the whole system and says what is wrong and how to mend it: brokers and topics keep what\n"
    "they accept (3 replicas, min.insync.replicas 2, cleanup.policy delete, 7 days or more), the registry\n"
    "has this version's schemas, the database has its migrations and roles, clocks agree, workers live,\n"
    "no partition is halted and no event parked.\n"
    "--worker FILE checks this host as a worker's, too, with the worker's file alone: its storage is\n"
    "written, read back and removed, and work.dir, trainer, devices, folders and logins are looked at. Run\n"
    "it as the user that the worker runs as. Where this command's own configuration has storage.url, that\n"
    "is done without the flag.\n"
    "--development exempts a single broker, a missing worker and a superuser's login. Exit status 1 when\n"
    "there is a fault, 0 when there are only warnings.";

int mf_command_doctor(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    struct mf_examination examination = {.settings = settings};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            mf_print_help(stdout, help);
            return MF_EXIT_OK;
        }
        if (!strcmp(argv[i], "--development"))
            examination.development = true;
        else if (!strcmp(argv[i], "--worker") && i + 1 < argc)
            examination.worker_config = argv[++i];
        else
            return mf_usage("doctor", "unexpected '%s', or it lacks its value", argv[i]);
    }
    if (mf_settings_load(settings, &error))
        return mf_fail(&error);
    mf_findings_begin(&examination.findings, settings->json);
    examine_kafka(&examination);
    examine_registry(&examination);
    examine_database(&examination);
    mf_doctor_worker(&examination);
    return mf_findings_end(&examination.findings) ? MF_EXIT_FAILED : MF_EXIT_OK;
}
