/* Parameters, batch arrays and typed reading of results. */
#include "sql/database.h"

#include <libpq-fe.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/digest.h"

/* Years 1 to 9999: what both sides can write. */
#define FIRST_TIME INT64_C(-62135596800000)
#define LAST_TIME  INT64_C(253402300799999)

struct mf_parameter mf_parameter_null(void) {
    return (struct mf_parameter){.kind = MF_PARAMETER_NULL};
}

struct mf_parameter mf_parameter_text(const char *text) {
    return (struct mf_parameter){.data = text, .kind = text ? MF_PARAMETER_DATA : MF_PARAMETER_NULL};
}

struct mf_parameter mf_parameter_integer(int64_t value) {
    struct mf_parameter parameter = {.kind = MF_PARAMETER_NUMBER};
    snprintf(parameter.number, sizeof parameter.number, "%lld", (long long)value);
    return parameter;
}

/* PostgreSQL reads back exactly what %.17g wrote, and knows NaN and Infinity by these names. */
static void number_text(double value, char *text, size_t bytes) {
    if (isnan(value))
        snprintf(text, bytes, "NaN");
    else if (isinf(value))
        snprintf(text, bytes, "%sInfinity", value < 0 ? "-" : "");
    else
        snprintf(text, bytes, "%.17g", value);
}

struct mf_parameter mf_parameter_number(double value) {
    struct mf_parameter parameter = {.kind = MF_PARAMETER_NUMBER};
    number_text(value, parameter.number, sizeof parameter.number);
    return parameter;
}

struct mf_parameter mf_parameter_boolean(bool value) {
    struct mf_parameter parameter = {.kind = MF_PARAMETER_NUMBER};
    snprintf(parameter.number, sizeof parameter.number, "%c", value ? 't' : 'f');
    return parameter;
}

struct mf_parameter mf_parameter_bytes(const void *bytes, size_t size) {
    if (size > INT_MAX)
        return (struct mf_parameter){.kind = MF_PARAMETER_NO_MEMORY};
    return (struct mf_parameter){.data = bytes,
                                 .size = (int)size,
                                 .binary = true,
                                 .kind = bytes ? MF_PARAMETER_DATA : MF_PARAMETER_NULL};
}

bool mf_time_storable(int64_t milliseconds) {
    return milliseconds >= FIRST_TIME && milliseconds <= LAST_TIME;
}

struct mf_parameter mf_parameter_time(int64_t milliseconds) {
    struct mf_parameter parameter = {.kind = MF_PARAMETER_NULL};
    if (mf_time_storable(milliseconds)) {
        mf_time_format(milliseconds, parameter.number);
        parameter.kind = MF_PARAMETER_NUMBER;
    }
    return parameter;
}

/* ---- arrays ---- */

static struct mf_text *next_element(struct mf_array *array) {
    mf_text_puts(&array->text, array->text.length ? "," : "{");
    return &array->text;
}

void mf_array_null(struct mf_array *array) {
    mf_text_puts(next_element(array), "NULL");
}

void mf_array_text(struct mf_array *array, const char *text) {
    if (!text) {
        mf_array_null(array);
        return;
    }
    struct mf_text *out = next_element(array);
    mf_text_puts(out, "\"");
    while (*text) {
        size_t plain = strcspn(text, "\"\\");
        mf_text_append(out, text, plain);
        text += plain;
        if (*text) {
            const char escaped[2] = {'\\', *text++};
            mf_text_append(out, escaped, sizeof escaped);
        }
    }
    mf_text_puts(out, "\"");
}

void mf_array_integer(struct mf_array *array, int64_t value) {
    mf_text_printf(next_element(array), "%lld", (long long)value);
}

void mf_array_number(struct mf_array *array, double value) {
    char text[40];
    number_text(value, text, sizeof text);
    mf_text_puts(next_element(array), text);
}

void mf_array_boolean(struct mf_array *array, bool value) {
    mf_text_puts(next_element(array), value ? "t" : "f");
}

void mf_array_time(struct mf_array *array, int64_t milliseconds) {
    struct mf_parameter time = mf_parameter_time(milliseconds);
    if (time.kind == MF_PARAMETER_NULL)
        mf_array_null(array);
    else
        mf_array_text(array, time.number);
}

void mf_array_bytes(struct mf_array *array, const void *bytes, size_t size) {
    if (!bytes) {
        mf_array_null(array);
        return;
    }
    struct mf_text *out = next_element(array);
    mf_text_puts(out, "\"\\\\x");
    const unsigned char *from = bytes;
    while (size) {
        char digits[2 * 256 + 1];
        size_t part = size < 256 ? size : 256;
        mf_hex(from, part, digits);
        mf_text_append(out, digits, 2 * part);
        from += part;
        size -= part;
    }
    mf_text_puts(out, "\"");
}

struct mf_parameter mf_array_parameter(struct mf_array *array) {
    if (!array->closed)
        mf_text_puts(&array->text, array->text.length ? "}" : "{}");
    array->closed = true;
    if (array->text.failed)
        return (struct mf_parameter){.kind = MF_PARAMETER_NO_MEMORY};
    return mf_parameter_text(array->text.data);
}

void mf_array_free(struct mf_array *array) {
    mf_text_free(&array->text);
    array->closed = false;
}

/* ---- results ---- */

void mf_result_free(struct pg_result *result) {
    PQclear(result);
}

int mf_result_rows(const struct pg_result *result) {
    return PQntuples(result);
}

bool mf_result_null(const struct pg_result *result, int row, int column) {
    return PQgetisnull(result, row, column) != 0;
}

const char *mf_result_text(const struct pg_result *result, int row, int column) {
    return PQgetvalue(result, row, column);
}

int64_t mf_result_integer(const struct pg_result *result, int row, int column) {
    return strtoll(PQgetvalue(result, row, column), NULL, 10);
}

double mf_result_number(const struct pg_result *result, int row, int column) {
    return mf_result_null(result, row, column) ? NAN : strtod(PQgetvalue(result, row, column), NULL);
}

bool mf_result_boolean(const struct pg_result *result, int row, int column) {
    return PQgetvalue(result, row, column)[0] == 't';
}

int64_t mf_result_time(const struct pg_result *result, int row, int column) {
    return mf_result_null(result, row, column) ? MF_TIME_NONE : mf_result_integer(result, row, column);
}

bool mf_result_bytes(const struct pg_result *result, int row, int column, unsigned char **bytes,
                     size_t *size) {
    *bytes = NULL;
    *size = 0;
    if (mf_result_null(result, row, column))
        return true;
    unsigned char *decoded = PQunescapeBytea((const unsigned char *)PQgetvalue(result, row, column), size);
    if (!decoded)
        return false;
    *bytes = malloc(*size + 1);
    if (*bytes)
        memcpy(*bytes, decoded, *size + 1);
    PQfreemem(decoded);
    return *bytes != NULL;
}

char *mf_result_copy(const struct pg_result *result, int row, int column) {
    return mf_result_null(result, row, column) ? NULL : strdup(PQgetvalue(result, row, column));
}
