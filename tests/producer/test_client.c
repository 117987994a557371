/* The client library against a real broker and a real registry; what arrives is read by a plain consumer. */
#include "producer/client.h"
#include "producer/topics.h"

#include "common/clock.h"
#include "schemas/registry.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SKIPPED = 77, WAIT_MS = 30000 };

static const char *brokers, *registry_url;
static char topic[64];

static void delivered(const struct mf_delivery *delivery, void *user) {
    struct mf_delivery *kept = user;
    *kept = *delivery;
    kept->message = kept->topic = NULL;
}

static struct mf_client *make_client(void) {
    struct mf_error error;
    struct mf_client *client = NULL;
    struct mf_client_property property = {"bootstrap.servers", brokers};
    struct mf_client_options options = {
        .kafka = &property, .kafka_count = 1, .registry_url = registry_url, .requests_topic = topic};
    if (mf_client_create(&options, &client, &error))
        fail_msg("%s", error.message);
    return client;
}

/* The only message of the topic. */
static rd_kafka_message_t *consume_one(rd_kafka_t **kafka) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    assert_int_equal(rd_kafka_conf_set(conf, "bootstrap.servers", brokers, NULL, 0), RD_KAFKA_CONF_OK);
    assert_int_equal(rd_kafka_conf_set(conf, "group.id", topic, NULL, 0), RD_KAFKA_CONF_OK);
    *kafka = rd_kafka_new(RD_KAFKA_CONSUMER, conf, NULL, 0);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, 0)->offset = RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_assign(*kafka, list);
    rd_kafka_topic_partition_list_destroy(list);
    int64_t deadline = mf_clock_monotonic_ms() + WAIT_MS;
    while (mf_clock_monotonic_ms() < deadline) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(*kafka, 200);
        if (message && !message->err)
            return message;
        if (message)
            rd_kafka_message_destroy(message);
    }
    fail_msg("nothing arrived on %s", topic);
    return NULL;
}

static void test_submitted_request_arrives(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_client *client = make_client();
    struct mf_request request, arrived = {0};
    struct mf_delivery delivery = {.status = MF_ERROR_INTERNAL};
    char job_id[MF_UUID_TEXT_BYTES], expected[MF_UUID_TEXT_BYTES];
    assert_int_equal(mf_request_init(&request, &error), MF_OK);
    request.task = strdup("text-generation");
    request.model_name = strdup("/models/small");
    request.dataset = strdup("/data/rows.jsonl");
    request.request_id = strdup("nightly-7");
    request.learning_rate = 1e-3;
    if (mf_client_submit(client, &request, delivered, &delivery, job_id, &error))
        fail_msg("%s", error.message);
    if (mf_client_flush(client, WAIT_MS, &error))
        fail_msg("%s", error.message);
    assert_int_equal(delivery.status, MF_OK);
    assert_int_equal(delivery.offset, 0);
    assert_int_equal(mf_job_id("default", "nightly-7", 1, expected, &error), MF_OK);
    assert_string_equal(job_id, expected);

    rd_kafka_t *kafka = NULL;
    rd_kafka_message_t *message = consume_one(&kafka);
    assert_int_equal(message->key_len, strlen("default/nightly-7"));
    assert_memory_equal(message->key, "default/nightly-7", message->key_len);
    uint32_t id;
    const uint8_t *body;
    size_t body_bytes;
    assert_int_equal(mf_avro_unframe(message->payload, message->len, &id, &body, &body_bytes, &error), MF_OK);
    struct mf_registry *registry = NULL;
    const struct mf_avro_schema *schema = NULL;
    char *subject = mf_registry_subject(topic);
    assert_int_equal(mf_registry_new(&(struct mf_registry_options){.url = registry_url}, &registry, &error),
                     MF_OK);
    if (mf_registry_writer_schema(registry, subject, id, &schema, &error) ||
        mf_avro_decode_request(schema, body, body_bytes, &arrived, &error))
        fail_msg("%s", error.message);
    assert_non_null(arrived.model_name);
    assert_string_equal(arrived.model_name, "/models/small");
    assert_true(arrived.learning_rate == 1e-3);
    mf_request_free(&arrived);
    free(subject);
    mf_registry_free(registry);
    rd_kafka_message_destroy(message);
    rd_kafka_destroy(kafka);
    mf_request_free(&request);
    mf_client_destroy(client);
}

