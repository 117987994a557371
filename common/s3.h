/* Objects of S3 and what speaks its protocol, over libcurl's AWS signature (version 4). */
#ifndef MF_COMMON_S3_H
#define MF_COMMON_S3_H

#include "common/digest.h"
#include "common/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Zero means the default in brackets. Strings are copied. */
struct mf_s3_options {
    const char
        *endpoint;       /* "https://storage.example:9000" [what mf_aws_credentials_load() says, else AWS'] */
    const char *region;  /* [the same, else us-east-1] */
    const char *ca_file; /* PEM [the system's] */
    bool virtual_hosts;  /* BUCKET.host instead of host/BUCKET [only with AWS' own endpoint] */
    int attempts;        /* of each call in all [6] */
    int64_t part_bytes; /* objects above it are sent in parts, at least 5 MiB [16 MiB, more where 10,000 parts
                           would not do] */
    const atomic_bool *stop;          /* ends a call in flight; may be NULL */
    bool (*cancelled)(void *context); /* the same as a question; may be NULL */
    void *cancelled_context;
};

/* A session: one thread at a time. Credentials are read when it opens (MF_ERROR_CONFIGURATION without any)
 * and once more when the server calls them expired or unknown. */
struct mf_s3;
enum mf_status mf_s3_open(const struct mf_s3_options *options, struct mf_s3 **s3, struct mf_error *error);
void mf_s3_close(struct mf_s3 *s3); /* NULL is allowed */

/* "s3://bucket/a/key" to its two parts, in `bucket` (64 bytes) and *key, which points into `uri` and may be
 * "". False for anything else. */
enum { MF_S3_BUCKET_BYTES = 64 };
bool mf_s3_uri_split(const char *uri, char bucket[MF_S3_BUCKET_BYTES], const char **key);

/* Statuses of the calls below: MF_ERROR_IO with the server's code and message (credentials that are refused
 * included: they may be renewed), MF_ERROR_DISK_FULL for a full server or disk. What may pass (connections,
 * 429, 5xx, SlowDown) was tried again with back-off before.
 *
 * Stores `size` bytes of an open file; `sha256` becomes that of the bytes that were sent. The server checks
 * each part against its sha256, which the signature covers; at the end size and ETag are read back. Nothing
 * is left behind a failed call but what the bucket's rule for incomplete uploads removes when the connection
 * is gone. */
enum mf_status mf_s3_put(struct mf_s3 *s3, const char *bucket, const char *key, int descriptor, int64_t size,
                         char sha256[MF_SHA256_TEXT_BYTES], struct mf_error *error);

/* Fetches into an open file, resuming after what it holds. *found false, and MF_OK, when there is no such
 * object. A longer object than limit_bytes is an error. */
enum mf_status mf_s3_get(struct mf_s3 *s3, const char *bucket, const char *key, int descriptor,
                         int64_t limit_bytes, bool *found, struct mf_error *error);

struct mf_s3_object {
    int64_t size_bytes;
    char etag[128];
};
enum mf_status mf_s3_head(struct mf_s3 *s3, const char *bucket, const char *key, bool *found,
                          struct mf_s3_object *object, struct mf_error *error);

/* Calls visit for each object whose key begins with `prefix`, in order of keys, until it fails. */
typedef enum mf_status mf_s3_visit(void *context, const char *key, int64_t size_bytes,
                                   struct mf_error *error);
enum mf_status mf_s3_list(struct mf_s3 *s3, const char *bucket, const char *prefix, mf_s3_visit *visit,
                          void *context, struct mf_error *error);

/* An object that is not there is fine. */
enum mf_status mf_s3_delete(struct mf_s3 *s3, const char *bucket, const char *key, struct mf_error *error);

#endif
