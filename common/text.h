/* A growing byte buffer that is always NUL-terminated. */
#ifndef MF_COMMON_TEXT_H
#define MF_COMMON_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

/* Zero-initialise: struct mf_text text = {0}. `data` is NULL until something was appended, then holds
 * `length` bytes and a NUL. When memory runs out `failed` stays true, what was appended so far stays, and
 * every later append is dropped; check once at the end with mf_text_status. Freed with mf_text_free. One
 * thread at a time. */
struct mf_text {
    char *data;
    size_t length, capacity;
    bool failed;
};

void mf_text_append(struct mf_text *text, const void *bytes, size_t length);
void mf_text_puts(struct mf_text *text, const char *string);
void mf_text_printf(struct mf_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Makes it empty and keeps its memory. */
void mf_text_clear(struct mf_text *text);
void mf_text_free(struct mf_text *text);
/* MF_OK, or MF_ERROR_OUT_OF_MEMORY when an append failed. */
enum mf_status mf_text_status(const struct mf_text *text, struct mf_error *error);
/* The text as a string for reading: "" while nothing was appended. */
const char *mf_text_string(const struct mf_text *text);
/* Gives the bytes to the caller (free() them; never NULL unless it failed) and leaves *text empty. */
char *mf_text_take(struct mf_text *text);

/* Bytes of the UTF-8 character that begins at `s`, a NUL-terminated string; 0 when none does (overlong forms,
 * surrogates, characters above U+10FFFF, cut ones). 1 for the NUL. */
size_t mf_utf8_length(const unsigned char *s);
/* Whether `length` bytes are UTF-8 without NUL. They need no NUL after them. */
bool mf_utf8_valid(const void *bytes, size_t length);
/* The bytes before the first one that makes mf_utf8_valid() false; `length` where there is none. */
size_t mf_utf8_valid_bytes(const void *bytes, size_t length);

#endif
