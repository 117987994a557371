#include "producer/raw.h"

#include "common/clock.h"
#include "common/text.h"
#include "producer/trouble.h"
#include "schemas/registry.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { DESTROY_WAIT_MS = 5000, FLUSH_SLICE_MS = 100 };

/* One topic we send to, with the id that its schema has in the registry (0: not asked for yet). */
struct destination {
    char *topic;
    enum mf_avro_record record;
    uint32_t schema_id;
};

struct mf_client {
    rd_kafka_t *kafka;
    struct mf_kafka_trouble trouble;
    struct mf_registry *registry;
    struct destination requests, commands;
    pthread_mutex_t lock; /* schema_id of both */
};

/* Travels with a message as its opaque. */
struct ticket {
    mf_delivery_function *delivered;
    void *user;
};

static void on_delivery(rd_kafka_t *kafka, const rd_kafka_message_t *message, void *opaque) {
    (void)kafka;
    struct mf_kafka_trouble *trouble = opaque;
    struct ticket *ticket = message->_private;
    bool failed = message->err != RD_KAFKA_RESP_ERR_NO_ERROR;
    char reason[MF_TROUBLE_TEXT_BYTES], text[MF_TROUBLE_TEXT_BYTES + 128];
    if (!failed)
        mf_kafka_trouble_over(trouble);
    if (!ticket)
        return;
    snprintf(text, sizeof text, "%s%s", rd_kafka_err2str(message->err),
             mf_kafka_trouble_text(trouble, reason));
    struct mf_delivery delivery = {
        .status = failed ? MF_ERROR_KAFKA : MF_OK,
        .message = failed ? text : "accepted",
        .topic = message->rkt ? rd_kafka_topic_name(message->rkt) : "",
        .partition = failed ? -1 : message->partition,
        .offset = failed ? -1 : message->offset,
    };
    ticket->delivered(&delivery, ticket->user);
    free(ticket);
}

static enum mf_status set_property(rd_kafka_conf_t *conf, const char *name, const char *value,
                                   struct mf_error *error) {
    char text[512];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text) != RD_KAFKA_CONF_OK)
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "kafka.%s: %s", name, text);
    return MF_OK;
}

/* What the contract fixes, and what is better than librdkafka's default here but may be overridden. */
static const struct mf_client_property fixed[] = {
    {"enable.idempotence", "true"}, {"acks", "all"}, {"partitioner", "murmur2_random"}};
static const struct mf_client_property preferred[] = {{"client.id", "modelforge-producer"},
                                                      {"linger.ms", "2"},
                                                      {"socket.nagle.disable", "true"},
                                                      {"reconnect.backoff.ms", "50"},
                                                      {"reconnect.backoff.max.ms", "1000"},
                                                      {"message.timeout.ms", "60000"},
                                                      {"topic.metadata.refresh.interval.ms", "30000"},
                                                      {"log_level", "3"}};

static bool is_fixed(const char *name) {
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (!strcmp(fixed[i].name, name) ||
            (!strcmp(fixed[i].name, "acks") && !strcmp(name, "request.required.acks")))
            return true;
    return false;
}

static enum mf_status build_conf(const struct mf_client_options *options, rd_kafka_conf_t *conf,
                                 struct mf_error *error) {
    bool servers = false;
    for (size_t i = 0; i < sizeof preferred / sizeof *preferred; i++) {
        enum mf_status status = set_property(conf, preferred[i].name, preferred[i].value, error);
        if (status)
            return status;
    }
    for (size_t i = 0; i < options->kafka_count; i++) {
        const struct mf_client_property *property = &options->kafka[i];
        if (is_fixed(property->name))
            return mf_error_set(error, MF_ERROR_CONFIGURATION,
                                "kafka.%s: the producer's contract fixes this property; remove it",
                                property->name);
        enum mf_status status = set_property(conf, property->name, property->value, error);
        if (status)
            return status;
        servers |=
            !strcmp(property->name, "bootstrap.servers") || !strcmp(property->name, "metadata.broker.list");
    }
    if (!servers)
        return mf_error_set(error, MF_ERROR_CONFIGURATION,
                            "kafka.bootstrap.servers is not set; give it as host:port[,host:port]");
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        enum mf_status status = set_property(conf, fixed[i].name, fixed[i].value, error);
        if (status)
            return status;
    }
    return MF_OK;
}

