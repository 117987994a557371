/* Fuzzing entry of the codec: the first two bytes choose a schema and where the schema ends; the rest is a
 * message for a built-in schema, or a schema and a message for it. */
#include <stdlib.h>
#include <string.h>

#include "schemas/avro_codec.h"
#include "tests/fuzz/fuzz.h"

static void decode(const struct mf_avro_schema *schema, const uint8_t *body, size_t size) {
    struct mf_request request;
    struct mf_command command;
    struct mf_error error;
    struct mf_text message = {0};
    if (!mf_avro_decode_request(schema, body, size, &request, &error) &&
        mf_avro_encode_request(1, &request, &message, &error))
        abort(); /* what was taken in can be written again */
    mf_request_free(&request);
    mf_text_free(&message);
    mf_avro_decode_command(schema, body, size, &command, &error);
    mf_command_free(&command);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mf_avro_schema *schema;
    struct mf_error error;
    if (size < 2)
        return 0;
    unsigned kind = data[0] % (MF_AVRO_RECORD_COUNT + 1);
    const char *json = (const char *)data + 2;
    size_t length = (size - 2) * data[1] / 255;
    if (kind < MF_AVRO_RECORD_COUNT) {
        json = mf_avro_schema_text((enum mf_avro_record)kind);
        length = 0;
    }
    if (!mf_avro_schema_parse(json, kind < MF_AVRO_RECORD_COUNT ? strlen(json) : length, &schema, &error)) {
        decode(schema, data + 2 + length, size - 2 - length);
        mf_avro_schema_free(schema);
    }
    return 0;
}
