/* Digests, identifiers and random numbers, over libcrypto and the kernel. All functions: any thread. */
#ifndef MF_COMMON_DIGEST_H
#define MF_COMMON_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MF_SHA1_BYTES = 20, MF_SHA256_BYTES = 32, MF_SHA256_TEXT_BYTES = 65, MF_UUID_TEXT_BYTES = 37 };

enum mf_digest_kind { MF_DIGEST_SHA1, MF_DIGEST_SHA256 };

/* A digest in the making. begin allocates; finish writes MF_SHA1_BYTES or MF_SHA256_BYTES bytes and frees,
 * with or without success; cancel (NULL is fine) frees without a result. They fail only when memory runs out.
 */
struct mf_digest;
enum mf_status mf_digest_begin(enum mf_digest_kind kind, struct mf_digest **digest, struct mf_error *error);
enum mf_status mf_digest_update(struct mf_digest *digest, const void *bytes, size_t length,
                                struct mf_error *error);
enum mf_status mf_digest_finish(struct mf_digest *digest, uint8_t *result, struct mf_error *error);
void mf_digest_cancel(struct mf_digest *digest);

/* The whole at once. */
enum mf_status mf_sha1(const void *bytes, size_t length, uint8_t result[MF_SHA1_BYTES],
                       struct mf_error *error);
enum mf_status mf_sha256(const void *bytes, size_t length, uint8_t result[MF_SHA256_BYTES],
                         struct mf_error *error);
/* The same as 64 lower-case hexadecimal digits. */
enum mf_status mf_sha256_text(const void *bytes, size_t length, char text[MF_SHA256_TEXT_BYTES],
                              struct mf_error *error);

/* Lower-case hexadecimal digits: writes 2 * length characters and a NUL; returns `text`. */
char *mf_hex(const void *bytes, size_t length, char *text);

struct mf_uuid {
    uint8_t bytes[16];
};

/* Version 4, from the kernel's random numbers. */
struct mf_uuid mf_uuid_random(void);
/* Version 5 (RFC 4122): SHA-1 of the namespace and the name. */
enum mf_status mf_uuid_v5(struct mf_uuid name_space, const void *name, size_t length, struct mf_uuid *result,
                          struct mf_error *error);
/* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", lower case; returns `text`. */
char *mf_uuid_format(struct mf_uuid uuid, char text[MF_UUID_TEXT_BYTES]);
/* Accepts exactly that form, upper or lower case. */
bool mf_uuid_parse(const char *text, struct mf_uuid *uuid);

/* From the kernel; for identifiers and jitter. Aborts when the kernel has none to give (it always has). */
uint64_t mf_random_u64(void);

#ifdef __cplusplus
}
#endif

#endif
