/* Errors: every function that can fail returns an enum mf_status and fills a caller-owned struct mf_error. */
#ifndef MF_COMMON_ERROR_H
#define MF_COMMON_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Codes of common/errors.def; MF_OK is 0. */
enum mf_status {
    MF_OK = 0,
#define MF_ERROR(name, code, class, retriable, meaning) MF_ERROR_##name,
#include "common/errors.def"
#undef MF_ERROR
    MF_STATUS_COUNT
};

enum mf_error_class {
    MF_CLASS_NONE,
    MF_CLASS_REQUEST,
    MF_CLASS_MODEL_ACCESS,
    MF_CLASS_DATASET,
    MF_CLASS_PROVIDER,
    MF_CLASS_RESOURCES,
    MF_CLASS_TRAINING,
    MF_CLASS_INFRASTRUCTURE
};

enum { MF_ERROR_TEXT_BYTES = 2048 };

/* Lives wherever the caller puts it; needs no initialisation before a call and no destruction after.
 * `message` is UTF-8, says what was wrong, where (file, line, field) and what to do, and holds no secret. */
struct mf_error {
    enum mf_status status;
    char message[MF_ERROR_TEXT_BYTES];
};

/* Fills *error (may be NULL) and returns `status`, so that a failure is one line:
 *     return mf_error_set(error, MF_ERROR_INVALID_FIELD, "learning_rate: %g is not in (0, 1]", value);
 * An over-long message is cut at a character boundary. */
enum mf_status mf_error_set(struct mf_error *error, enum mf_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message that *error already holds; returns its status. */
enum mf_status mf_error_prefix(struct mf_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* MF_ERROR_DISK_FULL for ENOSPC / EDQUOT / EFBIG, MF_ERROR_OUT_OF_MEMORY for ENOMEM, else MF_ERROR_IO; the
 * message is "what: strerror(errno_value)". */
enum mf_status mf_error_errno(struct mf_error *error, int errno_value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

const char *mf_status_code(enum mf_status status);    /* "unknown_provider"; "ok" for MF_OK */
const char *mf_status_meaning(enum mf_status status); /* the table's text */
enum mf_error_class mf_status_class(enum mf_status status);
bool mf_status_retriable(enum mf_status status);
/* The status whose code is `code`; MF_ERROR_INTERNAL when there is none (an external program's invention). */
enum mf_status mf_status_from_code(const char *code);

/* "RequestError", "ModelAccessError", "DatasetError", "ProviderError", "ResourceError", "TrainingError",
 * "InfrastructureError". */
const char *mf_error_class_name(enum mf_error_class class_);

/* What a person reads and what is stored: "ProviderError: Unknown provider 'xyz'. Valid providers: ...".
 * Writes at most `bytes` including the NUL; returns `text`. */
char *mf_error_format(const struct mf_error *error, char *text, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