static enum mf_status start_producer(struct mf_client *client, const struct mf_client_options *options,
                                     struct mf_error *error) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    enum mf_status status = build_conf(options, conf, error);
    if (status) {
        rd_kafka_conf_destroy(conf);
        return status;
    }
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    mf_kafka_trouble_watch(&client->trouble, conf);
    char text[512];
    client->kafka = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
    if (!client->kafka) {
        rd_kafka_conf_destroy(conf);
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "kafka: %s", text);
    }
    return MF_OK;
}

enum mf_status mf_client_create(const struct mf_client_options *options, struct mf_client **out,
                                struct mf_error *error) {
    enum mf_status status = MF_OK;
    struct mf_client *client = calloc(1, sizeof *client);
    if (!client)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a client");
    pthread_mutex_init(&client->lock, NULL);
    mf_kafka_trouble_init(&client->trouble);
    client->requests =
        (struct destination){strdup(options->requests_topic ? options->requests_topic : MF_TOPIC_REQUESTS),
                             MF_AVRO_TRAINING_REQUEST, 0};
    client->commands =
        (struct destination){strdup(options->commands_topic ? options->commands_topic : MF_TOPIC_COMMANDS),
                             MF_AVRO_TRAINING_COMMAND, 0};
    if (!client->requests.topic || !client->commands.topic) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a client");
        goto done;
    }
    if ((status = start_producer(client, options, error)))
        goto done;
    status = mf_registry_new(&(struct mf_registry_options){.url = options->registry_url,
                                                           .username = options->registry_username,
                                                           .password = options->registry_password,
                                                           .ca_file = options->registry_ca_file},
                             &client->registry, error);
done:
    if (status)
        mf_client_destroy(client);
    else
        *out = client;
    return status;
}

