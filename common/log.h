/* JSON-lines logging: one object a line on standard error, secrets redacted.
 *
 *     mf_log_info("claimed a job", MF_LOG_TEXT("job_id", id), MF_LOG_INTEGER("epoch", epoch));
 *     {"time":"2026-11-25T02:50:00.000Z","level":"info","message":"claimed a job","job_id":"...","epoch":3}
 *
 * Any thread; a line is written with one write(2). Text values and messages pass through mf_redact; text that
 * is not UTF-8 is shown with U+FFFD. A line is cut at MF_LOG_LINE_BYTES (and stays valid JSON). */
#ifndef MF_COMMON_LOG_H
#define MF_COMMON_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/redact.h"

enum mf_log_level { MF_LOG_DEBUG, MF_LOG_INFO, MF_LOG_WARNING, MF_LOG_ERROR };

enum { MF_LOG_LINE_BYTES = 16384 };

struct mf_log_field {
    const char *key; /* NULL ends the list */
    enum { MF_LOG_KIND_TEXT, MF_LOG_KIND_INTEGER, MF_LOG_KIND_NUMBER, MF_LOG_KIND_BOOLEAN } kind;
    union {
        const char *text; /* NULL is written as null */
        int64_t integer;
        double number; /* not finite is written as null */
        bool boolean;
    } value;
};

#define MF_LOG_TEXT(name, data)    ((struct mf_log_field){(name), MF_LOG_KIND_TEXT, {.text = (data)}})
#define MF_LOG_INTEGER(name, data) ((struct mf_log_field){(name), MF_LOG_KIND_INTEGER, {.integer = (data)}})
#define MF_LOG_NUMBER(name, data)  ((struct mf_log_field){(name), MF_LOG_KIND_NUMBER, {.number = (data)}})
#define MF_LOG_BOOLEAN(name, data) ((struct mf_log_field){(name), MF_LOG_KIND_BOOLEAN, {.boolean = (data)}})
/* Two fields of a struct mf_error pointer: "code" and "error". */
#define MF_LOG_FAILURE(pointer) \
    MF_LOG_TEXT("code", mf_status_code((pointer)->status)), MF_LOG_TEXT("error", (pointer)->message)

#define mf_log(level, message, ...)  \
    mf_log_write((level), (message), \
                 (const struct mf_log_field[]){__VA_ARGS__ __VA_OPT__(, ){NULL, MF_LOG_KIND_TEXT, {NULL}}})
#define mf_log_debug(...)   mf_log(MF_LOG_DEBUG, __VA_ARGS__)
#define mf_log_info(...)    mf_log(MF_LOG_INFO, __VA_ARGS__)
#define mf_log_warning(...) mf_log(MF_LOG_WARNING, __VA_ARGS__)
#define mf_log_error(...)   mf_log(MF_LOG_ERROR, __VA_ARGS__)

void mf_log_write(enum mf_log_level level, const char *message, const struct mf_log_field *fields);

/* Lines below `level` are dropped; MF_LOG_INFO at the start. */
void mf_log_set_level(enum mf_log_level level);
/* "debug", "info", "warning", "error"; false for any other name. */
bool mf_log_level_parse(const char *name, enum mf_log_level *level);
const char *mf_log_level_name(enum mf_log_level level);
/* Where lines go instead of standard error; the caller keeps the descriptor open. */
void mf_log_set_descriptor(int descriptor);

#endif
