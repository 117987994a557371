#include "common/json.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "common/text.h"

/* Whether brackets outside of strings nest deeper than MF_JSON_DEPTH. jansson's parser recurses up to 2048.
 */
static bool too_deep(const char *text, size_t length) {
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > MF_JSON_DEPTH)
                return true;
        } else if ((c == ']' || c == '}') && depth) {
            depth--;
        }
    }
    return false;
}

enum mf_status mf_json_parse(const char *text, size_t length, const char *where, json_t **value,
                             struct mf_error *error) {
    *value = NULL;
    if (too_deep(text, length))
        return mf_error_set(error, MF_ERROR_INVALID_JSON, "%s: nested deeper than %d levels", where,
                            MF_JSON_DEPTH);
    json_error_t reason;
    *value = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &reason);
    if (*value)
        return MF_OK;
    if (json_error_code(&reason) == json_error_out_of_memory)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "%s: no memory to parse it", where);
    return mf_error_set(error, MF_ERROR_INVALID_JSON, "%s: line %d, column %d: %s", where, reason.line,
                        reason.column, reason.text);
}

enum mf_status mf_json_read_file(const char *path, size_t limit_bytes, json_t **value,
                                 struct mf_error *error) {
    char *text;
    size_t length;
    *value = NULL;
    enum mf_status status =
        mf_file_read(path, limit_bytes ? limit_bytes : MF_JSON_FILE_BYTES, &text, &length, error);
    if (status)
        return status;
    status = mf_json_parse(text, length, path, value, error);
    free(text);
    return status;
}

const char *mf_json_type_name(const json_t *value) {
    if (!value)
        return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

char *mf_json_excerpt(const json_t *value, char *text, size_t bytes) {
    char *whole = NULL;
    struct mf_error ignored;
    if (!value || mf_json_canonical(value, &whole, &ignored))
        snprintf(text, bytes, "%s", value ? "?" : "nothing");
    else if (strlen(whole) < bytes)
        memcpy(text, whole, strlen(whole) + 1);
    else if (bytes) {
        size_t end = bytes > 4 ? bytes - 4 : 0;
        while (end && ((unsigned char)whole[end] & 0xC0) == 0x80)
            end--;
        snprintf(text, bytes, "%.*s...", (int)end, whole);
    }
    free(whole);
    return text;
}

/* The member, or NULL with *status MF_OK (absent and optional) or an error. */
static const json_t *member(const json_t *object, const char *where, const char *key, bool optional,
                            enum mf_status *status, struct mf_error *error) {
    *status = MF_OK;
    if (!json_is_object(object)) {
        *status = mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: expected an object with \"%s\", found %s",
                               where, key, mf_json_type_name(object));
        return NULL;
    }
    const json_t *value = json_object_get(object, key);
    if (value && !json_is_null(value))
        return value;
    if (!optional)
        *status = mf_error_set(error, MF_ERROR_MISSING_FIELD, "%s: \"%s\" is missing", where, key);
    return NULL;
}

static enum mf_status wrong_type(const json_t *value, const char *where, const char *key,
                                 const char *expected, struct mf_error *error) {
    char excerpt[80];
    return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: %s: expected %s, found %s (%s)", where, key,
                        expected, mf_json_type_name(value), mf_json_excerpt(value, excerpt, sizeof excerpt));
}

static enum mf_status read_string(const json_t *object, const char *where, const char *key, bool optional,
                                  size_t limit_bytes, const char **result, struct mf_error *error) {
    enum mf_status status;
    const json_t *value = member(object, where, key, optional, &status, error);
    if (!value)
        return status;
    if (!json_is_string(value))
        return wrong_type(value, where, key, "a string", error);
    if (json_string_length(value) > limit_bytes)
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: %s: %zu bytes long, at most %zu are allowed",
                            where, key, json_string_length(value), limit_bytes);
    *result = json_string_value(value);
    return MF_OK;
}

enum mf_status mf_json_string(const json_t *object, const char *where, const char *key, size_t limit_bytes,
                              const char **value, struct mf_error *error) {
    return read_string(object, where, key, false, limit_bytes, value, error);
}

enum mf_status mf_json_optional_string(const json_t *object, const char *where, const char *key,
                                       size_t limit_bytes, const char **value, struct mf_error *error) {
    return read_string(object, where, key, true, limit_bytes, value, error);
}

