#include "worker/decode.h"

#include "common/json.h"

#include <stdlib.h>
#include <string.h>

static enum mf_decode_result reject(struct mf_handed_record *record) {
    record->row.kind = MF_INGEST_REJECT;
    record->row.reject_status = record->error.status;
    record->row.reject_reason = record->error.message;
    return MF_DECODED;
}

static int64_t time_or_none(struct mf_optional_integer time) {
    return time.set ? time.value : MF_TIME_NONE;
}

static char *copy_of_header(const rd_kafka_message_t *message, const char *name, size_t limit) {
    rd_kafka_headers_t *headers;
    const void *value;
    size_t size;
    if (rd_kafka_message_headers(message, &headers) ||
        rd_kafka_header_get_last(headers, name, &value, &size) || !value || size > limit)
        return NULL;
    for (size_t i = 0; i < size; i++) /* a traceparent is printable ASCII; anything else is dropped */
        if (((const unsigned char *)value)[i] < ' ' || ((const unsigned char *)value)[i] > '~')
            return NULL;
    return strndup(value, size);
}

static enum mf_status check_tenant(const struct mf_topic_rule *rule, const char *tenant,
                                   struct mf_error *error) {
    if (mf_topic_rule_allows(rule, tenant))
        return MF_OK;
    return mf_error_set(error, MF_ERROR_TENANT_NOT_ALLOWED, "topic '%s' may not name tenant '%s'",
                        rule->topic, tenant);
}

/* The struct is valid; what the row needs besides it. */
static enum mf_status fill_request_row(struct mf_handed_record *record, uint32_t schema_id,
                                       struct mf_error *error) {
    const struct mf_request *request = &record->request;
    struct mf_ingest_request *row = &record->row.request;
    json_t *config = NULL;
    enum mf_status status;
    if ((status = mf_job_id(request->tenant, request->request_id, 1, row->job_id, error)) ||
        (status = mf_request_hash(request, row->request_hash, error)) ||
        (status = mf_request_to_json(request, false, &config, error)) ||
        (status = mf_json_canonical(config, &record->config, error))) {
        json_decref(config);
        return status;
    }
    json_decref(config);
    record->trace_context = copy_of_header(record->message, "traceparent", 128);
    record->row.kind = MF_INGEST_REQUEST;
    row->tenant = request->tenant;
    row->request_id = request->request_id;
    row->config = record->config;
    row->provider = request->provider;
    row->batch_id = request->batch_id;
    row->submitted_by = request->submitted_by;
    row->trace_context = record->trace_context;
    row->run_at = time_or_none(request->run_at);
    row->deadline = time_or_none(request->deadline);
    row->priority = (int32_t)request->priority;
    row->devices = (int32_t)request->gpus;
    row->max_attempts = (int32_t)request->max_attempts;
    row->schema_id = (int32_t)schema_id;
    return MF_OK;
}

static enum mf_status decode_request(const struct mf_avro_schema *schema, uint32_t schema_id,
                                     const uint8_t *body, size_t size, const struct mf_topic_rule *rule,
                                     struct mf_handed_record *record) {
    struct mf_error *error = &record->error;
    enum mf_status status = mf_avro_decode_request(schema, body, size, &record->request, error);
    if (!status)
        status = check_tenant(rule, record->request.tenant, error);
    return status ? status : fill_request_row(record, schema_id, error);
}

static enum mf_status decode_command(const struct mf_avro_schema *schema, const uint8_t *body, size_t size,
                                     const struct mf_topic_rule *rule, struct mf_handed_record *record) {
    struct mf_error *error = &record->error;
    struct mf_command *command = &record->command;
    enum mf_status status = mf_avro_decode_command(schema, body, size, command, error);
    if (!status)
        status = check_tenant(rule, command->tenant, error);
    if (status)
        return status;
    struct mf_ingest_command *row = &record->row.command;
    record->row.kind = MF_INGEST_COMMAND;
    memcpy(row->command_id, command->command_id, sizeof row->command_id);
    row->tenant = command->tenant;
    row->request_id = command->request_id;
    row->action = command->action;
    row->expected_generation =
        command->expected_generation.set ? (int32_t)command->expected_generation.value : 0;
    row->reason = command->reason;
    row->requested_by = command->requested_by;
    return MF_OK;
}

static void fill_source(struct mf_handed_record *record) {
    const rd_kafka_message_t *message = record->message;
    rd_kafka_timestamp_type_t type;
    int64_t timestamp = rd_kafka_message_timestamp(message, &type);
    record->row.offset = message->offset;
    record->row.timestamp = type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? MF_TIME_NONE : timestamp;
    record->row.key = message->key;
    record->row.key_size = message->key_len;
    record->row.value = message->payload;
    record->row.value_size = message->len;
}

enum mf_decode_result mf_decode(struct mf_registry *registry, const struct mf_topic_rule *rule,
                                const char *subject, bool give_up, struct mf_handed_record *record,
                                uint32_t *schema_id) {
    const uint8_t *body;
    size_t size;
    fill_source(record);
    if (mf_avro_unframe(record->message->payload, record->message->len, schema_id, &body, &size,
                        &record->error))
        return reject(record);
    const struct mf_avro_schema *schema = mf_registry_cached(registry, subject, *schema_id);
    if (!schema && !give_up)
        return MF_DECODE_NO_SCHEMA;
    enum mf_status status;
    if (!schema)
        status =
            mf_error_set(&record->error, MF_ERROR_UNKNOWN_SCHEMA,
                         "schema id %u is not registered under subject '%s'", (unsigned)*schema_id, subject);
    else if (rule->commands)
        status = decode_command(schema, body, size, rule, record);
    else
        status = decode_request(schema, *schema_id, body, size, rule, record);
    if (status == MF_ERROR_OUT_OF_MEMORY)
        return MF_DECODE_NO_MEMORY;
    return status ? reject(record) : MF_DECODED;
}

size_t mf_handed_record_bytes(const struct mf_handed_record *record) {
    return sizeof *record + record->row.key_size + record->row.value_size +
           (record->config ? 2 * strlen(record->config) : 0);
}

void mf_handed_record_free(struct mf_handed_record *record) {
    if (!record)
        return;
    if (record->message)
        rd_kafka_message_destroy(record->message);
    mf_request_free(&record->request);
    mf_command_free(&record->command);
    free(record->config);
    free(record->trace_context);
    free(record);
}
