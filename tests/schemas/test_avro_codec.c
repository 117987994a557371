#include "tests/common/unit.h"

#include <pthread.h>

#include "common/json.h"
#include "schemas/avro_codec.h"
#include "tests/schemas/changed_request.h"

static struct mf_avro_schema *parse_schema(const char *json) {
    struct mf_error error;
    struct mf_avro_schema *schema;
    assert_status(mf_avro_schema_parse(json, strlen(json), &schema, &error), MF_OK);
    return schema;
}

static struct mf_avro_schema *built_in(enum mf_avro_record record) {
    return parse_schema(mf_avro_schema_text(record));
}

/* The message of changed_request under schema id 7. */
static void encode_changed(struct mf_text *message) {
    struct mf_request request;
    struct mf_error error;
    assert_status(mf_request_from_text(changed_request, strlen(changed_request), "test", &request, &error),
                  MF_OK);
    assert_status(mf_avro_encode_request(7, &request, message, &error), MF_OK);
    mf_request_free(&request);
}

static void every_field_crosses_the_wire(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_text message = {0};
    struct mf_request request;
    struct mf_avro_schema *schema = built_in(MF_AVRO_TRAINING_REQUEST);
    json_t *object, *expected;
    uint32_t id;
    const uint8_t *body;
    size_t size;
    encode_changed(&message);
    assert_status(mf_avro_unframe(message.data, message.length, &id, &body, &size, &error), MF_OK);
    assert_int_equal(id, 7);
    assert_status(mf_avro_decode_request(schema, body, size, &request, &error), MF_OK);
    assert_status(mf_request_to_json(&request, true, &object, &error), MF_OK);
    assert_status(mf_json_parse(changed_request, strlen(changed_request), "test", &expected, &error), MF_OK);
    char *a, *b;
    assert_status(mf_json_canonical(object, &a, &error), MF_OK);
    assert_status(mf_json_canonical(expected, &b, &error), MF_OK);
    assert_string_equal(a, b);
    free(a);
    free(b);
    json_decref(object);
    json_decref(expected);
    mf_request_free(&request);
    mf_avro_schema_free(schema);
    mf_text_free(&message);
}

static void defaults_cross_the_wire(void **state) {
    (void)state;
    static const char minimal[] = "{\"task\":\"text-generation\",\"model_name\":\"m\",\"dataset\":\"d\"}";
    struct mf_error error;
    struct mf_text message = {0};
    struct mf_request request, decoded;
    struct mf_avro_schema *schema = built_in(MF_AVRO_TRAINING_REQUEST);
    char before[MF_SHA256_TEXT_BYTES], after[MF_SHA256_TEXT_BYTES];
    assert_status(mf_request_from_text(minimal, strlen(minimal), "test", &request, &error), MF_OK);
    assert_status(mf_request_hash(&request, before, &error), MF_OK);
    assert_status(mf_avro_encode_request(1, &request, &message, &error), MF_OK);
    assert_status(
        mf_avro_decode_request(schema, (uint8_t *)message.data + 5, message.length - 5, &decoded, &error),
        MF_OK);
    assert_status(mf_request_hash(&decoded, after, &error), MF_OK);
    assert_string_equal(before, after);
    mf_request_free(&request);
    mf_request_free(&decoded);
    mf_avro_schema_free(schema);
    mf_text_free(&message);
}

/* What encoding refuses leaves the message as it was. */
static void bad_requests_are_not_encoded(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_text message = {0};
    struct mf_request request;
    mf_text_puts(&message, "before");
    assert_status(mf_request_init(&request, &error), MF_OK);
    assert_status(mf_avro_encode_request(1, &request, &message, &error), MF_ERROR_MISSING_FIELD);
    assert_string_equal(message.data, "before");
    mf_request_free(&request);
    mf_text_free(&message);
}

static void frames_are_checked(void **state) {
    (void)state;
    struct mf_error error;
    uint32_t id;
    const uint8_t *body;
    size_t size;
    static const uint8_t good[] = {0, 0x01, 0x02, 0x03, 0x04, 9};
    assert_status(mf_avro_unframe(good, sizeof good, &id, &body, &size, &error), MF_OK);
    assert_int_equal(id, 0x01020304);
    assert_int_equal(size, 1);
    assert_int_equal(*body, 9);
    assert_status(mf_avro_unframe(NULL, 0, &id, &body, &size, &error), MF_ERROR_NOT_AVRO);
    assert_status(mf_avro_unframe(good, 4, &id, &body, &size, &error), MF_ERROR_NOT_AVRO);
    assert_status(mf_avro_unframe("{\"task\": 1}", 11, &id, &body, &size, &error), MF_ERROR_NOT_AVRO);
    assert_string_equal(error.message,
                        "it begins with 0x7B, not with 0x00: send Avro with the registry's framing");
    uint8_t *large = calloc(1, MF_AVRO_MESSAGE_BYTES + 1);
    assert_status(mf_avro_unframe(large, MF_AVRO_MESSAGE_BYTES + 1, &id, &body, &size, &error),
                  MF_ERROR_MESSAGE_TOO_LARGE);
    assert_status(mf_avro_unframe(large, MF_AVRO_MESSAGE_BYTES, &id, &body, &size, &error), MF_OK);
    free(large);
}

