#include "common/text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for `more` bytes and a NUL; false (and failed) when there is none. */
static bool reserve(struct mf_text *text, size_t more) {
    if (text->failed)
        return false;
    if (more < text->capacity - text->length)
        return true;
    size_t capacity = text->capacity ? text->capacity : 64;
    if (more > SIZE_MAX / 4 - text->length) {
        text->failed = true;
        return false;
    }
    while (capacity - text->length <= more)
        capacity *= 2;
    char *data = realloc(text->data, capacity);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void mf_text_append(struct mf_text *text, const void *bytes, size_t length) {
    if (!reserve(text, length))
        return;
    if (length)
        memcpy(text->data + text->length, bytes, length);
    text->length += length;
    text->data[text->length] = 0;
}

void mf_text_puts(struct mf_text *text, const char *string) {
    mf_text_append(text, string, strlen(string));
}

void mf_text_printf(struct mf_text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0)
        text->failed = true;
    else if (reserve(text, (size_t)length)) {
        va_start(arguments, format);
        vsnprintf(text->data + text->length, (size_t)length + 1, format, arguments);
        va_end(arguments);
        text->length += (size_t)length;
    }
}

void mf_text_clear(struct mf_text *text) {
    text->length = 0;
    text->failed = false;
    if (text->data)
        text->data[0] = 0;
}

void mf_text_free(struct mf_text *text) {
    free(text->data);
    *text = (struct mf_text){0};
}

enum mf_status mf_text_status(const struct mf_text *text, struct mf_error *error) {
    return text->failed ? mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a text of %zu bytes",
                                       text->length)
                        : MF_OK;
}

const char *mf_text_string(const struct mf_text *text) {
    return text->data ? text->data : "";
}

char *mf_text_take(struct mf_text *text) {
    mf_text_append(text, "", 0);
    char *data = text->data;
    *text = (struct mf_text){0};
    return data;
}
