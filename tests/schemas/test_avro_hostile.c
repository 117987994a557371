/* Bytes and schemas that mean harm: nothing may crash, hang or take much memory; run under the sanitizers. */
#include "tests/common/unit.h"

#include <malloc.h>

#include "schemas/avro_codec.h"
#include "tests/schemas/changed_request.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define SANITIZED 1
#elif defined(__has_feature)
#    define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#    define SANITIZED 0
#endif

enum { MUTATIONS = 100000 };

static struct mf_avro_schema *parse_schema(const char *json) {
    struct mf_error error;
    struct mf_avro_schema *schema;
    assert_status(mf_avro_schema_parse(json, strlen(json), &schema, &error), MF_OK);
    return schema;
}

static void encode_changed(struct mf_text *message) {
    struct mf_request request;
    struct mf_error error;
    assert_status(mf_request_from_text(changed_request, strlen(changed_request), "test", &request, &error),
                  MF_OK);
    assert_status(mf_avro_encode_request(7, &request, message, &error), MF_OK);
    mf_request_free(&request);
}

/* Decodes a copy of exactly this size, so that the sanitizer sees a byte read too far. */
static enum mf_status decode(const struct mf_avro_schema *schema, const void *message, size_t size) {
    struct mf_request request = {0};
    struct mf_error error;
    uint32_t id;
    const uint8_t *body;
    size_t body_bytes;
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, message, size);
    enum mf_status status = mf_avro_unframe(copy, size, &id, &body, &body_bytes, &error);
    if (!status)
        status = mf_avro_decode_request(schema, body, body_bytes, &request, &error);
    mf_request_free(&request);
    free(copy);
    return status;
}

static void a_message_cut_anywhere_is_refused(void **state) {
    (void)state;
    struct mf_text message = {0};
    struct mf_avro_schema *schema = parse_schema(mf_avro_schema_text(MF_AVRO_TRAINING_REQUEST));
    encode_changed(&message);
    assert_int_equal(decode(schema, message.data, message.length), MF_OK);
    for (size_t size = 0; size < message.length; size++) {
        enum mf_status status = decode(schema, message.data, size);
        if (status != (size < 5 ? MF_ERROR_NOT_AVRO : MF_ERROR_BAD_AVRO))
            fail_msg("cut at %zu of %zu: %s", size, message.length, mf_status_code(status));
    }
    mf_text_append(&message, "", 1);
    assert_int_equal(decode(schema, message.data, message.length), MF_ERROR_BAD_AVRO); /* something follows */
    mf_text_free(&message);
    mf_avro_schema_free(schema);
}