#define FIELD(name, type)              "{\"name\":\"" name "\",\"type\":" type "}"
#define FIELD_DEFAULT(name, type, def) "{\"name\":\"" name "\",\"type\":" type ",\"default\":" def "}"
#define RECORD(fields)                 "{\"type\":\"record\",\"name\":\"Producer\",\"fields\":[" fields "]}"
#define STRINGS \
    FIELD("task", "\"string\"") "," FIELD("model_name", "\"string\"") "," FIELD("dataset", "\"string\"")
/* text-generation, m, d */
#define STRINGS_BYTES \
    "\x1E"            \
    "text-generation" \
    "\x02"            \
    "m"               \
    "\x02"            \
    "d"

/* Decodes the bytes after STRINGS_BYTES with a schema of STRINGS and more fields. */
static enum mf_status decode_more(const char *fields, const void *bytes, size_t count,
                                  struct mf_request *request, struct mf_error *error) {
    struct mf_text json = {0}, body = {0};
    mf_text_printf(&json, RECORD(STRINGS "%s%s"), *fields ? "," : "", fields);
    mf_text_append(&body, STRINGS_BYTES, sizeof STRINGS_BYTES - 1);
    mf_text_append(&body, bytes, count);
    struct mf_avro_schema *schema = parse_schema(json.data);
    enum mf_status status = mf_avro_decode_request(schema, (uint8_t *)body.data, body.length, request, error);
    mf_avro_schema_free(schema);
    mf_text_free(&json);
    mf_text_free(&body);
    return status;
}

#define DECODE(fields, bytes, request, error) decode_more(fields, bytes, sizeof(bytes) - 1, request, error)

static void other_writers_are_understood(void **state) {
    (void)state;
    struct mf_request request;
    struct mf_error error;
    /* an old producer: fields are missing */
    assert_status(DECODE("", "", &request, &error), MF_OK);
    assert_int_equal(request.lora_r, 16);
    mf_request_free(&request);
    /* an enum, an int, a float, an alias, a union that is written the other way round */
    assert_status(
        DECODE(
            FIELD("strategy", "{\"type\":\"enum\",\"name\":\"S\",\"symbols\":[\"dpo\",\"sft\"]}") "," FIELD(
                "lora_r",
                "\"int\"") "," FIELD("learning_rate",
                                     "\"float\"") "," FIELD("num_gpus",
                                                            "\"long\"") "," FIELD("max_seq_length",
                                                                                  "[\"int\",\"null\"]"),
            "\x02"
            "\x10"
            "\x00\x00\x00\x3F"
            "\x02"
            "\x00\x80\x01",
            &request, &error),
        MF_OK);
    assert_string_equal(request.strategy, "sft");
    assert_int_equal(request.lora_r, 8);
    assert_true(request.learning_rate == 0.5);
    assert_true(request.max_seq_length.set && request.max_seq_length.value == 64);
    mf_request_free(&request);
    /* times in milliseconds, in microseconds, as text: all 1970-01-01T00:00:01Z */
    assert_status(DECODE(FIELD("run_at", "{\"type\":\"long\",\"logicalType\":\"timestamp-millis\"}"),
                         "\xD0\x0F", &request, &error),
                  MF_OK);
    assert_int_equal(request.run_at.value, 1000);
    mf_request_free(&request);
    assert_status(
        DECODE(FIELD("run_at", "[\"null\",{\"type\":\"long\",\"logicalType\":\"timestamp-micros\"}]"),
               "\x02\x80\x89\x7A", &request, &error),
        MF_OK);
    assert_int_equal(request.run_at.value, 1000);
    mf_request_free(&request);
    assert_status(DECODE(FIELD("run_at", "\"string\""),
                         "\x28"
                         "1970-01-01T00:00:01Z",
                         &request, &error),
                  MF_OK);
    assert_int_equal(request.run_at.value, 1000);
    mf_request_free(&request);
    /* named types are found again, blocks may say their size, a map */
    assert_status(DECODE(FIELD("labels", "{\"type\":\"map\",\"values\":\"string\"}") "," FIELD(
                             "target_modules", "{\"type\":\"array\",\"items\":\"string\"}"),
                         "\x01\x08"
                         "\x02"
                         "a"
                         "\x02"
                         "b"
                         "\x00"
                         "\x02"
                         "\x0C"
                         "q_proj"
                         "\x02"
                         "\x0C"
                         "v_proj"
                         "\x00",
                         &request, &error),
                  MF_OK);
    assert_string_equal(json_string_value(json_object_get(request.labels, "a")), "b");
    assert_int_equal(request.target_modules.count, 2);
    mf_request_free(&request);
    /* text as bytes, with a NUL in it */
    assert_status(DECODE(FIELD("batch_id", "\"bytes\""),
                         "\x06"
                         "a\0b",
                         &request, &error),
                  MF_ERROR_INVALID_FIELD);
    assert_string_equal(error.message, "batch_id: holds a NUL");
    mf_request_free(&request);
}

