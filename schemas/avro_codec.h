/* Avro bytes <-> request, command and event, with Confluent's framing: 0x00, 4-byte big-endian schema id,
 * body.
 *
 * Bytes from outside are decoded with the writer's schema and never trusted: every length, block count,
 * nesting and the total are checked against the bytes that are there before anything is allocated for them;
 * strings are valid UTF-8 without NUL; numbers are finite; nothing may follow the record. */
#ifndef MF_SCHEMAS_AVRO_CODEC_H
#define MF_SCHEMAS_AVRO_CODEC_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/error.h"
#include "common/text.h"
#include "schemas/command.h"
#include "schemas/request.h"

enum {
    MF_AVRO_MESSAGE_BYTES = 1 << 20,  /* a longer message is MF_ERROR_MESSAGE_TOO_LARGE */
    MF_AVRO_SCHEMA_BYTES = 256 << 10, /* the JSON of a writer's schema */
    MF_AVRO_DEPTH = 16,               /* nesting of values */
    MF_AVRO_ITEMS = 65536,            /* items of all arrays and maps of a message together */
    MF_AVRO_FRAME_BYTES = 5
};

/* The record types whose schemas are built in (schemas/NAME.avsc). */
enum mf_avro_record {
    MF_AVRO_TRAINING_REQUEST,
    MF_AVRO_TRAINING_COMMAND,
    MF_AVRO_JOB_EVENT,
    MF_AVRO_RECORD_COUNT
};

/* The text of the built-in schema, to register it. Static. */
const char *mf_avro_schema_text(enum mf_avro_record record);
/* "TrainingRequest", ... */
const char *mf_avro_record_name(enum mf_avro_record record);

/* A compiled writer's schema: a record, with the defaults of its fields. Immutable; any number of threads may
 * decode with it at once. */
struct mf_avro_schema;
/* MF_ERROR_UNKNOWN_SCHEMA when it is not a usable Avro record schema (too large, too deep, not JSON, a type
 * that is not known). *schema is freed with mf_avro_schema_free. */
enum mf_status mf_avro_schema_parse(const char *json, size_t length, struct mf_avro_schema **schema,
                                    struct mf_error *error);
void mf_avro_schema_free(struct mf_avro_schema *schema);

/* Takes the frame off: MF_ERROR_NOT_AVRO when it is too short (an empty or NULL message too) or does not
 * begin with 0x00, MF_ERROR_MESSAGE_TOO_LARGE. *body points into the message. */
enum mf_status mf_avro_unframe(const void *message, size_t size, uint32_t *schema_id, const uint8_t **body,
                               size_t *body_bytes, struct mf_error *error);

/* Any record to JSON: new reference. Unions give their value; enums and fixed and bytes give text. A long
 * with a timestamp logical type stays a number. MF_ERROR_BAD_AVRO with the field and the byte offset. */
enum mf_status mf_avro_decode_json(const struct mf_avro_schema *schema, const uint8_t *body,
                                   size_t body_bytes, json_t **object, struct mf_error *error);

/* The body as a request: decoded, missing fields filled from the field table, validated as
 * mf_request_from_json does. A field that is not in the table and whose value differs from the writer's
 * default is MF_ERROR_UNKNOWN_FIELD. *request must be freed whatever is returned; on failure it holds tenant
 * and request_id when they could be read. */
enum mf_status mf_avro_decode_request(const struct mf_avro_schema *schema, const uint8_t *body,
                                      size_t body_bytes, struct mf_request *request, struct mf_error *error);

/* As for requests: *command must be freed whatever is returned. MF_ERROR_INVALID_FIELD for a bad name, action
 * or uuid. */
enum mf_status mf_avro_decode_command(const struct mf_avro_schema *schema, const uint8_t *body,
                                      size_t body_bytes, struct mf_command *command, struct mf_error *error);

/* What the events topic carries. Strings are borrowed; those that may be NULL say so. */
struct mf_job_event {
    const char *event_id, *job_id; /* uuid */
    const char *tenant, *request_id;
    int64_t sequence;       /* of the job, from 1; consumers drop what is not above the last they saw */
    int64_t recorded_at_ms; /* when it was recorded */
    const char *type, *state;
    int64_t attempt;
    struct mf_optional_integer step;
    const char *detail; /* a JSON object as text; may be NULL */
};

/* Appends frame and body, written with the built-in schema that the registry knows as `schema_id`. The
 * message is left as it was when it fails. */
enum mf_status mf_avro_encode_request(uint32_t schema_id, const struct mf_request *request,
                                      struct mf_text *message, struct mf_error *error);
enum mf_status mf_avro_encode_command(uint32_t schema_id, const struct mf_command *command,
                                      struct mf_text *message, struct mf_error *error);
enum mf_status mf_avro_encode_event(uint32_t schema_id, const struct mf_job_event *event,
                                    struct mf_text *message, struct mf_error *error);

#endif
