/* libmodelforge-producer: sends training requests and commands to Kafka, as another service would link it.
 *
 *     mf_client_create -> mf_client_submit ... -> mf_client_poll now and then -> mf_client_flush ->
 * mf_client_destroy
 *
 * A request is *accepted* when its delivery callback says MF_OK: every in-sync replica then has it. The job's
 * id is known before that (UUIDv5 of tenant, request_id and generation 1), and sending the same request twice
 * makes one job. Properties that the contract fixes (idempotence, acks=all, partitioner) cannot be
 * overridden. */
#ifndef MF_PRODUCER_CLIENT_H
#define MF_PRODUCER_CLIENT_H

#include "common/digest.h"
#include "common/error.h"
#include "schemas/command.h"
#include "schemas/request.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MF_TOPIC_REQUESTS "modelforge.requests"
#define MF_TOPIC_COMMANDS "modelforge.commands"

/* A librdkafka property: {"bootstrap.servers", "host:9092"}. */
struct mf_client_property {
    const char *name, *value;
};

/* Copied. */
struct mf_client_options {
    const struct mf_client_property *kafka; /* bootstrap.servers at least */
    size_t kafka_count;
    const char *registry_url; /* Confluent-compatible, may have a path */
    const char *registry_username, *registry_password, *registry_ca_file; /* NULL: none */
    const char *requests_topic, *commands_topic; /* NULL: MF_TOPIC_REQUESTS, MF_TOPIC_COMMANDS */
};

/* What became of one message. Strings live for the callback. */
struct mf_delivery {
    enum mf_status status; /* MF_OK: accepted; MF_ERROR_KAFKA: it was not, `message` says why */
    const char *message;
    const char *topic;
    int32_t partition; /* -1 when it was not accepted */
    int64_t offset;
};
/* Called once a message, from mf_client_poll, mf_client_flush or mf_client_destroy. */
typedef void mf_delivery_function(const struct mf_delivery *delivery, void *user);

/* Any thread may use a client; one thread at a time may destroy it. */
struct mf_client;

/* Connects in the background: a broker that is down shows at delivery, a wrong property here
 * (MF_ERROR_CONFIGURATION names it). */
enum mf_status mf_client_create(const struct mf_client_options *options, struct mf_client **client,
                                struct mf_error *error);
/* Waits up to 5 s for what is on its way; callbacks of the rest get MF_ERROR_KAFKA. NULL is fine. */
void mf_client_destroy(struct mf_client *client);

/* Validates, encodes and hands a request to the sender. A request without request_id gets a random one
 * (written into *request). `job_id` gets the id of its job. `delivered` may be NULL. Does not wait for the
 * broker; asks the registry for the schema's id the first time. Errors: those of mf_request_validate;
 * MF_ERROR_REGISTRY; MF_ERROR_QUEUE_FULL (back-pressure: poll, then try again); MF_ERROR_KAFKA when the
 * producer has failed for good (destroy this client, make another, send what was not accepted again). */
enum mf_status mf_client_submit(struct mf_client *client, struct mf_request *request,
                                mf_delivery_function *delivered, void *user, char job_id[MF_UUID_TEXT_BYTES],
                                struct mf_error *error);

/* Cancel and so on of one job. An empty command_id gets a random one. The same rules. */
enum mf_status mf_client_command(struct mf_client *client, struct mf_command *command,
                                 mf_delivery_function *delivered, void *user, struct mf_error *error);

/* Runs callbacks, waiting up to timeout_ms for the first. Returns how many ran. */
int mf_client_poll(struct mf_client *client, int timeout_ms);
/* Runs callbacks until nothing is on its way; MF_ERROR_KAFKA with how many messages still were after
 * timeout_ms, or at once when every broker refuses this client's login or certificate. */
enum mf_status mf_client_flush(struct mf_client *client, int timeout_ms, struct mf_error *error);

#ifdef __cplusplus
}
#endif

#endif