static void unknown_fields_pass_only_at_their_default(void **state) {
    (void)state;
    struct mf_request request;
    struct mf_error error;
    static const struct {
        const char *fields, *bytes;
        size_t count;
        bool passes;
    } cases[] = {
#define CASE(fields, bytes, passes) {fields, bytes, sizeof(bytes) - 1, passes}
        CASE(FIELD_DEFAULT("new_x", "\"long\"", "3"), "\x06", true),
        CASE(FIELD_DEFAULT("new_x", "\"long\"", "3"), "\x08", false),
        CASE(FIELD_DEFAULT("new_x", "\"double\"", "1"), "\0\0\0\0\0\0\xF0\x3F", true),
        CASE(FIELD_DEFAULT("new_x", "\"double\"", "1"), "\0\0\0\0\0\0\x00\x40", false),
        CASE(FIELD_DEFAULT("new_x", "\"boolean\"", "false"), "\0", true),
        CASE(FIELD_DEFAULT("new_x", "\"boolean\"", "false"), "\1", false),
        CASE(FIELD_DEFAULT("new_x", "[\"null\",\"string\"]", "null"), "\0", true),
        CASE(FIELD_DEFAULT("new_x", "[\"null\",\"string\"]", "null"),
             "\x02\x02"
             "a",
             false),
        CASE(FIELD_DEFAULT("new_x", "\"string\"", "\"a\""),
             "\x02"
             "a",
             true),
        CASE(FIELD_DEFAULT("new_x", "\"string\"", "\"a\""),
             "\x02"
             "b",
             false),
        CASE(FIELD_DEFAULT("new_x", "{\"type\":\"array\",\"items\":\"int\"}", "[1,2]"), "\x04\x02\x04\0",
             true),
        CASE(FIELD_DEFAULT("new_x", "{\"type\":\"array\",\"items\":\"int\"}", "[1,2]"), "\x02\x02\0", false),
        CASE(FIELD_DEFAULT("new_x", "{\"type\":\"array\",\"items\":\"int\"}", "[1]"), "\x04\x02\x04\0",
             false),
        CASE(FIELD_DEFAULT("new_x", "{\"type\":\"map\",\"values\":\"int\"}", "{}"), "\0", true),
        CASE(FIELD_DEFAULT("new_x", "{\"type\":\"map\",\"values\":\"int\"}", "{}"),
             "\x02\x02"
             "a\x02\0",
             false),
        CASE(FIELD_DEFAULT("new_x", "{\"type\":\"enum\",\"name\":\"E\",\"symbols\":[\"A\",\"B\"]}", "\"B\""),
             "\x02", true),
        CASE(FIELD_DEFAULT("new_x", "{\"type\":\"enum\",\"name\":\"E\",\"symbols\":[\"A\",\"B\"]}", "\"B\""),
             "\0", false),
        CASE(FIELD_DEFAULT("new_x", "\"bytes\"", "\"\\u00FF\""), "\x02\xFF", true),
        CASE(FIELD_DEFAULT("new_x", "\"bytes\"", "\"\\u00FF\""), "\x02\xFE", false),
        CASE(FIELD_DEFAULT("new_x", "{\"type\":\"fixed\",\"name\":\"F\",\"size\":2}", "\"ab\""), "ab", true),
        CASE(FIELD_DEFAULT("new_x",
                           "{\"type\":\"record\",\"name\":\"R\",\"fields\":[" FIELD("a", "\"int\"") "]}",
                           "{\"a\":1}"),
             "\x02", true),
        CASE(FIELD_DEFAULT("new_x",
                           "{\"type\":\"record\",\"name\":\"R\",\"fields\":[" FIELD("a", "\"int\"") "]}",
                           "{\"a\":1}"),
             "\x04", false),
        CASE(FIELD("new_x", "\"int\""), "\0", false), /* no default at all */
#undef CASE
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum mf_status status =
            decode_more(cases[i].fields, cases[i].bytes, cases[i].count, &request, &error);
        mf_request_free(&request);
        if (status != (cases[i].passes ? MF_OK : MF_ERROR_UNKNOWN_FIELD))
            fail_msg("case %zu (%s): %s: %s", i, cases[i].fields, mf_status_code(status),
                     status ? error.message : "");
    }
    assert_status(DECODE(FIELD("tenant", "\"string\"") "," FIELD(
                             "request_id", "\"string\"") "," FIELD_DEFAULT("new_x", "\"int\"", "1"),
                         "\x04"
                         "t1"
                         "\x04"
                         "r1"
                         "\x04",
                         &request, &error),
                  MF_ERROR_UNKNOWN_FIELD);
    assert_string_equal(error.message,
                        "new_x: this version does not know the field, and its value 2 is not its default; "
                        "leave it at its default or use a newer worker");
    assert_string_equal(request.tenant, "t1"); /* for the record of the refusal */
    assert_string_equal(request.request_id, "r1");
    mf_request_free(&request);
}