static enum mf_status read_integer(const json_t *object, const char *where, const char *key, bool optional,
                                   int64_t minimum, int64_t maximum, int64_t *result,
                                   struct mf_error *error) {
    enum mf_status status;
    const json_t *value = member(object, where, key, optional, &status, error);
    if (!value)
        return status;
    int64_t integer;
    if (json_is_integer(value))
        integer = json_integer_value(value);
    else if (json_is_real(value) && rint(json_real_value(value)) == json_real_value(value) &&
             fabs(json_real_value(value)) < 9e15)
        integer = (int64_t)json_real_value(value);
    else
        return wrong_type(value, where, key, "an integer", error);
    if (integer < minimum || integer > maximum)
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: %s: %lld is not in [%lld, %lld]", where, key,
                            (long long)integer, (long long)minimum, (long long)maximum);
    *result = integer;
    return MF_OK;
}

enum mf_status mf_json_integer(const json_t *object, const char *where, const char *key, int64_t minimum,
                               int64_t maximum, int64_t *value, struct mf_error *error) {
    return read_integer(object, where, key, false, minimum, maximum, value, error);
}

enum mf_status mf_json_optional_integer(const json_t *object, const char *where, const char *key,
                                        int64_t minimum, int64_t maximum, int64_t *value,
                                        struct mf_error *error) {
    return read_integer(object, where, key, true, minimum, maximum, value, error);
}

static enum mf_status read_number(const json_t *object, const char *where, const char *key, bool optional,
                                  double minimum, double maximum, double *result, struct mf_error *error) {
    enum mf_status status;
    const json_t *value = member(object, where, key, optional, &status, error);
    if (!value)
        return status;
    if (!json_is_number(value))
        return wrong_type(value, where, key, "a number", error);
    double number = json_number_value(value);
    if (!(number >= minimum && number <= maximum))
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: %s: %g is not in [%g, %g]", where, key,
                            number, minimum, maximum);
    *result = number;
    return MF_OK;
}

enum mf_status mf_json_number(const json_t *object, const char *where, const char *key, double minimum,
                              double maximum, double *value, struct mf_error *error) {
    return read_number(object, where, key, false, minimum, maximum, value, error);
}

enum mf_status mf_json_optional_number(const json_t *object, const char *where, const char *key,
                                       double minimum, double maximum, double *value,
                                       struct mf_error *error) {
    return read_number(object, where, key, true, minimum, maximum, value, error);
}

static enum mf_status read_boolean(const json_t *object, const char *where, const char *key, bool optional,
                                   bool *result, struct mf_error *error) {
    enum mf_status status;
    const json_t *value = member(object, where, key, optional, &status, error);
    if (!value)
        return status;
    if (!json_is_boolean(value))
        return wrong_type(value, where, key, "true or false", error);
    *result = json_is_true(value);
    return MF_OK;
}

enum mf_status mf_json_boolean(const json_t *object, const char *where, const char *key, bool *value,
                               struct mf_error *error) {
    return read_boolean(object, where, key, false, value, error);
}

enum mf_status mf_json_optional_boolean(const json_t *object, const char *where, const char *key, bool *value,
                                        struct mf_error *error) {
    return read_boolean(object, where, key, true, value, error);
}

static enum mf_status read_container(const json_t *object, const char *where, const char *key, bool optional,
                                     json_type type, size_t limit_items, json_t **result,
                                     struct mf_error *error) {
    enum mf_status status;
    const json_t *value = member(object, where, key, optional, &status, error);
    if (!value)
        return status;
    if (json_typeof(value) != type)
        return wrong_type(value, where, key, type == JSON_OBJECT ? "an object" : "an array", error);
    if (type == JSON_ARRAY && json_array_size(value) > limit_items)
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: %s: %zu items, at most %zu are allowed",
                            where, key, json_array_size(value), limit_items);
    *result = json_object_get(object, key);
    return MF_OK;
}

enum mf_status mf_json_object(const json_t *object, const char *where, const char *key, json_t **value,
                              struct mf_error *error) {
    return read_container(object, where, key, false, JSON_OBJECT, 0, value, error);
}

enum mf_status mf_json_optional_object(const json_t *object, const char *where, const char *key,
                                       json_t **value, struct mf_error *error) {
    return read_container(object, where, key, true, JSON_OBJECT, 0, value, error);
}

