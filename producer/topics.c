#include "producer/topics.h"

#include "common/clock.h"
#include "producer/trouble.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 15000, ATTEMPT_MS = 5000, METADATA_SLICE_MS = 1000 };

struct mf_admin {
    rd_kafka_t *kafka;
    rd_kafka_queue_t *queue;
    struct mf_kafka_trouble trouble;
};

/* The reason that the connection gave, when it gave one. */
static const char *why(struct mf_admin *admin, char text[MF_TROUBLE_TEXT_BYTES]) {
    rd_kafka_poll(admin->kafka, 0); /* nobody else lets the callbacks run */
    return mf_kafka_trouble_text(&admin->trouble, text);
}

enum mf_status mf_admin_create(const struct mf_client_property *kafka, size_t count, struct mf_admin **out,
                               struct mf_error *error) {
    char text[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    struct mf_admin *admin = calloc(1, sizeof *admin);
    if (!admin) {
        rd_kafka_conf_destroy(conf);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for an admin connection");
    }
    mf_kafka_trouble_init(&admin->trouble);
    rd_kafka_conf_set(conf, "log_level", "3", NULL,
                      0); /* errors are heard of only at a level that logs them */
    rd_kafka_conf_set(conf, "reconnect.backoff.ms", "50", NULL, 0);
    mf_kafka_trouble_watch(&admin->trouble, conf);
    enum mf_status status = MF_OK;
    for (size_t i = 0; i < count && !status; i++)
        if (rd_kafka_conf_set(conf, kafka[i].name, kafka[i].value, text, sizeof text) != RD_KAFKA_CONF_OK)
            status = mf_error_set(error, MF_ERROR_CONFIGURATION, "kafka.%s: %s", kafka[i].name, text);
    if (!status && !(admin->kafka = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text)))
        status = mf_error_set(error, MF_ERROR_CONFIGURATION, "kafka: %s", text);
    if (status) {
        rd_kafka_conf_destroy(conf);
        mf_kafka_trouble_destroy(&admin->trouble);
        free(admin);
        return status;
    }
    admin->queue = rd_kafka_queue_new(admin->kafka);
    *out = admin;
    return MF_OK;
}

void mf_admin_destroy(struct mf_admin *admin) {
    if (!admin)
        return;
    rd_kafka_queue_destroy(admin->queue);
    rd_kafka_destroy(admin->kafka);
    mf_kafka_trouble_destroy(&admin->trouble);
    free(admin);
}

static void set_number(rd_kafka_NewTopic_t *topic, const char *name, long long value) {
    char text[32];
    snprintf(text, sizeof text, "%lld", value);
    rd_kafka_NewTopic_set_config(topic, name, text);
}