static void contents_are_validated(void **state) {
    (void)state;
    struct mf_request request;
    struct mf_error error;
    assert_status(DECODE(FIELD("learning_rate", "\"double\"") "," FIELD("request_id", "\"string\""),
                         "\0\0\0\0\0\0\x00\x40"
                         "\x04"
                         "r1",
                         &request, &error),
                  MF_ERROR_INVALID_FIELD);
    assert_string_equal(error.message, "learning_rate: 2 is not in (0, 1]; the default is 0.0002");
    assert_string_equal(request.request_id, "r1");
    mf_request_free(&request);
}

static void commands_cross_the_wire(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_text message = {0};
    struct mf_avro_schema *schema = built_in(MF_AVRO_TRAINING_COMMAND);
    struct mf_command decoded, command = {.command_id = "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
                                          .tenant = "team-a",
                                          .request_id = "r/1",
                                          .action = MF_COMMAND_RETRY,
                                          .expected_generation = {true, 2},
                                          .reason = "again",
                                          .requested_by = NULL};
    assert_status(mf_avro_encode_command(3, &command, &message, &error), MF_OK);
    assert_status(
        mf_avro_decode_command(schema, (uint8_t *)message.data + 5, message.length - 5, &decoded, &error),
        MF_OK);
    assert_string_equal(decoded.command_id, command.command_id);
    assert_string_equal(decoded.tenant, "team-a");
    assert_string_equal(decoded.request_id, "r/1");
    assert_int_equal(decoded.action, MF_COMMAND_RETRY);
    assert_true(decoded.expected_generation.set && decoded.expected_generation.value == 2);
    assert_string_equal(decoded.reason, "again");
    assert_null(decoded.requested_by);
    mf_command_free(&decoded);
    mf_text_clear(&message);
    snprintf(command.command_id, sizeof command.command_id, "no uuid");
    assert_status(mf_avro_encode_command(3, &command, &message, &error), MF_ERROR_INVALID_FIELD);
    mf_text_free(&message);
    mf_avro_schema_free(schema);
    enum mf_command_action action;
    for (int i = 0; i < 4; i++)
        assert_true(mf_command_action_parse(mf_command_action_name((enum mf_command_action)i), &action) &&
                    (int)action == i);
    assert_false(mf_command_action_parse("stop", &action));
    assert_null(mf_command_action_name((enum mf_command_action)4));
}