enum mf_status mf_json_array(const json_t *object, const char *where, const char *key, size_t limit_items,
                             json_t **value, struct mf_error *error) {
    return read_container(object, where, key, false, JSON_ARRAY, limit_items, value, error);
}

enum mf_status mf_json_optional_array(const json_t *object, const char *where, const char *key,
                                      size_t limit_items, json_t **value, struct mf_error *error) {
    return read_container(object, where, key, true, JSON_ARRAY, limit_items, value, error);
}

char *mf_number_format(double value, char text[MF_NUMBER_TEXT_BYTES]) {
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, MF_NUMBER_TEXT_BYTES, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    /* C's exponent has at least two digits: 1e-08 becomes 1e-8. */
    char *exponent = strchr(text, 'e');
    if (exponent && exponent[2] == '0' && isdigit((unsigned char)exponent[3]))
        memmove(exponent + 2, exponent + 3, strlen(exponent + 3) + 1);
    return text;
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void write_canonical(const json_t *value, struct mf_text *out);

static void write_object(const json_t *value, struct mf_text *out) {
    size_t count = json_object_size(value), n = 0;
    const char **keys = calloc(count ? count : 1, sizeof *keys);
    if (!keys) {
        out->failed = true;
        return;
    }
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)value, key, item) keys[n++] = key;
    qsort(keys, n, sizeof *keys, compare_keys);
    mf_text_puts(out, "{");
    for (size_t i = 0; i < n; i++) {
        json_t *name = json_string(keys[i]);
        if (!name)
            out->failed = true;
        if (i)
            mf_text_puts(out, ",");
        write_canonical(name, out);
        mf_text_puts(out, ":");
        write_canonical(json_object_get(value, keys[i]), out);
        json_decref(name);
    }
    mf_text_puts(out, "}");
    free(keys);
}

static int append_bytes(const char *bytes, size_t length, void *context) {
    mf_text_append(context, bytes, length);
    return 0;
}

static void write_canonical(const json_t *value, struct mf_text *out) {
    char number[MF_NUMBER_TEXT_BYTES];
    if (json_is_object(value)) {
        write_object(value, out);
    } else if (json_is_array(value)) {
        mf_text_puts(out, "[");
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (i)
                mf_text_puts(out, ",");
            write_canonical(json_array_get(value, i), out);
        }
        mf_text_puts(out, "]");
    } else if (json_is_real(value)) {
        mf_text_puts(out, mf_number_format(json_real_value(value), number));
    } else if (json_dump_callback(value, append_bytes, out, JSON_ENCODE_ANY)) {
        out->failed = true;
    }
}

enum mf_status mf_json_canonical(const json_t *value, char **text, struct mf_error *error) {
    struct mf_text out = {0};
    write_canonical(value, &out);
    enum mf_status status = mf_text_status(&out, error);
    *text = status ? NULL : mf_text_take(&out);
    mf_text_free(&out);
    return status;
}

/* C0 and C1 controls, and DEL; `next` is the byte after it. */
static size_t control_bytes(unsigned char byte, unsigned char next) {
    if ((byte < ' ' && byte != '\n' && byte != '\t') || byte == 0x7F)
        return 1;
    return byte == 0xC2 && next >= 0x80 && next <= 0x9F ? 2 : 0;
}

static void clean_string(json_t *value) {
    const size_t length = json_string_length(value);
    const char *text = json_string_value(value);
    char *clean = malloc(length + 1);
    size_t used = 0, controls = 0;
    for (size_t i = 0; clean && i < length;) {
        const size_t bytes = control_bytes((unsigned char)text[i], (unsigned char)text[i + 1]);
        clean[used++] = bytes ? '?' : text[i];
        controls += bytes != 0;
        i += bytes ? bytes : 1;
    }
    if (!clean || (controls && json_string_setn(value, clean, used)))
        (void)json_string_set(value, "");
    free(clean);
}

void mf_json_clean_text(json_t *value) {
    const char *name;
    json_t *member;
    size_t i;
    if (json_is_string(value))
        clean_string(value);
    json_array_foreach(value, i, member) mf_json_clean_text(member);
    json_object_foreach(value, name, member) mf_json_clean_text(member);
}
