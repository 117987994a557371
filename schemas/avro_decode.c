/* Bytes to JSON with avro-c and the writer's schema, and from there to requests and commands. */
#include <avro/errors.h>
#include <avro/io.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "schemas/avro_schema.h"

enum mf_status mf_avro_unframe(const void *message, size_t size, uint32_t *schema_id, const uint8_t **body,
                               size_t *body_bytes, struct mf_error *error) {
    const uint8_t *bytes = message;
    if (!bytes || size < MF_AVRO_FRAME_BYTES)
        return mf_error_set(error, MF_ERROR_NOT_AVRO,
                            "%zu bytes are too few: a message is 0x00, a 4-byte schema id and an Avro record",
                            bytes ? size : 0);
    if (size > MF_AVRO_MESSAGE_BYTES)
        return mf_error_set(error, MF_ERROR_MESSAGE_TOO_LARGE, "%zu bytes, at most %d are taken", size,
                            MF_AVRO_MESSAGE_BYTES);
    if (bytes[0] != 0)
        return mf_error_set(error, MF_ERROR_NOT_AVRO,
                            "it begins with 0x%02X, not with 0x00: send Avro with the registry's framing",
                            bytes[0]);
    *schema_id = (uint32_t)bytes[1] << 24 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 8 | bytes[4];
    *body = bytes + MF_AVRO_FRAME_BYTES;
    *body_bytes = size - MF_AVRO_FRAME_BYTES;
    return MF_OK;
}

/* Bytes as text, one character U+0000 to U+00FF each, as the JSON encoding of Avro has it. */
static json_t *bytes_to_json(const void *data, size_t size) {
    struct mf_text text = {0};
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) {
        char two[2] = {(char)(0xC0 | bytes[i] >> 6), (char)(0x80 | (bytes[i] & 0x3F))};
        if (bytes[i] < 0x80)
            mf_text_append(&text, &bytes[i], 1);
        else
            mf_text_append(&text, two, 2);
    }
    json_t *result = text.failed ? NULL : json_stringn(mf_text_string(&text), text.length);
    mf_text_free(&text);
    return result;
}

static json_t *value_to_json(const avro_value_t *value);

static json_t *children_to_json(const avro_value_t *value, bool named) {
    size_t count = 0;
    json_t *result = named ? json_object() : json_array();
    avro_value_get_size(value, &count);
    for (size_t i = 0; result && i < count; i++) {
        avro_value_t child;
        const char *name = NULL;
        json_t *item = avro_value_get_by_index(value, i, &child, &name) ? NULL : value_to_json(&child);
        if (named ? json_object_set_new(result, name ? name : "", item)
                  : json_array_append_new(result, item)) {
            json_decref(result);
            return NULL;
        }
    }
    return result;
}

static json_t *enum_to_json(const avro_value_t *value) {
    int symbol;
    if (avro_value_get_enum(value, &symbol))
        return NULL;
    return json_string(avro_schema_enum_get(avro_value_get_schema(value), symbol));
}

static json_t *string_to_json(const avro_value_t *value) {
    const char *text;
    size_t size;
    return avro_value_get_string(value, &text, &size) || !size ? NULL : json_stringn(text, size - 1);
}

static json_t *integer_to_json(const avro_value_t *value, avro_type_t type) {
    int32_t narrow;
    int64_t number;
    if (type == AVRO_INT32)
        return avro_value_get_int(value, &narrow) ? NULL : json_integer(narrow);
    return avro_value_get_long(value, &number) ? NULL : json_integer(number);
}

static json_t *real_to_json(const avro_value_t *value, avro_type_t type) {
    float narrow;
    double number;
    if (type == AVRO_FLOAT)
        return avro_value_get_float(value, &narrow) ? NULL : json_real((double)narrow);
    return avro_value_get_double(value, &number) ? NULL : json_real(number);
}

/* New reference; NULL when memory runs out. Nesting was bounded by the check. */
static json_t *value_to_json(const avro_value_t *value) {
    avro_value_t branch;
    const void *data;
    size_t size;
    int boolean;
    avro_type_t type = avro_value_get_type(value);
    switch (type) {
    case AVRO_NULL:
        return json_null();
    case AVRO_BOOLEAN:
        return avro_value_get_boolean(value, &boolean) ? NULL : json_boolean(boolean);
    case AVRO_INT32:
    case AVRO_INT64:
        return integer_to_json(value, type);
    case AVRO_FLOAT:
    case AVRO_DOUBLE:
        return real_to_json(value, type);
    case AVRO_STRING:
        return string_to_json(value);
    case AVRO_BYTES:
        return avro_value_get_bytes(value, &data, &size) ? NULL : bytes_to_json(data, size);
    case AVRO_FIXED:
        return avro_value_get_fixed(value, &data, &size) ? NULL : bytes_to_json(data, size);
    case AVRO_ENUM:
        return enum_to_json(value);
    case AVRO_UNION:
        return avro_value_get_current_branch(value, &branch) ? NULL : value_to_json(&branch);
    case AVRO_ARRAY:
        return children_to_json(value, false);
    case AVRO_RECORD:
    case AVRO_MAP:
        return children_to_json(value, true);
    default:
        return NULL;
    }
}

