/* Requests, commands and events to bytes, in the field order of the built-in schemas. */
#include <string.h>

#include "schemas/avro_codec.h"
#include "schemas/embedded.h"
#include "schemas/request_private.h"

static const struct {
    const char *name, *schema;
} records[MF_AVRO_RECORD_COUNT] = {
    [MF_AVRO_TRAINING_REQUEST] = {"TrainingRequest", mf_embedded_TrainingRequest},
    [MF_AVRO_TRAINING_COMMAND] = {"TrainingCommand", mf_embedded_TrainingCommand},
    [MF_AVRO_JOB_EVENT] = {"JobEvent", mf_embedded_JobEvent},
};

const char *mf_avro_schema_text(enum mf_avro_record record) {
    return records[record].schema;
}

const char *mf_avro_record_name(enum mf_avro_record record) {
    return records[record].name;
}

static void put_frame(struct mf_text *out, uint32_t schema_id) {
    uint8_t frame[MF_AVRO_FRAME_BYTES] = {0, (uint8_t)(schema_id >> 24), (uint8_t)(schema_id >> 16),
                                          (uint8_t)(schema_id >> 8), (uint8_t)schema_id};
    mf_text_append(out, frame, sizeof frame);
}

/* Zigzag: small numbers of either sign take few bytes. */
static void put_long(struct mf_text *out, int64_t value) {
    uint64_t bits = (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0);
    uint8_t bytes[10];
    size_t count = 0;
    do {
        bytes[count++] = (uint8_t)((bits & 0x7F) | (bits > 0x7F ? 0x80 : 0));
        bits >>= 7;
    } while (bits);
    mf_text_append(out, bytes, count);
}

static void put_double(struct mf_text *out, double value) {
    uint64_t bits;
    uint8_t bytes[8];
    memcpy(&bits, &value, sizeof bits);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(bits >> 8 * i);
    mf_text_append(out, bytes, sizeof bytes);
}

static void put_boolean(struct mf_text *out, bool value) {
    mf_text_append(out, value ? "\1" : "\0", 1);
}

static void put_string(struct mf_text *out, const char *value) {
    put_long(out, (int64_t)strlen(value));
    mf_text_puts(out, value);
}

/* The branch of ["null", ...]: returns `set`. */
static bool put_branch(struct mf_text *out, bool set) {
    put_long(out, set ? 1 : 0);
    return set;
}

static void put_optional_string(struct mf_text *out, const char *value) {
    if (put_branch(out, value != NULL))
        put_string(out, value);
}

static void put_optional_long(struct mf_text *out, struct mf_optional_integer value) {
    if (put_branch(out, value.set))
        put_long(out, value.value);
}

static void put_list(struct mf_text *out, const struct mf_string_list *list) {
    if (list->count)
        put_long(out, (int64_t)list->count);
    for (size_t i = 0; i < list->count; i++)
        put_string(out, list->item[i]);
    put_long(out, 0);
}

static void put_map(struct mf_text *out, const json_t *map) {
    const char *key;
    json_t *value;
    if (json_object_size(map))
        put_long(out, (int64_t)json_object_size(map));
    json_object_foreach((json_t *)map, key, value) {
        put_string(out, key);
        put_string(out, json_string_value(value));
    }
    put_long(out, 0);
}

static void put_field(struct mf_text *out, const struct mf_field *field, const struct mf_request *request) {
    const void *value = mf_field_value(field, request);
    switch (field->kind) {
    case MF_KIND_STRING:
        if (field->required || field->default_text)
            put_string(out, *(char *const *)value);
        else
            put_optional_string(out, *(char *const *)value);
        break;
    case MF_KIND_INTEGER:
        put_long(out, *(const int64_t *)value);
        break;
    case MF_KIND_NUMBER:
        put_double(out, *(const double *)value);
        break;
    case MF_KIND_BOOLEAN:
        put_boolean(out, *(const bool *)value);
        break;
    case MF_KIND_OPTIONAL_INTEGER:
    case MF_KIND_TIMESTAMP:
        put_optional_long(out, *(const struct mf_optional_integer *)value);
        break;
    case MF_KIND_OPTIONAL_NUMBER:
        if (put_branch(out, ((const struct mf_optional_number *)value)->set))
            put_double(out, ((const struct mf_optional_number *)value)->value);
        break;
    case MF_KIND_OPTIONAL_BOOLEAN:
        if (put_branch(out, ((const struct mf_optional_boolean *)value)->set))
            put_boolean(out, ((const struct mf_optional_boolean *)value)->value);
        break;
    case MF_KIND_STRING_LIST:
        put_list(out, value);
        break;
    case MF_KIND_MAP:
        put_map(out, *(json_t *const *)value);
        break;
    }
}

/* Appends what was built, or nothing. */
static enum mf_status append_message(struct mf_text *built, struct mf_text *message, struct mf_error *error) {
    enum mf_status status = mf_text_status(built, error);
    if (!status && built->length > MF_AVRO_MESSAGE_BYTES)
        status = mf_error_set(error, MF_ERROR_MESSAGE_TOO_LARGE, "%zu bytes as Avro, at most %d are taken",
                              built->length, MF_AVRO_MESSAGE_BYTES);
    if (!status) {
        mf_text_append(message, built->data, built->length);
        status = mf_text_status(message, error);
    }
    mf_text_free(built);
    return status;
}

enum mf_status mf_avro_encode_request(uint32_t schema_id, const struct mf_request *request,
                                      struct mf_text *message, struct mf_error *error) {
    struct mf_text built = {0};
    enum mf_status status = mf_request_validate(request, error);
    if (status)
        return status;
    put_frame(&built, schema_id);
    for (size_t i = 0; i < MF_REQUEST_FIELD_COUNT; i++)
        put_field(&built, &mf_request_fields()[i], request);
    return append_message(&built, message, error);
}

enum mf_status mf_avro_encode_command(uint32_t schema_id, const struct mf_command *command,
                                      struct mf_text *message, struct mf_error *error) {
    struct mf_text built = {0};
    struct mf_uuid uuid;
    if (!mf_command_action_name(command->action) || !mf_uuid_parse(command->command_id, &uuid) ||
        !command->tenant || !mf_tenant_name_valid(command->tenant) || !command->request_id ||
        !mf_request_id_valid(command->request_id))
        return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                            "a command needs a uuid, a tenant name, a request id and one of the actions");
    put_frame(&built, schema_id);
    put_string(&built, command->command_id);
    put_string(&built, command->tenant);
    put_string(&built, command->request_id);
    put_string(&built, mf_command_action_name(command->action));
    put_optional_long(&built, command->expected_generation);
    put_optional_string(&built, command->reason);
    put_optional_string(&built, command->requested_by);
    return append_message(&built, message, error);
}

enum mf_status mf_avro_encode_event(uint32_t schema_id, const struct mf_job_event *event,
                                    struct mf_text *message, struct mf_error *error) {
    struct mf_text built = {0};
    put_frame(&built, schema_id);
    put_string(&built, event->event_id);
    put_string(&built, event->job_id);
    put_string(&built, event->tenant);
    put_string(&built, event->request_id);
    put_long(&built, event->sequence);
    put_long(&built, event->recorded_at_ms);
    put_string(&built, event->type);
    put_string(&built, event->state);
    put_long(&built, event->attempt);
    put_optional_long(&built, event->step);
    put_optional_string(&built, event->detail);
    return append_message(&built, message, error);
}
