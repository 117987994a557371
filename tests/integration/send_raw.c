/* Sends what the client library would refuse to send: a request or command with any field values, or its
 * frame with any schema id, so that the worker's own checks are what is tested. Everything else about the
 * message is real.
 *
 *     send_raw BROKERS REGISTRY TOPIC request|command|frame:ID KEY NAME=VALUE...
 *
 * A request starts from the table's defaults and the required fields task, model_name, dataset; integers and
 * numbers are set without their range checks. A command takes command_id, tenant, request_id, action, reason.
 * Prints "PARTITION OFFSET" once the broker has acknowledged. */
#include "schemas/avro_codec.h"
#include "schemas/registry.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct mf_error error;

static _Noreturn void die(const char *what) {
    fprintf(stderr, "send_raw: %s: %s\n", what, error.message);
    exit(1);
}

static void set_text(char **slot, const char *text) {
    free(*slot);
    *slot = strdup(text);
}

static void set_request_field(struct mf_request *request, const char *name, const char *value) {
    const struct mf_field *field = mf_request_field_find(name);
    if (!field)
        die(name);
    void *at = (char *)request + field->offset;
    if (field->kind == MF_KIND_INTEGER)
        *(int64_t *)at = strtoll(value, NULL, 10);
    else if (field->kind == MF_KIND_NUMBER)
        *(double *)at = strtod(value, NULL);
    else if (field->kind == MF_KIND_STRING)
        set_text(at, value);
    else if (mf_request_set_text(request, name, value, &error))
        die(name);
}

/* Replaces `size` bytes that must stand in the message exactly once. */
static void patch(struct mf_text *message, const void *old, const void *new, size_t size) {
    char *at = memmem(message->data, message->length, old, size);
    if (!at || memmem(at + 1, message->length - (size_t)(at + 1 - message->data), old, size)) {
        fprintf(stderr, "send_raw: what is to be replaced is not there exactly once\n");
        exit(1);
    }
    memcpy(at, new, size);
}

static void apply_patches(char **pairs, int count, struct mf_text *message) {
    for (int i = 0; i < count; i++) {
        char *old = pairs[i] + 1, *new = strchr(pairs[i], 0) + 1; /* the '=' was cut to a NUL before */
        if (pairs[i][0] == '~') {
            patch(message, old, new, strlen(old));
        } else if (pairs[i][0] == '#') {
            double from = strtod(old, NULL), to = strtod(new, NULL);
            patch(message, &from, &to, sizeof from);
        }
    }
}

static void build_request(uint32_t id, char **pairs, int count, struct mf_text *message) {
    struct mf_request request;
    if (mf_request_init(&request, &error))
        die("request");
    set_request_field(&request, "task", "text-generation");
    set_request_field(&request, "model_name", "/nowhere/model");
    set_request_field(&request, "dataset", "/nowhere/data.jsonl");
    for (int i = 0; i < count; i++) {
        char *equals = strchr(pairs[i], '=');
        *equals = 0;
        if (pairs[i][0] != '~' && pairs[i][0] != '#')
            set_request_field(&request, pairs[i], equals + 1);
    }
    if (mf_avro_encode_request(id, &request, message, &error))
        die("encoding the request");
    apply_patches(pairs, count, message);
    mf_request_free(&request);
}

static void build_command(uint32_t id, char **pairs, int count, struct mf_text *message) {
    struct mf_command command = {.action = MF_COMMAND_CANCEL};
    mf_uuid_format(mf_uuid_random(), command.command_id);
    for (int i = 0; i < count; i++) {
        char *equals = strchr(pairs[i], '=');
        *equals = 0;
        const char *value = equals + 1;
        if (!strcmp(pairs[i], "command_id"))
            snprintf(command.command_id, sizeof command.command_id, "%s", value);
        else if (!strcmp(pairs[i], "tenant"))
            set_text(&command.tenant, value);
        else if (!strcmp(pairs[i], "request_id"))
            set_text(&command.request_id, value);
        else if (!strcmp(pairs[i], "reason"))
            set_text(&command.reason, value);
        else if (strcmp(pairs[i], "action") != 0 || !mf_command_action_parse(value, &command.action))
            die(pairs[i]);
    }
    if (mf_avro_encode_command(id, &command, message, &error))
        die("encoding the command");
    mf_command_free(&command);
}

static uint32_t schema_id(const char *url, const char *topic, enum mf_avro_record record) {
    struct mf_registry *registry;
    uint32_t id;
    char *subject = mf_registry_subject(topic);
    if (mf_registry_new(&(struct mf_registry_options){.url = url}, &registry, &error) ||
        mf_registry_register(registry, subject, mf_avro_schema_text(record), &id, &error))
        die("registry");
    mf_registry_free(registry);
    free(subject);
    return id;
}

static void on_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client;
    (void)opaque;
    if (message->err) {
        fprintf(stderr, "send_raw: %s\n", rd_kafka_err2str(message->err));
        exit(1);
    }
    printf("%d %lld\n", (int)message->partition, (long long)message->offset);
}

int main(int argc, char **argv) {
    struct mf_text message = {0};
    char reason[512];
    if (argc < 6)
        return 2;
    const char *topic = argv[3], *kind = argv[4], *key = argv[5];
    if (!strcmp(kind, "request"))
        build_request(schema_id(argv[2], topic, MF_AVRO_TRAINING_REQUEST), argv + 6, argc - 6, &message);
    else if (!strcmp(kind, "command"))
        build_command(schema_id(argv[2], topic, MF_AVRO_TRAINING_COMMAND), argv + 6, argc - 6, &message);
    else if (!strncmp(kind, "frame:", 6))
        build_request((uint32_t)strtoul(kind + 6, NULL, 10), argv + 6, argc - 6, &message);
    else
        return 2;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_conf_set(conf, "bootstrap.servers", argv[1], reason, sizeof reason);
    rd_kafka_conf_set(conf, "partitioner", "murmur2_random", reason, sizeof reason);
    rd_kafka_conf_set(conf, "enable.idempotence", "true", reason, sizeof reason);
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof reason);
    if (!client)
        return 1;
    rd_kafka_resp_err_t failure =
        rd_kafka_producev(client, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_KEY(key, strlen(key)),
                          RD_KAFKA_V_VALUE(message.data, message.length),
                          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    if (failure || rd_kafka_flush(client, 30000))
        return 1;
    rd_kafka_destroy(client);
    mf_text_free(&message);
    return 0;
}