enum mf_status mf_avro_decode_json(const struct mf_avro_schema *schema, const uint8_t *body,
                                   size_t body_bytes, json_t **object, struct mf_error *error) {
    avro_value_t value = {0};
    *object = NULL;
    enum mf_status status = mf_avro_check(schema, body, body_bytes, error);
    if (status)
        return status;
    avro_reader_t reader = avro_reader_memory((const char *)body, (int64_t)body_bytes);
    if (!reader || avro_generic_value_new(schema->interface, &value))
        status =
            mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to decode %zu bytes of Avro", body_bytes);
    else if (avro_value_read(reader, &value))
        status = mf_error_set(error, MF_ERROR_BAD_AVRO, "%s", avro_strerror());
    else if (!(*object = value_to_json(&value)))
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the decoded record");
    if (value.iface)
        avro_value_decref(&value);
    if (reader)
        avro_reader_free(reader);
    return status;
}

/* Equal as values: 1 and 1.0 are. */
static bool same_value(const json_t *a, const json_t *b) {
    const char *key;
    json_t *item;
    if (json_is_number(a) && json_is_number(b))
        return json_is_integer(a) && json_is_integer(b) ? json_integer_value(a) == json_integer_value(b)
                                                        : json_number_value(a) == json_number_value(b);
    if (!a || !b || json_typeof(a) != json_typeof(b))
        return false;
    if (json_is_array(a)) {
        for (size_t i = 0; i < json_array_size(a); i++)
            if (!same_value(json_array_get(a, i), json_array_get(b, i)))
                return false;
        return json_array_size(a) == json_array_size(b);
    }
    if (!json_is_object(a))
        return json_equal(a, b);
    json_object_foreach((json_t *)a, key, item) {
        if (!same_value(item, json_object_get(b, key)))
            return false;
    }
    return json_object_size(a) == json_object_size(b);
}

/* Takes the fields that `known` does not know out of the object; one that says more than its default is
 * refused: what the producer meant by it would be lost. */
static enum mf_status drop_unknown(const struct mf_avro_schema *schema, json_t *object,
                                   bool (*known)(const struct mf_avro_schema *, size_t),
                                   struct mf_error *error) {
    const struct mf_avro_node *root = schema->root;
    for (size_t i = 0; i < root->count; i++) {
        if (known(schema, i))
            continue;
        const char *name = json_string_value(json_object_get(root->fields[i], "name"));
        const json_t *value = json_object_get(object, name),
                     *initial = json_object_get(root->fields[i], "default");
        char excerpt[80];
        if (!same_value(value, initial))
            return mf_error_set(
                error, MF_ERROR_UNKNOWN_FIELD,
                "%.100s: this version does not know the field, and its value %s is not its default; "
                "leave it at its default or use a newer worker",
                name, mf_json_excerpt(value, excerpt, sizeof excerpt));
        json_object_del(object, name);
    }
    return MF_OK;
}

static bool is_request_field(const struct mf_avro_schema *schema, size_t i) {
    return schema->request_fields[i] != NULL;
}

/* The node of a field's value: what stands beside null in a union of two. */
static const struct mf_avro_node *value_node(const struct mf_avro_node *node) {
    for (size_t i = 0; node->kind == MF_AVRO_UNION && i < node->count; i++)
        if (node->children[i]->kind != MF_AVRO_NULL)
            return node->children[i];
    return node;
}

/* Avro has times as counts, JSON as text. */
static enum mf_status write_times(const struct mf_avro_schema *schema, json_t *object,
                                  struct mf_error *error) {
    const struct mf_avro_node *root = schema->root;
    for (size_t i = 0; i < root->count; i++) {
        const struct mf_field *field = schema->request_fields[i];
        if (!field || field->kind != MF_KIND_TIMESTAMP)
            continue;
        const char *name = json_string_value(json_object_get(root->fields[i], "name"));
        const json_t *value = json_object_get(object, name);
        if (!json_is_integer(value))
            continue;
        int64_t instant = json_integer_value(value);
        char text[MF_TIME_TEXT_BYTES];
        if (value_node(root->children[i])->microseconds)
            instant /= 1000;
        if (instant < 0 || instant > 253402300799999)
            return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: not between the years 1970 and 9999",
                                name);
        if (json_object_set_new(object, name, json_string(mf_time_format(instant, text))))
            return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a time");
    }
    return MF_OK;
}

