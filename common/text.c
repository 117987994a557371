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

/* The same within `left` bytes. */
static size_t character_length(const unsigned char *s, size_t left) {
    if (s[0] < 0x80)
        return 1;
    size_t length = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || length > left)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] >= 0xA0) || (s[0] == 0xF0 && s[1] < 0x90) ||
        (s[0] == 0xF4 && s[1] >= 0x90))
        return 0;
    return length;
}

size_t mf_utf8_length(const unsigned char *s) {
    /* the NUL at the end is no continuation byte, so the loop stops there */
    return character_length(s, 4);
}

size_t mf_utf8_valid_bytes(const void *bytes, size_t length) {
    const unsigned char *s = bytes;
    size_t done = 0;
    while (done < length) {
        size_t n = s[done] ? character_length(s + done, length - done) : 0;
        if (!n)
            break;
        done += n;
    }
    return done;
}

bool mf_utf8_valid(const void *bytes, size_t length) {
    return mf_utf8_valid_bytes(bytes, length) == length;
}
