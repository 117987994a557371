#include "common/log.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/redact.h"
#include "common/text.h"

static atomic_int minimum_level = MF_LOG_INFO;
static atomic_int log_descriptor = STDERR_FILENO;

static const char *const level_names[] = {"debug", "info", "warning", "error"};

void mf_log_set_level(enum mf_log_level level) {
    atomic_store(&minimum_level, level);
}

void mf_log_set_descriptor(int descriptor) {
    atomic_store(&log_descriptor, descriptor);
}

bool mf_log_level_parse(const char *name, enum mf_log_level *level) {
    for (int i = MF_LOG_DEBUG; i <= MF_LOG_ERROR; i++)
        if (!strcasecmp(name, level_names[i])) {
            *level = (enum mf_log_level)i;
            return true;
        }
    return false;
}

const char *mf_log_level_name(enum mf_log_level level) {
    return level_names[level];
}

/* A line in the making: `bytes` bytes of `text`, of which the last CLOSING are kept for the end of the line.
 */
enum { CLOSING = 4 };
struct line {
    char text[MF_LOG_LINE_BYTES];
    size_t length;
};

static size_t room(const struct line *line) {
    return sizeof line->text - CLOSING - line->length;
}

/* All of `bytes` or nothing. */
static bool put(struct line *line, const char *bytes, size_t length) {
    if (length > room(line))
        return false;
    memcpy(line->text + line->length, bytes, length);
    line->length += length;
    return true;
}

/* A JSON string; what does not fit is cut off between characters. The caller saw that two bytes fit. */
static void put_quoted(struct line *line, const char *string) {
    put(line, "\"", 1);
    for (const unsigned char *s = (const unsigned char *)string; *s;) {
        char escaped[8];
        size_t length = mf_utf8_length(s), written;
        if (!length) {
            written = (size_t)snprintf(escaped, sizeof escaped, "\xEF\xBF\xBD");
            length = 1;
        } else if (*s == '"' || *s == '\\') {
            written = (size_t)snprintf(escaped, sizeof escaped, "\\%c", *s);
        } else if (*s < 0x20 || *s == 0x7F) {
            written = (size_t)snprintf(escaped, sizeof escaped, "\\u%04x", *s);
        } else {
            memcpy(escaped, s, length);
            written = length;
        }
        if (!put(line, escaped, written))
            break;
        s += length;
    }
    line->text[line->length++] = '"';
}

static void put_text(struct line *line, const char *text) {
    char redacted[MF_LOG_LINE_BYTES];
    if (!text)
        put(line, "null", 4);
    else
        put_quoted(line, mf_redact(text, redacted, sizeof redacted));
}

/* ,"key": when it and a short value fit. */
static bool put_key(struct line *line, const char *key) {
    size_t before = line->length;
    if (before + 2 * strlen(key) + 48 > sizeof line->text)
        return false;
    if (before > 1)
        put(line, ",", 1);
    put_quoted(line, key);
    put(line, ":", 1);
    return true;
}

static void put_field(struct line *line, const struct mf_log_field *field) {
    char number[40];
    int length = 0;
    if (!put_key(line, field->key))
        return;
    switch (field->kind) {
    case MF_LOG_KIND_TEXT:
        put_text(line, field->value.text);
        return;
    case MF_LOG_KIND_INTEGER:
        length = snprintf(number, sizeof number, "%lld", (long long)field->value.integer);
        break;
    case MF_LOG_KIND_NUMBER:
        if (isfinite(field->value.number))
            length = snprintf(number, sizeof number, "%.9g", field->value.number);
        else
            length = snprintf(number, sizeof number, "null");
        break;
    case MF_LOG_KIND_BOOLEAN:
        length = snprintf(number, sizeof number, "%s", field->value.boolean ? "true" : "false");
        break;
    }
    put(line, number, (size_t)length);
}

void mf_log_write(enum mf_log_level level, const char *message, const struct mf_log_field *fields) {
    if ((int)level < atomic_load(&minimum_level))
        return;
    int saved_errno = errno;
    struct line line;
    char time[MF_TIME_TEXT_BYTES];
    line.length = 0;
    put(&line, "{", 1);
    put_field(&line, &MF_LOG_TEXT("time", mf_time_format(mf_clock_realtime_ms(), time)));
    put_field(&line, &MF_LOG_TEXT("level", level_names[level]));
    put_field(&line, &MF_LOG_TEXT("message", message));
    for (; fields->key; fields++)
        put_field(&line, fields);
    line.text[line.length++] = '}';
    line.text[line.length++] = '\n';
    for (size_t done = 0; done < line.length;) {
        ssize_t n = write(atomic_load(&log_descriptor), line.text + done, line.length - done);
        if (n < 0 && errno != EINTR)
            break; /* nobody can be told that the log cannot be written */
        if (n > 0)
            done += (size_t)n;
    }
    errno = saved_errno;
}