static void test_invalid_request_is_not_sent(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_client *client = make_client();
    struct mf_request request;
    char job_id[MF_UUID_TEXT_BYTES];
    assert_int_equal(mf_request_init(&request, &error), MF_OK);
    assert_int_equal(mf_client_submit(client, &request, NULL, NULL, job_id, &error), MF_ERROR_MISSING_FIELD);
    assert_int_equal(mf_client_flush(client, 0, &error), MF_OK);
    mf_request_free(&request);
    mf_client_destroy(client);
}

static void test_fixed_properties_cannot_be_overridden(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_client *client = NULL;
    struct mf_client_property properties[] = {{"bootstrap.servers", brokers}, {"acks", "1"}};
    struct mf_client_options options = {.kafka = properties, .kafka_count = 2, .registry_url = registry_url};
    assert_int_equal(mf_client_create(&options, &client, &error), MF_ERROR_CONFIGURATION);
    assert_non_null(strstr(error.message, "kafka.acks"));
    properties[1] = (struct mf_client_property){"no.such.property", "1"};
    assert_int_equal(mf_client_create(&options, &client, &error), MF_ERROR_CONFIGURATION);
    assert_non_null(strstr(error.message, "no.such.property"));
}

/* A broker that is not there: the callback says so, nothing hangs. */
static void test_unreachable_broker_is_told(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_client *client = NULL;
    struct mf_request request;
    struct mf_delivery delivery = {.status = MF_OK};
    char job_id[MF_UUID_TEXT_BYTES];
    struct mf_client_property properties[] = {{"bootstrap.servers", "127.0.0.1:1"},
                                              {"message.timeout.ms", "1000"}};
    struct mf_client_options options = {
        .kafka = properties, .kafka_count = 2, .registry_url = registry_url, .requests_topic = topic};
    assert_int_equal(mf_client_create(&options, &client, &error), MF_OK);
    assert_int_equal(mf_request_init(&request, &error), MF_OK);
    request.task = strdup("text-generation");
    request.model_name = strdup("/m");
    request.dataset = strdup("/d");
    assert_int_equal(mf_client_submit(client, &request, delivered, &delivery, job_id, &error), MF_OK);
    assert_non_null(request.request_id); /* a random one */
    assert_int_equal(mf_client_flush(client, WAIT_MS, &error), MF_OK);
    assert_int_equal(delivery.status, MF_ERROR_KAFKA);
    assert_int_equal(delivery.partition, -1);
    mf_request_free(&request);
    mf_client_destroy(client);
}

static void fill(struct mf_request *request) {
    struct mf_error error;
    assert_int_equal(mf_request_init(request, &error), MF_OK);
    request->task = strdup("text-generation");
    request->model_name = strdup("/m");
    request->dataset = strdup("/d");
}

static void count(const struct mf_delivery *delivery, void *user) {
    atomic_int *counts = user; /* accepted, refused */
    atomic_fetch_add(&counts[delivery->status != MF_OK], 1);
}

/* Nothing is waited for and nothing dropped when the queue is full: the sender is told, and polls. */
static void test_a_full_queue_pushes_back(void **state) {
    enum { ROOM = 5 };
    (void)state;
    struct mf_error error;
    struct mf_client *client = NULL;
    struct mf_request request;
    atomic_int counts[2] = {0};
    char job_id[MF_UUID_TEXT_BYTES];
    struct mf_client_property properties[] = {{"bootstrap.servers", "127.0.0.1:1"},
                                              {"message.timeout.ms", "1000"},
                                              {"queue.buffering.max.messages", "5"}};
    struct mf_client_options options = {
        .kafka = properties, .kafka_count = 3, .registry_url = registry_url, .requests_topic = topic};
    assert_int_equal(mf_client_create(&options, &client, &error), MF_OK);
    fill(&request);
    for (int i = 0; i < ROOM; i++)
        assert_int_equal(mf_client_submit(client, &request, count, counts, job_id, &error), MF_OK);
    const int64_t began_ms = mf_clock_monotonic_ms();
    assert_int_equal(mf_client_submit(client, &request, count, counts, job_id, &error), MF_ERROR_QUEUE_FULL);
    assert_true(mf_clock_monotonic_ms() - began_ms < 500);
    const int64_t deadline_ms = mf_clock_monotonic_ms() + WAIT_MS;
    enum mf_status status = MF_ERROR_QUEUE_FULL; /* until the first ones have timed out */
    while (status == MF_ERROR_QUEUE_FULL && mf_clock_monotonic_ms() < deadline_ms) {
        mf_client_poll(client, 100);
        status = mf_client_submit(client, &request, count, counts, job_id, &error);
    }
    assert_int_equal(status, MF_OK);
    assert_int_equal(mf_client_flush(client, WAIT_MS, &error), MF_OK);
    assert_int_equal(counts[0], 0);
    assert_int_equal(counts[1], ROOM + 1); /* one callback each, and none for what was pushed back */
    mf_request_free(&request);
    mf_client_destroy(client);
}

