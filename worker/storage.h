/* Where finished artifacts and checkpoints live: `storage.url`. An object is there, durably, before any row
 * names it.
 *
 *     file:///folder        a folder, which may be a shared mount
 *     s3://bucket/prefix    a bucket of S3 or of what speaks its protocol
 *
 * An object is a file, or a folder of regular files; it is stored under a key that holds its attempt's id and
 * never changed. */
#ifndef MF_WORKER_STORAGE_H
#define MF_WORKER_STORAGE_H

#include "common/digest.h"
#include "common/error.h"

#include <stdatomic.h>
#include <stdint.h>

struct mf_storage;

enum { MF_STORAGE_MAX_FILES = 10000, MF_STORAGE_MAX_DEPTH = 8 };

struct mf_storage_options {
    const char *url;
    const char *s3_endpoint, *s3_region, *s3_ca_file; /* NULL: what AWS' variables and files say */
};

/* MF_ERROR_CONFIGURATION for a URL of another kind or without credentials, MF_ERROR_IO when the folder cannot
 * be made. A bucket is not asked: it may be away when a worker starts. Any thread may use a storage. */
enum mf_status mf_storage_open(const struct mf_storage_options *options, struct mf_storage **storage,
                               struct mf_error *error);
void mf_storage_close(struct mf_storage *storage); /* NULL is allowed */

/* Of a file: the sha256 of its bytes. Of a folder: the sha256 of the text that
 * `find . -type f -printf '%P\n' | LC_ALL=C sort | xargs sha256sum` prints inside it: one line a file,
 * digest, two spaces, path. */
struct mf_stored_artifact {
    char *uri; /* freed by mf_stored_artifact_free() */
    char sha256[MF_SHA256_TEXT_BYTES];
    int64_t size_bytes, files;
};
void mf_stored_artifact_free(struct mf_stored_artifact *object);

/* Copies `path` (relative to `folder`, or absolute below it) to `key` ("tenant/job/attempt/adapter"), hashing
 * the bytes on the way. In a folder they are synced and the whole is moved into place; in a bucket each file
 * is read back by size and ETag, and a folder is whole when the call ends well. *stop (NULL: never) ends a
 * transfer. Any thread.
 * MF_ERROR_PROVIDER_PROTOCOL when `path` is missing, leaves `folder`, is or holds something that is not a
 * regular file or folder, is too deep or holds too many files, or when the key is taken (a folder only).
 * MF_ERROR_IO, MF_ERROR_DISK_FULL when the storage fails: the call may be repeated. */
enum mf_status mf_storage_publish(struct mf_storage *storage, const char *folder, const char *path,
                                  const char *key, const atomic_bool *stop, struct mf_stored_artifact *object,
                                  struct mf_error *error);

/* A path on this machine at which an object of this storage can be read; freed by the caller. In a folder
 * that is the object itself, never to be written; from a bucket it is fetched to `into`, which must not be
 * there yet, and must have the sha256 (of struct mf_stored_artifact), else MF_ERROR_BAD_CHECKPOINT. *path is
 * NULL, and the status MF_OK, when the object is no longer there or the URI is of another storage.
 * MF_ERROR_IO when the storage itself is away or does not say: the object may still be there. */
enum mf_status mf_storage_fetch(const struct mf_storage *storage, const char *uri, const char *sha256,
                                const char *into, const atomic_bool *stop, char **path,
                                struct mf_error *error);

/* Removes an object; one that is gone, or is of another storage, is fine. */
enum mf_status mf_storage_remove(struct mf_storage *storage, const char *uri, struct mf_error *error);

/* Calls visit for every object whose key has the form of mf_storage_publish()'s callers,
 * TENANT/JOB/ATTEMPT/NAME or TENANT/JOB/ATTEMPT/checkpoints/NAME, until it fails. Left-overs of copies that
 * were cut short are objects, too. */
struct mf_storage_entry {
    const char *attempt_id, *uri;
    int64_t size_bytes;
};
typedef enum mf_status mf_storage_visit(void *context, const struct mf_storage_entry *entry,
                                        struct mf_error *error);
enum mf_status mf_storage_each(struct mf_storage *storage, mf_storage_visit *visit, void *context,
                               struct mf_error *error);

#endif