void mf_client_destroy(struct mf_client *client) {
    if (!client)
        return;
    if (client->kafka) {
        if (!mf_kafka_trouble_hopeless(&client->trouble))
            rd_kafka_flush(client->kafka, DESTROY_WAIT_MS);
        rd_kafka_purge(client->kafka, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        rd_kafka_flush(client->kafka, DESTROY_WAIT_MS);
        rd_kafka_destroy(client->kafka);
    }
    mf_registry_free(client->registry);
    free(client->requests.topic);
    free(client->commands.topic);
    pthread_mutex_destroy(&client->lock);
    mf_kafka_trouble_destroy(&client->trouble);
    free(client);
}

/* The registry's id of the destination's schema, asked for once. */
static enum mf_status schema_id(struct mf_client *client, struct destination *destination, uint32_t *id,
                                struct mf_error *error) {
    enum mf_status status = MF_OK;
    pthread_mutex_lock(&client->lock);
    if (!destination->schema_id) {
        char *subject = mf_registry_subject(destination->topic);
        status = subject ? mf_registry_register(client->registry, subject,
                                                mf_avro_schema_text(destination->record),
                                                &destination->schema_id, error)
                         : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a subject name");
        free(subject);
    }
    *id = destination->schema_id;
    pthread_mutex_unlock(&client->lock);
    return status;
}

enum mf_status mf_raw_send(struct mf_client *client, const char *topic, const void *key, size_t key_size,
                           const void *value, size_t value_size, mf_delivery_function *delivered, void *user,
                           struct mf_error *error) {
    struct ticket *ticket = NULL;
    if (delivered) {
        ticket = malloc(sizeof *ticket);
        if (!ticket)
            return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a message");
        *ticket = (struct ticket){delivered, user};
    }
    rd_kafka_resp_err_t result = rd_kafka_producev(
        client->kafka, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_KEY(key, key_size),
        RD_KAFKA_V_VALUE((void *)value, value_size), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_OPAQUE(ticket), RD_KAFKA_V_END);
    if (!result)
        return MF_OK; /* NOLINT(clang-analyzer-unix.Malloc): on_delivery frees the ticket */
    free(ticket);
    return mf_error_set(error,
                        result == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ? MF_ERROR_MESSAGE_TOO_LARGE
                        : result == RD_KAFKA_RESP_ERR__QUEUE_FULL      ? MF_ERROR_QUEUE_FULL
                                                                       : MF_ERROR_KAFKA,
                        "topic %s: %s", topic, rd_kafka_err2str(result));
}

static enum mf_status send_message(struct mf_client *client, const struct destination *destination,
                                   const char *tenant, const char *request_id, const struct mf_text *message,
                                   mf_delivery_function *delivered, void *user, struct mf_error *error) {
    struct mf_text key = {0};
    mf_text_printf(&key, "%s/%s", tenant, request_id); /* a tenant's name has no slash */
    enum mf_status status = mf_text_status(&key, error);
    if (!status)
        status = mf_raw_send(client, destination->topic, key.data, key.length, message->data, message->length,
                             delivered, user, error);
    mf_text_free(&key);
    return status;
}

enum mf_status mf_client_submit(struct mf_client *client, struct mf_request *request,
                                mf_delivery_function *delivered, void *user, char job_id[MF_UUID_TEXT_BYTES],
                                struct mf_error *error) {
    enum mf_status status;
    struct mf_text message = {0};
    uint32_t id;
    if (!request->request_id) {
        char text[MF_UUID_TEXT_BYTES];
        request->request_id = strdup(mf_uuid_format(mf_uuid_random(), text));
        if (!request->request_id)
            return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a request id");
    }
    if ((status = mf_request_validate(request, error)) ||
        (status = mf_job_id(request->tenant, request->request_id, 1, job_id, error)) ||
        (status = schema_id(client, &client->requests, &id, error)) ||
        (status = mf_avro_encode_request(id, request, &message, error)))
        goto done;
    status = send_message(client, &client->requests, request->tenant, request->request_id, &message,
                          delivered, user, error);
done:
    mf_text_free(&message);
    return status;
}

enum mf_status mf_client_command(struct mf_client *client, struct mf_command *command,
                                 mf_delivery_function *delivered, void *user, struct mf_error *error) {
    enum mf_status status;
    struct mf_text message = {0};
    uint32_t id;
    if (!command->command_id[0])
        mf_uuid_format(mf_uuid_random(), command->command_id);
    if ((status = schema_id(client, &client->commands, &id, error)) ||
        (status = mf_avro_encode_command(id, command, &message, error)))
        goto done;
    status = send_message(client, &client->commands, command->tenant, command->request_id, &message,
                          delivered, user, error);
done:
    mf_text_free(&message);
    return status;
}

int mf_client_poll(struct mf_client *client, int timeout_ms) {
    return rd_kafka_poll(client->kafka, timeout_ms);
}

enum mf_status mf_client_flush(struct mf_client *client, int timeout_ms, struct mf_error *error) {
    const int64_t end = mf_clock_monotonic_ms() + timeout_ms;
    char reason[MF_TROUBLE_TEXT_BYTES];
    while (rd_kafka_flush(client->kafka, FLUSH_SLICE_MS) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        if (mf_kafka_trouble_hopeless(&client->trouble))
            return mf_error_set(error, MF_ERROR_KAFKA, "%d message(s) not accepted%s",
                                rd_kafka_outq_len(client->kafka),
                                mf_kafka_trouble_text(&client->trouble, reason));
        if (mf_clock_monotonic_ms() >= end)
            return mf_error_set(
                error, MF_ERROR_KAFKA,
                "%d message(s) not acknowledged after %d ms%s; check kafka.bootstrap.servers and the brokers",
                rd_kafka_outq_len(client->kafka), timeout_ms,
                mf_kafka_trouble_text(&client->trouble, reason));
    }
    return MF_OK;
}
