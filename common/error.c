#include "common/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *code, *meaning;
    enum mf_error_class class_;
    bool retriable;
} table[MF_STATUS_COUNT] = {
    [MF_OK] = {"ok", "no error", MF_CLASS_NONE, false},
#define MF_ERROR(name, code, class, retriable, meaning) \
    [MF_ERROR_##name] = {code, meaning, MF_CLASS_##class, retriable},
#include "common/errors.def"
#undef MF_ERROR
};

/* Cuts a UTF-8 text of `length` bytes so that it does not end inside a character. */
static void cut_at_character(char *text, size_t length) {
    size_t start = length;
    while (start > 0 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t want = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (want > 1 && length - (start - 1) < want)
        text[start - 1] = 0;
}

static void write_text(char *text, size_t bytes, const char *format, va_list arguments) {
    int n = vsnprintf(text, bytes, format, arguments);
    if (n < 0)
        text[0] = 0;
    else if ((size_t)n >= bytes)
        cut_at_character(text, bytes - 1);
}

enum mf_status mf_error_set(struct mf_error *error, enum mf_status status, const char *format, ...) {
    if (error) {
        char text[MF_ERROR_TEXT_BYTES]; /* an argument may be error->message itself */
        va_list arguments;
        va_start(arguments, format);
        write_text(text, sizeof text, format, arguments);
        va_end(arguments);
        error->status = status;
        memcpy(error->message, text, sizeof text);
    }
    return status;
}

enum mf_status mf_error_prefix(struct mf_error *error, const char *format, ...) {
    if (!error)
        return MF_ERROR_INTERNAL;
    char prefix[MF_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    write_text(prefix, sizeof prefix, format, arguments);
    va_end(arguments);
    return mf_error_set(error, error->status, "%s: %s", prefix, error->message);
}

enum mf_status mf_error_errno(struct mf_error *error, int errno_value, const char *format, ...) {
    char text[MF_ERROR_TEXT_BYTES], reason[128];
    va_list arguments;
    va_start(arguments, format);
    write_text(text, sizeof text, format, arguments);
    va_end(arguments);
    enum mf_status status = MF_ERROR_IO;
    if (errno_value == ENOSPC || errno_value == EDQUOT || errno_value == EFBIG) /* EFBIG: a limit on files */
        status = MF_ERROR_DISK_FULL;
    else if (errno_value == ENOMEM)
        status = MF_ERROR_OUT_OF_MEMORY;
    return mf_error_set(error, status, "%s: %s", text, strerror_r(errno_value, reason, sizeof reason));
}

const char *mf_status_code(enum mf_status status) {
    return (unsigned)status < MF_STATUS_COUNT ? table[status].code : "internal";
}

const char *mf_status_meaning(enum mf_status status) {
    return (unsigned)status < MF_STATUS_COUNT ? table[status].meaning : "";
}

enum mf_error_class mf_status_class(enum mf_status status) {
    return (unsigned)status < MF_STATUS_COUNT ? table[status].class_ : MF_CLASS_INFRASTRUCTURE;
}

bool mf_status_retriable(enum mf_status status) {
    return (unsigned)status < MF_STATUS_COUNT && table[status].retriable;
}

enum mf_status mf_status_from_code(const char *code) {
    for (int i = 0; i < MF_STATUS_COUNT; i++)
        if (!strcmp(table[i].code, code))
            return (enum mf_status)i;
    return MF_ERROR_INTERNAL;
}

const char *mf_error_class_name(enum mf_error_class class_) {
    static const char *const names[] = {"",
                                        "RequestError",
                                        "ModelAccessError",
                                        "DatasetError",
                                        "ProviderError",
                                        "ResourceError",
                                        "TrainingError",
                                        "InfrastructureError"};
    return (unsigned)class_ < sizeof names / sizeof *names ? names[class_] : "";
}

char *mf_error_format(const struct mf_error *error, char *text, size_t bytes) {
    int n =
        snprintf(text, bytes, "%s: %s", mf_error_class_name(mf_status_class(error->status)), error->message);
    if (n > 0 && (size_t)n >= bytes && bytes)
        cut_at_character(text, bytes - 1);
    return text;
}