enum { SENDERS = 4, EACH = 200 };
struct sender {
    struct mf_client *client;
    atomic_int *counts;
    int number;
    pthread_t thread;
};

static void *send_many(void *argument) {
    const struct sender *sender = argument;
    struct mf_error error;
    struct mf_request request;
    char job_id[MF_UUID_TEXT_BYTES], name[32];
    fill(&request);
    for (int i = 0; i < EACH; i++) {
        snprintf(name, sizeof name, "thread-%d-%d", sender->number, i);
        free(request.request_id);
        request.request_id = strdup(name);
        while (mf_client_submit(sender->client, &request, count, sender->counts, job_id, &error) ==
               MF_ERROR_QUEUE_FULL)
            mf_client_poll(sender->client, 10);
        mf_client_poll(sender->client, 0);
    }
    mf_request_free(&request);
    return NULL;
}

/* Several threads send and poll by one client: one callback a request. */
static void test_threads_share_a_client(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_client *client = make_client();
    struct sender sender[SENDERS];
    atomic_int counts[2] = {0};
    for (int i = 0; i < SENDERS; i++) {
        sender[i] = (struct sender){.client = client, .counts = counts, .number = i};
        assert_int_equal(pthread_create(&sender[i].thread, NULL, send_many, &sender[i]), 0);
    }
    for (int i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_join(sender[i].thread, NULL), 0);
    if (mf_client_flush(client, WAIT_MS, &error))
        fail_msg("%s", error.message);
    assert_int_equal(counts[0], SENDERS * EACH);
    assert_int_equal(counts[1], 0);
    mf_client_destroy(client);
}

static void test_topic_settings_are_read_back(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_admin *admin;
    struct mf_topic_state found;
    bool created = true;
    struct mf_client_property property = {"bootstrap.servers", brokers};
    assert_int_equal(mf_admin_create(&property, 1, &admin, &error), MF_OK);
    assert_int_equal(mf_admin_create_topic(admin, topic, 1, 1, &created, &error), MF_OK);
    assert_false(created); /* the group's set-up made it */
    assert_int_equal(mf_admin_describe_topic(admin, topic, &found, &error), MF_OK);
    assert_true(found.exists);
    assert_int_equal(found.partitions, 1);
    assert_int_equal(found.replicas, 1);
    assert_int_equal(found.min_insync, 1);
    assert_false(found.compacted);
    assert_true(found.retention_ms == MF_TOPIC_RETENTION_MS);
    assert_int_equal(mf_admin_describe_topic(admin, "no.such.topic", &found, &error), MF_OK);
    assert_false(found.exists);
    mf_admin_destroy(admin);
}

static int make_topic(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_admin *admin;
    bool created;
    char id[MF_UUID_TEXT_BYTES];
    struct mf_client_property property = {"bootstrap.servers", brokers};
    snprintf(topic, sizeof topic, "client-%s", mf_uuid_format(mf_uuid_random(), id));
    if (mf_admin_create(&property, 1, &admin, &error))
        return -1;
    enum mf_status status = mf_admin_create_topic(admin, topic, 1, 1, &created, &error);
    mf_admin_destroy(admin);
    return status || !created ? -1 : 0;
}

int main(void) {
    brokers = getenv("MF_TEST_KAFKA_BROKERS");
    registry_url = getenv("MF_TEST_REGISTRY_URL");
    if (!brokers || !registry_url)
        return SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_submitted_request_arrives),
        cmocka_unit_test(test_invalid_request_is_not_sent),
        cmocka_unit_test(test_fixed_properties_cannot_be_overridden),
        cmocka_unit_test(test_unreachable_broker_is_told),
        cmocka_unit_test(test_a_full_queue_pushes_back),
        cmocka_unit_test(test_threads_share_a_client),
        cmocka_unit_test(test_topic_settings_are_read_back),
    };
    return cmocka_run_group_tests(tests, make_topic, NULL);
}