enum mf_status mf_avro_decode_request(const struct mf_avro_schema *schema, const uint8_t *body,
                                      size_t body_bytes, struct mf_request *request, struct mf_error *error) {
    json_t *object;
    struct mf_error reason;
    memset(request, 0, sizeof *request);
    enum mf_status status = mf_avro_decode_json(schema, body, body_bytes, &object, error);
    if (status)
        return status;
    enum mf_status earlier = drop_unknown(schema, object, is_request_field, &reason);
    if (!earlier)
        earlier = write_times(schema, object, &reason);
    /* read in any case: the record of a refused request names its tenant and id */
    status = mf_request_from_json(object, false, request, error);
    json_decref(object);
    return earlier ? mf_error_set(error, earlier, "%s", reason.message) : status;
}

static bool is_command_field(const struct mf_avro_schema *schema, size_t field) {
    static const char *const names[] = {"command_id",          "tenant", "request_id",  "action",
                                        "expected_generation", "reason", "requested_by"};
    const char *name = json_string_value(json_object_get(schema->root->fields[field], "name"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], name))
            return true;
    return false;
}

/* Copies a text of at most `limit` bytes; *copy stays NULL when `text` is. */
static enum mf_status copy_text(const char *text, char **copy, struct mf_error *error) {
    if (text && !(*copy = strdup(text)))
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a command");
    return MF_OK;
}

static enum mf_status read_command_names(const json_t *object, struct mf_command *command,
                                         struct mf_error *error) {
    static const char *const where = "command";
    const char *tenant = "default", *request_id = NULL, *reason = NULL, *requested_by = NULL;
    enum mf_status status = mf_json_optional_string(object, where, "tenant", 64, &tenant, error);
    if (!status && !mf_tenant_name_valid(tenant))
        status = mf_error_set(
            error, MF_ERROR_INVALID_FIELD,
            "tenant: \"%.100s\" may hold only letters, digits, '.', '_' and '-', at most 64", tenant);
    if (!status)
        status = copy_text(tenant, &command->tenant, error);
    if (!status)
        status = mf_json_string(object, where, "request_id", 200, &request_id, error);
    if (!status && !mf_request_id_valid(request_id))
        status = mf_error_set(error, MF_ERROR_INVALID_FIELD,
                              "request_id: 1 to 200 bytes without control characters");
    if (!status)
        status = copy_text(request_id, &command->request_id, error);
    if (!status)
        status = mf_json_optional_string(object, where, "reason", 2000, &reason, error);
    if (!status)
        status = copy_text(reason, &command->reason, error);
    if (!status)
        status = mf_json_optional_string(object, where, "requested_by", 200, &requested_by, error);
    return status ? status : copy_text(requested_by, &command->requested_by, error);
}

static enum mf_status read_command(const json_t *object, struct mf_command *command, struct mf_error *error) {
    static const char *const where = "command";
    const char *command_id, *action;
    struct mf_uuid uuid;
    enum mf_status status = read_command_names(object, command, error);
    if (status || (status = mf_json_string(object, where, "command_id", 64, &command_id, error)))
        return status;
    if (!mf_uuid_parse(command_id, &uuid))
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "command_id: \"%s\" is not a uuid", command_id);
    mf_uuid_format(uuid, command->command_id);
    if ((status = mf_json_string(object, where, "action", 64, &action, error)))
        return status;
    if (!mf_command_action_parse(action, &command->action))
        return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                            "action: \"%s\" is not one of cancel, pause, resume, retry", action);
    command->expected_generation.value = 0;
    status = mf_json_optional_integer(object, where, "expected_generation", 1, INT32_MAX,
                                      &command->expected_generation.value, error);
    command->expected_generation.set = command->expected_generation.value != 0;
    return status;
}

enum mf_status mf_avro_decode_command(const struct mf_avro_schema *schema, const uint8_t *body,
                                      size_t body_bytes, struct mf_command *command, struct mf_error *error) {
    json_t *object;
    struct mf_error reason;
    memset(command, 0, sizeof *command);
    enum mf_status status = mf_avro_decode_json(schema, body, body_bytes, &object, error);
    if (status)
        return status;
    enum mf_status earlier = drop_unknown(schema, object, is_command_field, &reason);
    status = read_command(object, command, error);
    json_decref(object);
    return earlier ? mf_error_set(error, earlier, "%s", reason.message) : status;
}
