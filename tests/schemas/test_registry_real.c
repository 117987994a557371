/* The registry client against a real registry: MF_TEST_REGISTRY_URL. Each run has subjects of its own. */
#include "tests/common/unit.h"

#include "common/http_client.h"
#include "common/json.h"
#include "schemas/registry.h"

static struct mf_registry *registry;
static char subject[128], other_subject[128];

static int set_up(void **state) {
    (void)state;
    struct mf_error error;
    const struct mf_registry_options options = {.url = getenv("MF_TEST_REGISTRY_URL"),
                                                .refresh_interval_ms = -1};
    char uuid[MF_UUID_TEXT_BYTES];
    mf_uuid_format(mf_uuid_random(), uuid);
    snprintf(subject, sizeof subject, "modelforge.test.%s-value", uuid);
    snprintf(other_subject, sizeof other_subject, "modelforge.test/ %s-value", uuid); /* needs escaping */
    return mf_registry_new(&options, &registry, &error) ? -1 : 0;
}

/* A subject for one of our records. */
static void record_subject(enum mf_avro_record record, char own[256]) {
    snprintf(own, 256, "%s.%s", subject, mf_avro_record_name(record));
}

/* First softly, then for good, as the API wants it. */
static void remove_subject(struct mf_http_client *client, const char *name) {
    for (int permanent = 0; permanent < 2; permanent++) {
        struct mf_error ignored;
        struct mf_text url = {0};
        struct mf_http_response response = {0};
        mf_text_printf(&url, "%s/subjects/", getenv("MF_TEST_REGISTRY_URL"));
        mf_url_escape(&url, name);
        mf_text_puts(&url, permanent ? "?permanent=true" : "");
        const struct mf_http_request request = {.method = "DELETE", .url = mf_text_string(&url)};
        mf_http_perform(client, &request, &response, &ignored);
        mf_http_response_free(&response);
        mf_text_free(&url);
    }
}

/* Removes what the test registered. */
static int tear_down(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_http_client *client;
    const struct mf_http_options options = {0};
    if (mf_http_client_new(&options, &client, &error))
        return -1;
    remove_subject(client, subject);
    remove_subject(client, other_subject);
    for (int i = 0; i < MF_AVRO_RECORD_COUNT; i++) {
        char own[256];
        record_subject((enum mf_avro_record)i, own);
        remove_subject(client, own);
    }
    mf_http_client_free(client);
    mf_registry_free(registry);
    return 0;
}

static void our_schemas_are_taken_and_found_again(void **state) {
    (void)state;
    struct mf_error error;
    for (int i = 0; i < MF_AVRO_RECORD_COUNT; i++) {
        const char *text = mf_avro_schema_text((enum mf_avro_record)i);
        char own[256], *stored;
        uint32_t id = 0, again = 0;
        record_subject((enum mf_avro_record)i, own);
        assert_status(mf_registry_register(registry, own, text, &id, &error), MF_OK);
        assert_true(id > 0);
        assert_status(mf_registry_register(registry, own, text, &again, &error), MF_OK);
        assert_int_equal(id, again);
        assert_status(mf_registry_schema_text(registry, id, &stored, &error), MF_OK);
        json_t *expected = json_loads(text, 0, NULL), *found = json_loads(stored, 0, NULL);
        assert_non_null(found);
        assert_string_equal(json_string_value(json_object_get(found, "name")),
                            mf_avro_record_name((enum mf_avro_record)i));
        assert_int_equal(json_array_size(json_object_get(found, "fields")),
                         json_array_size(json_object_get(expected, "fields")));
        json_decref(expected);
        json_decref(found);
        free(stored);
    }
}

static void a_message_is_decoded_with_what_the_registry_holds(void **state) {
    (void)state;
    static const char minimal[] =
        "{\"task\":\"text-generation\",\"model_name\":\"m\",\"dataset\":\"d\",\"lora_r\":4}";
    struct mf_error error;
    struct mf_request request, decoded;
    struct mf_text message = {0};
    const struct mf_avro_schema *schema;
    const uint8_t *body;
    size_t size;
    uint32_t id, seen;
    assert_status(
        mf_registry_register(registry, subject, mf_avro_schema_text(MF_AVRO_TRAINING_REQUEST), &id, &error),
        MF_OK);
    assert_status(mf_request_from_text(minimal, strlen(minimal), "test", &request, &error), MF_OK);
    assert_status(mf_avro_encode_request(id, &request, &message, &error), MF_OK);
    assert_status(mf_avro_unframe(message.data, message.length, &seen, &body, &size, &error), MF_OK);
    assert_status(mf_registry_writer_schema(registry, subject, seen, &schema, &error), MF_OK);
    assert_status(mf_avro_decode_request(schema, body, size, &decoded, &error), MF_OK);
    assert_int_equal(decoded.lora_r, 4);
    mf_request_free(&request);
    mf_request_free(&decoded);
    mf_text_free(&message);
}

static void ids_belong_to_subjects(void **state) {
    (void)state;
    struct mf_error error;
    const struct mf_avro_schema *schema;
    char *text;
    uint32_t id;
    assert_status(mf_registry_writer_schema(registry, subject, 1, &schema, &error), MF_ERROR_UNKNOWN_SCHEMA);
    assert_status(mf_registry_register(registry, other_subject,
                                       "{\"type\":\"record\",\"name\":\"Other\",\"fields\":[]}", &id, &error),
                  MF_OK);
    assert_status(mf_registry_writer_schema(registry, other_subject, id, &schema, &error), MF_OK);
    assert_status(mf_registry_writer_schema(registry, subject, id, &schema, &error), MF_ERROR_UNKNOWN_SCHEMA);
    assert_status(mf_registry_schema_text(registry, 4000000000, &text, &error), MF_ERROR_UNKNOWN_SCHEMA);
    assert_null(text);
}

static void backward_compatibility_is_enforced(void **state) {
    (void)state;
    struct mf_error error;
    uint32_t id;
    assert_status(
        mf_registry_register(registry, subject, mf_avro_schema_text(MF_AVRO_TRAINING_COMMAND), &id, &error),
        MF_OK);
    assert_status(mf_registry_set_compatibility(registry, subject, "BACKWARD", &error), MF_OK);
    /* a new field without a default: old messages could not be read */
    assert_status(mf_registry_register(
                      registry, subject,
                      "{\"type\":\"record\",\"name\":\"TrainingCommand\",\"namespace\":\"org.modelforge\","
                      "\"fields\":[{\"name\":\"fresh\",\"type\":\"string\"}]}",
                      &id, &error),
                  MF_ERROR_CONFIGURATION);
    assert_contains(error.message, "schema registry: refused: ");
    assert_status(mf_registry_register(registry, subject, "no schema", &id, &error), MF_ERROR_CONFIGURATION);
    assert_status(mf_registry_set_compatibility(registry, subject, "SIDEWAYS", &error),
                  MF_ERROR_CONFIGURATION);
    assert_status(mf_registry_ping(registry, &error), MF_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
        TEST(our_schemas_are_taken_and_found_again),
        TEST(a_message_is_decoded_with_what_the_registry_holds),
        TEST(ids_belong_to_subjects),
        TEST(backward_compatibility_is_enforced),
    };
    if (!getenv("MF_TEST_REGISTRY_URL")) {
        fprintf(stderr, "MF_TEST_REGISTRY_URL is not set: skipped\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