static void bad_commands_are_refused(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_command command;
#define ID \
    "\x48" \
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    static const struct {
        const char *bytes;
        size_t count;
        const char *message;
    } cases[] = {
#define CASE(bytes, message) {bytes, sizeof(bytes) - 1, message}
        CASE("\x02"
             "x"
             "\x02"
             "t"
             "\x02"
             "r"
             "\x0C"
             "cancel"
             "\0",
             "command_id: \"x\" is not a uuid"),
        CASE(ID "\x02"
                "t"
                "\x02"
                "r"
                "\x08"
                "stop"
                "\0",
             "action: \"stop\" is not one of cancel, pause, resume, retry"),
        CASE(ID "\x02"
                "!"
                "\x02"
                "r"
                "\x0C"
                "cancel"
                "\0",
             "tenant: \"!\" may hold only letters, digits, '.', '_' and '-', at most 64"),
        CASE(ID "\x02"
                "t"
                "\0"
                "\x0C"
                "cancel"
                "\0",
             "request_id: 1 to 200 bytes without control characters"),
        CASE(ID "\x02"
                "t"
                "\x02"
                "r"
                "\x0C"
                "cancel"
                "\x01",
             "command: expected_generation: -1 is not in [1, 2147483647]"),
#undef CASE
    };
    struct mf_avro_schema *schema =
        parse_schema(RECORD(FIELD("command_id", "\"string\"") "," FIELD("tenant", "\"string\"") "," FIELD(
            "request_id", "\"string\"") "," FIELD("action", "\"string\"") "," FIELD("expected_generation",
                                                                                    "\"long\"")));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_status(
            mf_avro_decode_command(schema, (const uint8_t *)cases[i].bytes, cases[i].count, &command, &error),
            MF_ERROR_INVALID_FIELD);
        assert_string_equal(error.message, cases[i].message);
        mf_command_free(&command);
    }
    mf_avro_schema_free(schema);
}

static void events_cross_the_wire(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_text message = {0};
    json_t *object;
    struct mf_avro_schema *schema = built_in(MF_AVRO_JOB_EVENT);
    const struct mf_job_event event = {.event_id = "e",
                                       .job_id = "j",
                                       .tenant = "t",
                                       .request_id = "r",
                                       .sequence = 3,
                                       .recorded_at_ms = 1795575000123,
                                       .type = "succeeded",
                                       .state = "succeeded",
                                       .attempt = 2,
                                       .step = {true, 40},
                                       .detail = "{\"loss\":1.5}"};
    assert_status(mf_avro_encode_event(9, &event, &message, &error), MF_OK);
    assert_status(
        mf_avro_decode_json(schema, (uint8_t *)message.data + 5, message.length - 5, &object, &error), MF_OK);
    json_t *expected =
        json_pack("{s:s,s:s,s:s,s:s,s:i,s:I,s:s,s:s,s:i,s:i,s:s}", "event_id", "e", "job_id", "j", "tenant",
                  "t", "request_id", "r", "sequence", 3, "recorded_at", (json_int_t)1795575000123, "type",
                  "succeeded", "state", "succeeded", "attempt", 2, "step", 40, "detail", "{\"loss\":1.5}");
    assert_true(json_equal(object, expected));
    json_decref(object);
    json_decref(expected);
    mf_avro_schema_free(schema);
    mf_text_free(&message);
    assert_string_equal(mf_avro_record_name(MF_AVRO_JOB_EVENT), "JobEvent");
}

static void *decode_often(void *context) {
    struct mf_text message = {0};
    encode_changed(&message);
    for (int i = 0; i < 200; i++) {
        struct mf_request request;
        struct mf_error error;
        if (mf_avro_decode_request(context, (uint8_t *)message.data + 5, message.length - 5, &request,
                                   &error))
            abort();
        mf_request_free(&request);
    }
    mf_text_free(&message);
    return NULL;
}

static void threads_may_share_a_schema(void **state) {
    (void)state;
    pthread_t threads[4];
    struct mf_avro_schema *schema = built_in(MF_AVRO_TRAINING_REQUEST);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, decode_often, schema), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    mf_avro_schema_free(schema);
}

static void built_in_schemas_are_the_files(void **state) {
    (void)state;
    for (int i = 0; i < MF_AVRO_RECORD_COUNT; i++) {
        struct mf_error error;
        char path[128], *file;
        snprintf(path, sizeof path, "schemas/%s.avsc", mf_avro_record_name((enum mf_avro_record)i));
        assert_status(mf_file_read(path, 1 << 20, &file, NULL, &error), MF_OK);
        assert_string_equal(file, mf_avro_schema_text((enum mf_avro_record)i));
        free(file);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_crosses_the_wire),
        cmocka_unit_test(defaults_cross_the_wire),
        cmocka_unit_test(bad_requests_are_not_encoded),
        cmocka_unit_test(frames_are_checked),
        cmocka_unit_test(other_writers_are_understood),
        cmocka_unit_test(unknown_fields_pass_only_at_their_default),
        cmocka_unit_test(contents_are_validated),
        cmocka_unit_test(commands_cross_the_wire),
        cmocka_unit_test(bad_commands_are_refused),
        cmocka_unit_test(events_cross_the_wire),
        cmocka_unit_test(threads_may_share_a_schema),
        cmocka_unit_test(built_in_schemas_are_the_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
