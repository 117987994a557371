/* Typed, bounded reading over jansson. Messages name the place: "config.json: hidden_size: expected ...". */
#ifndef MF_COMMON_JSON_H
#define MF_COMMON_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum {
    MF_JSON_DEPTH = 64,            /* deeper nesting is refused before jansson sees it */
    MF_JSON_FILE_BYTES = 64 << 20, /* what mf_json_read_file reads at most unless told less */
};

/* Parses one JSON value of any type: valid UTF-8, no NUL, no duplicate keys, depth <= MF_JSON_DEPTH, nothing
 * after it. `where` names the source in messages (a file, "the request"). *value is a new reference
 * (json_decref). MF_ERROR_INVALID_JSON with line and column. */
enum mf_status mf_json_parse(const char *text, size_t length, const char *where, json_t **value,
                             struct mf_error *error);
/* The same from a file of at most `limit_bytes` (0: MF_JSON_FILE_BYTES). MF_ERROR_IO when it cannot be read.
 */
enum mf_status mf_json_read_file(const char *path, size_t limit_bytes, json_t **value,
                                 struct mf_error *error);

/* Reading members of an object. `object` must be an object, else MF_ERROR_INVALID_FIELD; `where` prefixes
 * messages. A missing or null member: MF_ERROR_MISSING_FIELD from the plain form, and from the optional_ form
 * MF_OK with *value untouched (set your default before). A wrong type or range: MF_ERROR_INVALID_FIELD with
 * the value found and the range allowed. Strings and containers are borrowed from `object`. */
enum mf_status mf_json_string(const json_t *object, const char *where, const char *key, size_t limit_bytes,
                              const char **value, struct mf_error *error);
enum mf_status mf_json_optional_string(const json_t *object, const char *where, const char *key,
                                       size_t limit_bytes, const char **value, struct mf_error *error);
/* 3.0 counts as the integer 3. */
enum mf_status mf_json_integer(const json_t *object, const char *where, const char *key, int64_t minimum,
                               int64_t maximum, int64_t *value, struct mf_error *error);
enum mf_status mf_json_optional_integer(const json_t *object, const char *where, const char *key,
                                        int64_t minimum, int64_t maximum, int64_t *value,
                                        struct mf_error *error);
/* An integer counts as a number. */
enum mf_status mf_json_number(const json_t *object, const char *where, const char *key, double minimum,
                              double maximum, double *value, struct mf_error *error);
enum mf_status mf_json_optional_number(const json_t *object, const char *where, const char *key,
                                       double minimum, double maximum, double *value, struct mf_error *error);
enum mf_status mf_json_boolean(const json_t *object, const char *where, const char *key, bool *value,
                               struct mf_error *error);
enum mf_status mf_json_optional_boolean(const json_t *object, const char *where, const char *key, bool *value,
                                        struct mf_error *error);
enum mf_status mf_json_object(const json_t *object, const char *where, const char *key, json_t **value,
                              struct mf_error *error);
enum mf_status mf_json_optional_object(const json_t *object, const char *where, const char *key,
                                       json_t **value, struct mf_error *error);
enum mf_status mf_json_array(const json_t *object, const char *where, const char *key, size_t limit_items,
                             json_t **value, struct mf_error *error);
enum mf_status mf_json_optional_array(const json_t *object, const char *where, const char *key,
                                      size_t limit_items, json_t **value, struct mf_error *error);

/* "an object", "an array", "a string", "an integer", "a number", "a boolean", "null". */
const char *mf_json_type_name(const json_t *value);
/* A short printable rendering of any value for messages, cut to fit; returns `text`. */
char *mf_json_excerpt(const json_t *value, char *text, size_t bytes);

/* One line, keys sorted, no spaces, numbers that read back as the same double: equal values give equal bytes.
 * *text is freed by the caller. */
enum mf_status mf_json_canonical(const json_t *value, char **text, struct mf_error *error);
/* The shortest decimal that reads back as the same double ("0.0002", "1e-8", "3"); returns `text`. */
enum { MF_NUMBER_TEXT_BYTES = 32 };
char *mf_number_format(double value, char text[MF_NUMBER_TEXT_BYTES]);

/* In every string below `value`: characters that a terminal would obey become '?'; line breaks and tabs stay.
 * For what others say and people read. A string that memory is short for becomes empty. */
void mf_json_clean_text(json_t *value);

#endif
