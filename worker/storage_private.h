/* What storage.c and storage_read.c share. */
#ifndef MF_WORKER_STORAGE_PRIVATE_H
#define MF_WORKER_STORAGE_PRIVATE_H

#include "common/s3.h"
#include "common/text.h"
#include "worker/storage.h"

struct mf_storage {
    char *root;                        /* the folder; in a bucket the prefix, which may be "" */
    char bucket[MF_S3_BUCKET_BYTES];   /* "": a folder */
    char *endpoint, *region, *ca_file; /* of S3; NULL: not given */
};

/* A session for one operation; closed by the caller. */
enum mf_status mf_storage_session(const struct mf_storage *storage, const atomic_bool *stop,
                                  struct mf_s3 **s3, struct mf_error *error);

/* The URI of a path (a folder) or key (a bucket) with the root before it; freed by the caller. */
char *mf_storage_uri(const struct mf_storage *storage, const char *target);

/* The sha256 of `files` lines "digest  path" sorted by path; uses up the manifest's text. */
enum mf_status mf_storage_digest(struct mf_text *manifest, int64_t files, char sha256[MF_SHA256_TEXT_BYTES],
                                 struct mf_error *error);

#endif
