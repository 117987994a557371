/* Walks a writer's schema over the bytes of a message and believes nothing: avro-c allocates what a length or
 * a count says, so both are compared with the bytes that are there first. */
#include <math.h>
#include <string.h>

#include "common/text.h"
#include "schemas/avro_schema.h"

enum { VALUES = 4 * MF_AVRO_ITEMS }; /* of a message, whatever their size: some take no bytes */

struct cursor {
    const uint8_t *bytes;
    size_t size, at;
    size_t items, values;
    int depth;
    const char *field; /* of the outermost record, for messages */
    struct mf_error *error;
};

static enum mf_status bad(struct cursor *cursor, const char *what) {
    mf_error_set(cursor->error, MF_ERROR_BAD_AVRO, "field %s, byte %zu: %s", cursor->field, cursor->at, what);
    return MF_ERROR_BAD_AVRO;
}

static size_t left(const struct cursor *cursor) {
    return cursor->size - cursor->at;
}

static enum mf_status check_long(struct cursor *cursor, int64_t *value) {
    uint64_t bits = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (!left(cursor))
            return bad(cursor, "the message ends inside a number");
        uint8_t byte = cursor->bytes[cursor->at++];
        if (shift == 63 && byte > 1)
            return bad(cursor, "a number is longer than 64 bits");
        bits |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) {
            *value = (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1);
            return MF_OK;
        }
    }
    return bad(cursor, "a number is longer than 64 bits");
}

static enum mf_status check_bytes(struct cursor *cursor, size_t size) {
    if (size > left(cursor))
        return bad(cursor, "the message ends inside a value");
    cursor->at += size;
    return MF_OK;
}

/* Length and content of a string (text) or bytes. */
static enum mf_status check_sized(struct cursor *cursor, bool text) {
    int64_t length = 0;
    enum mf_status status = check_long(cursor, &length);
    if (status)
        return status;
    if (length < 0 || (uint64_t)length > left(cursor))
        return bad(cursor, "a length does not fit the message");
    if (text && !mf_utf8_valid(cursor->bytes + cursor->at, (size_t)length))
        return bad(cursor, "a string is not UTF-8 or holds a NUL");
    cursor->at += (size_t)length;
    return MF_OK;
}

static enum mf_status check_real(struct cursor *cursor, size_t size) {
    double number = 0;
    float narrow = 0;
    if (size > left(cursor))
        return bad(cursor, "the message ends inside a value");
    if (size == sizeof number)
        memcpy(&number, cursor->bytes + cursor->at, size);
    else
        memcpy(&narrow, cursor->bytes + cursor->at, size);
    if (!isfinite(number) || !isfinite(narrow))
        return bad(cursor, "a number is not finite");
    cursor->at += size;
    return MF_OK;
}

/* An index below `count`; MF_OK in *index. */
static enum mf_status check_index(struct cursor *cursor, size_t count, size_t *index) {
    int64_t value;
    enum mf_status status = check_long(cursor, &value);
    if (status)
        return status;
    if (value < 0 || (uint64_t)value >= count)
        return bad(cursor, "a branch or symbol is out of range");
    *index = (size_t)value;
    return MF_OK;
}

static enum mf_status check_value(struct cursor *cursor, const struct mf_avro_node *node);

/* The count of a block, 0 at the end; *end is where the block says that it ends, SIZE_MAX when it does not
 * say. */
static enum mf_status check_block(struct cursor *cursor, size_t *count, size_t *end) {
    int64_t number, size;
    enum mf_status status = check_long(cursor, &number);
    *end = SIZE_MAX;
    if (status)
        return status;
    if (number < 0) {
        if ((status = check_long(cursor, &size)))
            return status;
        if (size < 0 || (uint64_t)size > left(cursor))
            return bad(cursor, "the size of a block does not fit the message");
        *end = cursor->at + (size_t)size;
        number = number < -MF_AVRO_ITEMS ? MF_AVRO_ITEMS + 1 : -number;
    }
    if (number > MF_AVRO_ITEMS || cursor->items + (size_t)number > MF_AVRO_ITEMS)
        return bad(cursor, "more items than a message may have");
    cursor->items += (size_t)number;
    *count = (size_t)number;
    return MF_OK;
}

