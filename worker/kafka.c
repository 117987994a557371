#include "worker/kafka.h"

#include "common/log.h"

#include <string.h>

static const struct mf_kafka_property defaults[] = {
    {"client.id", "modelforge-worker"},
    {"socket.nagle.disable", "true"},
    {"topic.metadata.refresh.interval.ms", "30000"},
    {"reconnect.backoff.ms", "50"},
    {"reconnect.backoff.max.ms", "2000"},
    {NULL, NULL},
};
static const struct mf_kafka_property consumer_defaults[] = {
    {"group.id", "modelforge-worker"},
    {"partition.assignment.strategy", "range,roundrobin"},
    {"isolation.level", "read_committed"},
    {"queued.max.messages.kbytes", "16384"},
    {"fetch.wait.max.ms", "100"},
    {"session.timeout.ms", "10000"},
    /* a killed worker keeps its partitions for this long */ {NULL, NULL},
};

/* Of both clients, so that one kafka.* list serves them: what the worker decides itself. */
static const char *const reserved[] = {
    "auto.offset.reset",   "enable.auto.commit", "enable.auto.offset.store",
    "enable.idempotence",  "partitioner",        "acks",
    "enable.partition.eof"};

struct building {
    rd_kafka_conf_t *conf;
    bool bootstrap_given;
};

static enum mf_status set(rd_kafka_conf_t *conf, const char *name, const char *value,
                          struct mf_error *error) {
    char reason[256];
    if (rd_kafka_conf_set(conf, name, value, reason, sizeof reason) != RD_KAFKA_CONF_OK)
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "kafka.%s: %s", name, reason);
    return MF_OK;
}

static enum mf_status set_all(rd_kafka_conf_t *conf, const struct mf_kafka_property *property,
                              struct mf_error *error) {
    enum mf_status status = MF_OK;
    for (; !status && property->name; property++)
        status = set(conf, property->name, property->value, error);
    return status;
}

static enum mf_status visit(void *context, const char *name, const char *value, struct mf_error *error) {
    struct building *building = context;
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (!strcmp(reserved[i], name))
            return mf_error_set(error, MF_ERROR_CONFIGURATION,
                                "kafka.%s: modelforge-worker decides this itself; remove it", name);
    if (!strcmp(name, "partition.assignment.strategy") && strstr(value, "cooperative"))
        return mf_error_set(error, MF_ERROR_CONFIGURATION,
                            "kafka.%s: offsets live in PostgreSQL, which needs range or roundrobin", name);
    building->bootstrap_given |= !strcmp(name, "bootstrap.servers") || !strcmp(name, "metadata.broker.list");
    return set(building->conf, name, value, error);
}

static void on_log(const rd_kafka_t *client, int level, const char *facility, const char *text) {
    enum mf_log_level ours = level <= 3 ? MF_LOG_WARNING : level <= 5 ? MF_LOG_INFO : MF_LOG_DEBUG;
    (void)client;
    if (!strcmp(facility, "CONFWARN")) /* a property of the other kind of client: one list serves both */
        ours = MF_LOG_DEBUG;
    mf_log(ours, "kafka client", MF_LOG_TEXT("facility", facility), MF_LOG_TEXT("text", text));
}

enum mf_status mf_kafka_new(struct mf_worker *worker, rd_kafka_type_t type,
                            const struct mf_kafka_property *fixed, void (*prepare)(rd_kafka_conf_t *conf),
                            void *opaque, rd_kafka_t **client, struct mf_error *error) {
    char reason[512];
    struct building building = {.conf = rd_kafka_conf_new()};
    enum mf_status status;
    *client = NULL;
    rd_kafka_conf_set_log_cb(building.conf, on_log);
    rd_kafka_conf_set_opaque(building.conf, opaque);
    if ((status = set_all(building.conf, defaults, error)) ||
        (type == RD_KAFKA_CONSUMER && (status = set_all(building.conf, consumer_defaults, error))) ||
        (status = mf_config_each(worker->settings->config, "kafka.*", visit, &building, error)) ||
        (status = set_all(building.conf, fixed, error)))
        goto failed;
    if (!building.bootstrap_given) {
        status = mf_error_set(error, MF_ERROR_CONFIGURATION, "kafka.bootstrap.servers: must be given");
        goto failed;
    }
    if (prepare)
        prepare(building.conf);
    *client = rd_kafka_new(type, building.conf, reason, sizeof reason);
    if (*client)
        return MF_OK;
    status = mf_error_set(error, MF_ERROR_CONFIGURATION, "kafka: %s", reason);
failed:
    rd_kafka_conf_destroy(building.conf);
    return status;
}

enum mf_status mf_kafka_check(struct mf_worker *worker, struct mf_error *error) {
    static const struct mf_kafka_property none[] = {{NULL, NULL}};
    rd_kafka_t *client;
    enum mf_status status = mf_kafka_new(worker, RD_KAFKA_CONSUMER, none, NULL, NULL, &client, error);
    if (!status)
        rd_kafka_destroy(client);
    return status;
}
