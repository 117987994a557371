/* Where finished artifacts and checkpoints live: `storage.url`. An object is there, durably, before any row
 * names it.
 *
 * This version keeps objects in a folder (file:///path, which may be a shared mount); any other scheme is
 * refused by name. An object is a file, or a folder of regular files; it is stored under a key and never
 * changed. */
#ifndef MF_WORKER_STORAGE_H
#define MF_WORKER_STORAGE_H

#include "common/digest.h"
#include "common/error.h"

#include <stdint.h>

struct mf_storage;

enum { MF_STORAGE_MAX_FILES = 10000, MF_STORAGE_MAX_DEPTH = 8 };

/* MF_ERROR_CONFIGURATION for a URL that is not file:///..., MF_ERROR_IO when the folder cannot be made. */
enum mf_status mf_storage_open(const char *url, struct mf_storage **storage, struct mf_error *error);
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
 * the bytes on the way, syncs them and their folders, and moves the whole into place. Any thread.
 * MF_ERROR_PROVIDER_PROTOCOL when `path` is missing, leaves `folder`, is or holds something that is not a
 * regular file or folder, is too deep or holds too many files, or when the key is taken. MF_ERROR_IO,
 * MF_ERROR_DISK_FULL when the storage fails: nothing is left under the key and the call may be repeated. */
enum mf_status mf_storage_publish(struct mf_storage *storage, const char *folder, const char *path,
                                  const char *key, struct mf_stored_artifact *object, struct mf_error *error);

/* The path on this machine of an object of this storage, to be read only; freed by the caller. *path is NULL,
 * and the status MF_OK, when the object is no longer there or the URI is of another storage. MF_ERROR_IO when
 * the storage itself is away or does not say: the object may still be there. */
enum mf_status mf_storage_locate(const struct mf_storage *storage, const char *uri, char **path,
                                 struct mf_error *error);

#endif