/* One attempt; *reason gets Kafka's words when it fails. */
static rd_kafka_resp_err_t try_create(struct mf_admin *admin, rd_kafka_NewTopic_t *topic, char reason[512]) {
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(admin->kafka, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_request_timeout(options, ATTEMPT_MS, NULL, 0);
    rd_kafka_CreateTopics(admin->kafka, &topic, 1, options, admin->queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_event_t *event = rd_kafka_queue_poll(admin->queue, ATTEMPT_MS * 2);
    rd_kafka_resp_err_t result = RD_KAFKA_RESP_ERR__TIMED_OUT;
    snprintf(reason, 512, "no answer");
    if (event) {
        result = rd_kafka_event_error(event);
        snprintf(reason, 512, "%s", rd_kafka_event_error_string(event));
        if (!result) {
            size_t count = 0;
            const rd_kafka_topic_result_t **results =
                rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
            if (count) {
                const char *words = rd_kafka_topic_result_error_string(results[0]);
                result = rd_kafka_topic_result_error(results[0]);
                snprintf(reason, 512, "%s", words ? words : rd_kafka_err2str(result));
            }
        }
        rd_kafka_event_destroy(event);
    }
    return result;
}

enum mf_status mf_admin_create_topic(struct mf_admin *admin, const char *topic, int partitions, int replicas,
                                     bool *created, struct mf_error *error) {
    char reason[512], trouble[MF_TROUBLE_TEXT_BYTES];
    rd_kafka_NewTopic_t *new_topic =
        rd_kafka_NewTopic_new(topic, partitions, replicas, reason, sizeof reason);
    if (!new_topic)
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "topic %s: %s", topic, reason);
    rd_kafka_NewTopic_set_config(new_topic, "cleanup.policy", "delete");
    set_number(new_topic, "retention.ms", MF_TOPIC_RETENTION_MS);
    set_number(new_topic, "min.insync.replicas", replicas > 1 ? replicas - 1 : 1);
    int64_t deadline = mf_clock_monotonic_ms() + TIMEOUT_MS;
    rd_kafka_resp_err_t result;
    do /* a cluster that has just started may lack brokers for the replicas */
        result = try_create(admin, new_topic, reason);
    while (result && result != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS && mf_clock_monotonic_ms() < deadline &&
           (rd_kafka_poll(admin->kafka, 0), !mf_kafka_trouble_hopeless(&admin->trouble)));
    rd_kafka_NewTopic_destroy(new_topic);
    if (result && result != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
        return mf_error_set(error, MF_ERROR_KAFKA, "topic %s cannot be made: %s%s", topic, reason,
                            why(admin, trouble));
    *created = !result;
    return MF_OK;
}

static enum mf_status read_metadata(struct mf_admin *admin, const char *topic, struct mf_topic_state *state,
                                    struct mf_error *error) {
    rd_kafka_topic_t *handle = rd_kafka_topic_new(admin->kafka, topic, NULL);
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t result = rd_kafka_metadata(admin->kafka, 0, handle, &metadata, TIMEOUT_MS);
    if (!result && metadata->topic_cnt == 1) {
        const rd_kafka_metadata_topic_t *found = &metadata->topics[0];
        state->exists = !found->err;
        state->partitions = found->partition_cnt;
        for (int i = 0; i < found->partition_cnt; i++)
            if (!i || found->partitions[i].replica_cnt < state->replicas)
                state->replicas = found->partitions[i].replica_cnt;
    }
    if (metadata)
        rd_kafka_metadata_destroy(metadata);
    rd_kafka_topic_destroy(handle);
    char trouble[MF_TROUBLE_TEXT_BYTES];
    return result ? mf_error_set(error, MF_ERROR_KAFKA, "topic %s: %s%s", topic, rd_kafka_err2str(result),
                                 why(admin, trouble))
                  : MF_OK;
}

static void read_setting(struct mf_topic_state *state, const char *name, const char *value) {
    if (!value)
        return;
    if (!strcmp(name, "min.insync.replicas"))
        state->min_insync = (int)strtol(value, NULL, 10);
    else if (!strcmp(name, "retention.ms"))
        state->retention_ms = strtoll(value, NULL, 10);
    else if (!strcmp(name, "cleanup.policy"))
        state->compacted = strstr(value, "compact") != NULL;
}

static enum mf_status read_settings(struct mf_admin *admin, const char *topic, struct mf_topic_state *state,
                                    struct mf_error *error) {
    rd_kafka_ConfigResource_t *resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
    rd_kafka_DescribeConfigs(admin->kafka, &resource, 1, NULL, admin->queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(admin->queue, TIMEOUT_MS);
    rd_kafka_ConfigResource_destroy(resource);
    if (!event)
        return mf_error_set(error, MF_ERROR_KAFKA, "topic %s: its settings cannot be read: no answer", topic);
    enum mf_status status = MF_OK;
    rd_kafka_resp_err_t result = rd_kafka_event_error(event);
    size_t resources = 0, entries = 0;
    const rd_kafka_ConfigResource_t **found =
        result ? NULL
               : rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(event),
                                                           &resources);
    if (!result && resources)
        result = rd_kafka_ConfigResource_error(found[0]);
    if (result) {
        status = mf_error_set(error, MF_ERROR_KAFKA, "topic %s: its settings cannot be read: %s", topic,
                              rd_kafka_err2str(result));
    } else if (resources) {
        const rd_kafka_ConfigEntry_t **entry = rd_kafka_ConfigResource_configs(found[0], &entries);
        for (size_t i = 0; i < entries; i++)
            read_setting(state, rd_kafka_ConfigEntry_name(entry[i]), rd_kafka_ConfigEntry_value(entry[i]));
    }
    rd_kafka_event_destroy(event);
    return status;
}

enum mf_status mf_admin_describe_topic(struct mf_admin *admin, const char *topic,
                                       struct mf_topic_state *state, struct mf_error *error) {
    memset(state, 0, sizeof *state);
    enum mf_status status = read_metadata(admin, topic, state, error);
    if (status || !state->exists)
        return status;
    return read_settings(admin, topic, state, error);
}

enum mf_status mf_admin_brokers(struct mf_admin *admin, int *brokers, struct mf_error *error) {
    const struct rd_kafka_metadata *metadata;
    const int64_t deadline = mf_clock_monotonic_ms() + TIMEOUT_MS;
    char trouble[MF_TROUBLE_TEXT_BYTES];
    rd_kafka_resp_err_t result;
    do { /* in slices, to see a login that is refused */
        result = rd_kafka_metadata(admin->kafka, 0, NULL, &metadata, METADATA_SLICE_MS);
        rd_kafka_poll(admin->kafka, 0);
    } while (result && mf_clock_monotonic_ms() < deadline && !mf_kafka_trouble_hopeless(&admin->trouble));
    if (result)
        return mf_error_set(error, MF_ERROR_KAFKA, "no broker answers: %s%s; check kafka.bootstrap.servers",
                            rd_kafka_err2str(result), why(admin, trouble));
    *brokers = metadata->broker_cnt;
    rd_kafka_metadata_destroy(metadata);
    return MF_OK;
}

enum mf_status mf_admin_watermarks(struct mf_admin *admin, const char *topic, int32_t partition, int64_t *low,
                                   int64_t *high, struct mf_error *error) {
    char trouble[MF_TROUBLE_TEXT_BYTES];
    rd_kafka_resp_err_t result =
        rd_kafka_query_watermark_offsets(admin->kafka, topic, partition, low, high, TIMEOUT_MS);
    if (result)
        return mf_error_set(error, MF_ERROR_KAFKA, "partition %d of topic %s: %s%s", partition, topic,
                            rd_kafka_err2str(result), why(admin, trouble));
    return MF_OK;
}

enum mf_status mf_admin_cluster(struct mf_admin *admin, char *id, size_t bytes, struct mf_error *error) {
    char trouble[MF_TROUBLE_TEXT_BYTES];
    char *text = rd_kafka_clusterid(admin->kafka, TIMEOUT_MS);
    if (!text)
        return mf_error_set(
            error, MF_ERROR_KAFKA,
            "the cluster does not tell its id%s; check kafka.bootstrap.servers and the brokers",
            why(admin, trouble));
    snprintf(id, bytes, "%s", text);
    rd_kafka_mem_free(admin->kafka, text);
    return MF_OK;
}