static enum mf_status check_blocks(struct cursor *cursor, const struct mf_avro_node *node) {
    size_t count = 0, end = 0;
    for (;;) {
        enum mf_status status = check_block(cursor, &count, &end);
        if (status || !count)
            return status;
        for (size_t i = 0; !status && i < count; i++) {
            status = node->kind == MF_AVRO_MAP ? check_sized(cursor, true) : MF_OK;
            if (!status)
                status = check_value(cursor, node->children[0]);
        }
        if (!status && end != SIZE_MAX && cursor->at != end)
            status = bad(cursor, "a block has another size than it says");
        if (status)
            return status;
    }
}

static enum mf_status check_record(struct cursor *cursor, const struct mf_avro_node *node) {
    enum mf_status status = MF_OK;
    for (size_t i = 0; !status && i < node->count; i++) {
        if (cursor->depth == 1)
            cursor->field = json_string_value(json_object_get(node->fields[i], "name"));
        status = check_value(cursor, node->children[i]);
    }
    return status;
}

static enum mf_status check_scalar(struct cursor *cursor, const struct mf_avro_node *node) {
    int64_t number;
    size_t index;
    enum mf_status status;
    switch (node->kind) {
    case MF_AVRO_BOOLEAN:
        if (left(cursor) && cursor->bytes[cursor->at] > 1)
            return bad(cursor, "a boolean is neither 0 nor 1");
        return check_bytes(cursor, 1);
    case MF_AVRO_INT:
        status = check_long(cursor, &number);
        return !status && (number < INT32_MIN || number > INT32_MAX)
                   ? bad(cursor, "an int is longer than 32 bits")
                   : status;
    case MF_AVRO_LONG:
        return check_long(cursor, &number);
    case MF_AVRO_FLOAT:
        return check_real(cursor, sizeof(float));
    case MF_AVRO_DOUBLE:
        return check_real(cursor, sizeof(double));
    case MF_AVRO_BYTES:
        return check_sized(cursor, false);
    case MF_AVRO_STRING:
        return check_sized(cursor, true);
    case MF_AVRO_ENUM:
        return check_index(cursor, node->count, &index);
    case MF_AVRO_FIXED:
        return check_bytes(cursor, node->count);
    default:
        return MF_OK;
    }
}

static enum mf_status check_value(struct cursor *cursor, const struct mf_avro_node *node) {
    enum mf_status status;
    size_t branch = 0;
    if (++cursor->values > VALUES)
        return bad(cursor, "more values than a message may have");
    if (node->kind < MF_AVRO_RECORD || node->kind == MF_AVRO_ENUM || node->kind == MF_AVRO_FIXED)
        return check_scalar(cursor, node);
    if (cursor->depth == MF_AVRO_DEPTH)
        return bad(cursor, "values are nested too deep");
    cursor->depth++;
    switch (node->kind) {
    case MF_AVRO_RECORD:
        status = check_record(cursor, node);
        break;
    case MF_AVRO_UNION:
        status = check_index(cursor, node->count, &branch);
        if (!status)
            status = check_value(cursor, node->children[branch]);
        break;
    default:
        status = check_blocks(cursor, node);
        break;
    }
    cursor->depth--;
    return status;
}

enum mf_status mf_avro_check(const struct mf_avro_schema *schema, const uint8_t *body, size_t body_bytes,
                             struct mf_error *error) {
    struct cursor cursor = {.bytes = body, .size = body_bytes, .field = "(none)", .error = error};
    enum mf_status status = check_value(&cursor, schema->root);
    if (!status && left(&cursor))
        status = mf_error_set(error, MF_ERROR_BAD_AVRO, "%zu bytes follow the record", left(&cursor));
    return status;
}