/* A generator with a seed, so that what fails can be repeated (splitmix64). */
static uint64_t next_random(uint64_t *seed) {
    uint64_t z = (*seed += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

static void mutate(uint8_t *bytes, size_t *size, uint64_t *seed) {
    static const uint8_t telling[] = {0x00, 0x01, 0x02, 0x7F, 0x80, 0xFF, 0xFE, 0x03};
    for (uint64_t edits = 1 + next_random(seed) % 4; edits; edits--) {
        size_t at = next_random(seed) % *size;
        switch (next_random(seed) % 5) {
        case 0:
            bytes[at] ^= (uint8_t)(1U << next_random(seed) % 8);
            break;
        case 1:
            bytes[at] = telling[next_random(seed) % sizeof telling];
            break;
        case 2: /* a long number of ones */
            for (size_t i = at; i < *size && i < at + next_random(seed) % 10; i++)
                bytes[i] = 0xFF;
            break;
        case 3:
            *size = at + 1;
            break;
        default:
            memmove(bytes + at, bytes + at + (at + 1 < *size), *size - at - (at + 1 < *size));
            *size -= at + 1 < *size;
            break;
        }
    }
}

static void mutations_are_decoded_or_refused(void **state) {
    (void)state;
    struct mf_text message = {0};
    struct mf_avro_schema *schema = parse_schema(mf_avro_schema_text(MF_AVRO_TRAINING_REQUEST));
    uint64_t seed = 20261125;
    size_t outcomes[MF_STATUS_COUNT] = {0};
    encode_changed(&message);
    uint8_t *mutated = malloc(message.length);
    for (int i = 0; i < MUTATIONS; i++) {
        size_t size = message.length;
        memcpy(mutated, message.data, size);
        mutate(mutated, &size, &seed);
        outcomes[decode(schema, mutated, size)]++;
    }
    free(mutated);
    mf_text_free(&message);
    mf_avro_schema_free(schema);
    /* it is the message's fault, always */
    size_t refused = 0;
    for (int i = 0; i < MF_STATUS_COUNT; i++) {
        if (outcomes[i] && i != MF_OK && mf_status_class((enum mf_status)i) != MF_CLASS_REQUEST)
            fail_msg("%zu messages gave %s", outcomes[i], mf_status_code((enum mf_status)i));
        refused += i == MF_OK ? 0 : outcomes[i];
    }
    assert_true(outcomes[MF_ERROR_BAD_AVRO] > MUTATIONS / 10);
    assert_true(outcomes[MF_ERROR_INVALID_FIELD] > 0 && outcomes[MF_OK] > 0 && refused > 0);
}

#define RECORD(fields) "{\"type\":\"record\",\"name\":\"R\",\"fields\":[" fields "]}"
#define ONE(type)      RECORD("{\"name\":\"x\",\"type\":" type "}")

static void lying_bytes_are_refused_with_a_reason(void **state) {
    (void)state;
    static const struct {
        const char *schema, *bytes;
        size_t size;
        const char *message;
    } cases[] = {
#define CASE(schema, bytes, message) {schema, bytes, sizeof(bytes) - 1, message}
        CASE(ONE("\"string\""), "\x03", "a length does not fit the message"),
        CASE(ONE("\"string\""), "\xFE\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
             "a length does not fit the message"),
        CASE(ONE("\"string\""),
             "\x04"
             "a",
             "a length does not fit the message"),
        CASE(ONE("\"string\""), "\x02\xFF", "a string is not UTF-8 or holds a NUL"),
        CASE(ONE("\"string\""),
             "\x04"
             "a\0",
             "a string is not UTF-8 or holds a NUL"),
        CASE(ONE("\"bytes\""), "\xFE\xFF\xFF\xFF\x0F", "a length does not fit the message"),
        CASE(ONE("\"long\""), "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
             "a number is longer than 64 bits"),
        CASE(ONE("\"long\""), "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02", "a number is longer than 64 bits"),
        CASE(ONE("\"long\""), "\x80", "the message ends inside a number"),
        CASE(ONE("\"int\""), "\x80\x80\x80\x80\x20", "an int is longer than 32 bits"),
        CASE(ONE("\"boolean\""), "\x02", "a boolean is neither 0 nor 1"),
        CASE(ONE("\"double\""), "\0\0\0\0\0\0\xF0\x7F", "a number is not finite"),
        CASE(ONE("\"float\""), "\0\0\xC0\x7F", "a number is not finite"),
        CASE(ONE("\"double\""), "\0\0\0\0", "the message ends inside a value"),
        CASE(ONE("[\"null\",\"int\"]"), "\x04", "a branch or symbol is out of range"),
        CASE(ONE("[\"null\",\"int\"]"), "\x01", "a branch or symbol is out of range"),
        CASE(ONE("{\"type\":\"enum\",\"name\":\"E\",\"symbols\":[\"A\"]}"), "\x02",
             "a branch or symbol is out of range"),
        CASE(ONE("{\"type\":\"fixed\",\"name\":\"F\",\"size\":4}"), "abc", "the message ends inside a value"),
        /* 2^62 nulls, which take no bytes; the same as a negative count; INT64_MIN */
        CASE(ONE("{\"type\":\"array\",\"items\":\"null\"}"), "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
             "more items than a message may have"),
        CASE(ONE("{\"type\":\"array\",\"items\":\"null\"}"), "\xFF\xFF\xFF\xFF\x0F\0\0",
             "more items than a message may have"),
        CASE(ONE("{\"type\":\"array\",\"items\":\"null\"}"), "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01\0\0",
             "more items than a message may have"),
        CASE(ONE("{\"type\":\"array\",\"items\":\"int\"}"), "\x01\x03\x02\0",
             "the size of a block does not fit the message"),
        CASE(ONE("{\"type\":\"array\",\"items\":\"int\"}"), "\x01\x04\x02\0",
             "a block has another size than it says"),
        CASE(ONE("{\"type\":\"array\",\"items\":\"int\"}"), "\x04\x02", "the message ends inside a number"),
        CASE(ONE("{\"type\":\"map\",\"values\":\"int\"}"), "\x02\x02\x80\x02\0",
             "a string is not UTF-8 or holds a NUL"),
        CASE(ONE("\"null\""), "\0", "1 bytes follow the record"),
        /* a list within itself, deeper than values may nest */
        CASE(ONE("[\"null\",\"R\"]"), "\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\0",
             "values are nested too deep"),
#undef CASE
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mf_error error = {0};
        json_t *object;
        struct mf_avro_schema *schema = parse_schema(cases[i].schema);
        uint8_t *copy = malloc(cases[i].size);
        memcpy(copy, cases[i].bytes, cases[i].size);
        enum mf_status status = mf_avro_decode_json(schema, copy, cases[i].size, &object, &error);
        if (status != MF_ERROR_BAD_AVRO || !strstr(error.message, cases[i].message))
            fail_msg("case %zu (%s): %s: %s", i, cases[i].schema, mf_status_code(status), error.message);
        assert_null(object);
        free(copy);
        mf_avro_schema_free(schema);
    }
}

static void what_is_within_the_bounds_passes(void **state) {
    (void)state;
    struct mf_error error;
    json_t *object;
    struct mf_avro_schema *schema = parse_schema(ONE("{\"type\":\"array\",\"items\":\"null\"}"));
    static const uint8_t most[] = {0x80, 0x80, 0x08, 0}; /* 65536 nulls */
    assert_status(mf_avro_decode_json(schema, most, sizeof most, &object, &error), MF_OK);
    assert_int_equal(json_array_size(json_object_get(object, "x")), MF_AVRO_ITEMS);
    json_decref(object);
    mf_avro_schema_free(schema);
    schema = parse_schema(ONE("[\"null\",\"R\"]"));
    static const uint8_t nested[] = {2, 2, 2, 2, 2, 2, 2, 0};
    assert_status(mf_avro_decode_json(schema, nested, sizeof nested, &object, &error), MF_OK);
    json_decref(object);
    mf_avro_schema_free(schema);
}

static void refuse_schema(const char *json, const char *message) {
    struct mf_error error = {0};
    struct mf_avro_schema *schema;
    enum mf_status status = mf_avro_schema_parse(json, strlen(json), &schema, &error);
    if (status != MF_ERROR_UNKNOWN_SCHEMA || !strstr(error.message, message))
        fail_msg("%.200s: %s: %s", json, mf_status_code(status), status ? error.message : "");
    assert_null(schema);
}

static void bad_schemas_are_refused(void **state) {
    (void)state;
    refuse_schema("", "line 1");
    refuse_schema("[", "line 1");
    refuse_schema("3", "a type is neither a name, an object nor a list");
    refuse_schema("\"string\"", "it is not a record");
    refuse_schema("{\"type\":\"object\"}", "it names a type that it does not define: object");
    refuse_schema("{\"type\":\"record\",\"fields\":[]}", "has no name");
    refuse_schema("{\"type\":\"record\",\"name\":\"R\"}", "a record has no fields");
    refuse_schema(ONE("\"R\""), "a record contains itself: R");
    refuse_schema(ONE("{\"type\":\"record\",\"name\":\"S\",\"fields\":[{\"name\":\"y\",\"type\":\"R\"}]}"),
                  "a record contains itself");
    refuse_schema(ONE("\"other.T\""), "it names a type that it does not define: other.T");
    refuse_schema(ONE("[]"), "a union is empty");
    refuse_schema(ONE("[\"null\",[\"int\"]]"), "a union stands in a union");
    refuse_schema(ONE("{\"type\":\"array\"}"), "an array has no items");
    refuse_schema(ONE("{\"type\":\"enum\",\"name\":\"E\",\"symbols\":[]}"), "an enum has no symbols");
    refuse_schema(ONE("{\"type\":\"enum\",\"name\":\"E\",\"symbols\":[1]}"), "a symbol is not a string");
    refuse_schema(ONE("{\"type\":\"fixed\",\"name\":\"F\",\"size\":-1}"), "size");
    refuse_schema(ONE("{\"type\":\"fixed\",\"name\":\"F\",\"size\":9999999999}"), "size");
    refuse_schema(ONE("{\"type\":\"enum\",\"name\":\"R\",\"symbols\":[\"A\"]}"), "it defines twice R");
    refuse_schema(RECORD("{\"name\":\"x\",\"type\":\"int\"},{\"name\":\"x\",\"type\":\"int\"}"),
                  "a record has a field twice: x");
    refuse_schema(RECORD("{\"type\":\"int\"}"), "a field has no name or no type");
    refuse_schema(RECORD("3"), "a field has no name or no type");
}

static void huge_schemas_are_refused(void **state) {
    (void)state;
    struct mf_text json = {0};
    /* nested arrays */
    mf_text_puts(&json, "{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"x\",\"type\":");
    for (int i = 0; i < 29; i++)
        mf_text_puts(&json, "{\"type\":\"array\",\"items\":");
    mf_text_puts(&json, "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":\"int\"}}");
    for (int i = 0; i < 29; i++)
        mf_text_puts(&json, "}");
    mf_text_puts(&json, "}]}");
    refuse_schema(json.data, "nested too deep");
    mf_text_clear(&json);
    /* records of records: 16^5 values before a byte is read */
    mf_text_puts(&json, "{\"type\":\"record\",\"name\":\"R\",\"fields\":[");
    for (int level = 0; level < 5; level++)
        mf_text_printf(&json, "{\"name\":\"a\",\"type\":{\"type\":\"record\",\"name\":\"L%d\",\"fields\":[",
                       level);
    mf_text_puts(&json, "{\"name\":\"a\",\"type\":\"null\"}");
    for (int level = 4; level >= 0; level--) {
        mf_text_puts(&json, "]}}");
        for (int i = 0; i < 15; i++)
            mf_text_printf(&json, ",{\"name\":\"b%d\",\"type\":\"L%d\"}", i, level);
    }
    mf_text_puts(&json, "]}");
    refuse_schema(json.data, "too many fields within fields");
    mf_text_clear(&json);
    /* many types */
    mf_text_puts(&json, "{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"x\",\"type\":[");
    for (int i = 0; i < 20000; i++)
        mf_text_printf(&json, "%s\"int\"", i ? "," : "");
    mf_text_puts(&json, "]}]}");
    refuse_schema(json.data, "it has too many types");
    mf_text_clear(&json);
    for (int i = 0; i <= MF_AVRO_SCHEMA_BYTES; i++)
        mf_text_puts(&json, " ");
    refuse_schema(json.data, "it is too long");
    mf_text_free(&json);
}

static void memory_stays_flat(void **state) {
    (void)state;
#if SANITIZED
    skip(); /* the sanitizer's own allocator keeps what is freed; its leak check covers this */
#else
    struct mf_text message = {0};
    struct mf_avro_schema *schema = parse_schema(mf_avro_schema_text(MF_AVRO_TRAINING_REQUEST));
    encode_changed(&message);
    uint64_t seed = 1;
    uint8_t *mutated = malloc(message.length);
    size_t before = 0;
    for (int i = 0; i < 22000; i++) {
        size_t size = message.length;
        memcpy(mutated, message.data, size);
        mutate(mutated, &size, &seed);
        decode(schema, mutated, size);
        if (i == 2000)
            before = mallinfo2().uordblks;
    }
    size_t after = mallinfo2().uordblks;
    assert_true(after < before + 16384);
    free(mutated);
    mf_text_free(&message);
    mf_avro_schema_free(schema);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_cut_anywhere_is_refused),
        cmocka_unit_test(mutations_are_decoded_or_refused),
        cmocka_unit_test(lying_bytes_are_refused_with_a_reason),
        cmocka_unit_test(what_is_within_the_bounds_passes),
        cmocka_unit_test(bad_schemas_are_refused),
        cmocka_unit_test(huge_schemas_are_refused),
        cmocka_unit_test(memory_stays_flat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
