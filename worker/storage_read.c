/* Reading, removing and listing what storage.c stored. */
#include "worker/storage.h"

#include "common/files.h"
#include "common/s3.h"
#include "common/text.h"
#include "worker/storage_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- fetching ---------------------------------------------------------------------------------------- */

static enum mf_status locate_in_folder(const struct mf_storage *storage, const char *uri, char **path,
                                       struct mf_error *error) {
    static const char scheme[] = "file://";
    if (strncmp(uri, scheme, strlen(scheme)) != 0)
        return MF_OK;
    const char *named = uri + strlen(scheme);
    if (access(storage->root, X_OK))
        return mf_error_errno(error, errno, "%s", storage->root);
    if (access(named, R_OK) && (errno == ENOENT || errno == ENOTDIR))
        return MF_OK;
    enum mf_status status = mf_path_resolve_beneath(storage->root, named, path, error);
    if (status)
        *path = NULL;
    return status == MF_ERROR_INVALID_FIELD ? MF_OK : status;
}

/* The key of a URI of this bucket, below its prefix; NULL for any other. */
static const char *own_key(const struct mf_storage *storage, const char *uri) {
    char bucket[MF_S3_BUCKET_BYTES];
    const char *key;
    const size_t length = strlen(storage->root);
    if (!mf_s3_uri_split(uri, bucket, &key) || strcmp(bucket, storage->bucket) != 0 ||
        strncmp(key, storage->root, length) != 0 || (length && key[length] != '/') || !key[length])
        return NULL;
    return key;
}

struct fetch {
    const struct mf_storage *storage;
    struct mf_s3 *s3;
    const char *key, *into;
    struct mf_text manifest;
    int64_t files;
};

/* No server may make us write anywhere else. */
static bool is_plain_path(const char *path) {
    if (!*path || *path == '/' || strlen(path) > 1024)
        return false;
    for (const char *part = path; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL)
        if (!strncmp(part, "../", 3) || !strcmp(part, "..") || *part == '/' || !*part)
            return false;
    return true;
}

static enum mf_status fetch_file(struct fetch *fetch, const char *key, const char *target, int64_t size,
                                 const char *relative, struct mf_error *error) {
    char sha256[MF_SHA256_TEXT_BYTES];
    bool found = false;
    int descriptor = open(target, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (descriptor < 0)
        return mf_error_errno(error, errno, "%s", target);
    enum mf_status status =
        mf_s3_get(fetch->s3, fetch->storage->bucket, key, descriptor, size, &found, error);
    if (!status && !found)
        status =
            mf_error_set(error, MF_ERROR_IO, "s3: s3://%s/%.512s went away", fetch->storage->bucket, key);
    close(descriptor);
    if (!status)
        status = mf_file_sha256(target, sha256, NULL, error);
    if (!status)
        mf_text_printf(&fetch->manifest, "%s  %s\n", sha256, relative);
    fetch->files++;
    return status;
}

static enum mf_status fetch_listed(void *context, const char *key, int64_t size, struct mf_error *error) {
    struct fetch *fetch = context;
    const char *relative = key + strlen(fetch->key) + 1;
    if (fetch->files >= MF_STORAGE_MAX_FILES || !is_plain_path(relative))
        return mf_error_set(error, MF_ERROR_BAD_CHECKPOINT, "s3://%s/%.512s is not of a stored folder",
                            fetch->storage->bucket, key);
    char *target = mf_path_join(fetch->into, relative), *parent = target ? strdup(target) : NULL;
    if (!target || !parent) {
        free(target);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to fetch an object");
    }
    *strrchr(parent, '/') = 0;
    enum mf_status status = mf_directory_create(parent, 0700, error);
    if (!status)
        status = fetch_file(fetch, key, target, size, relative, error);
    free(parent);
    free(target);
    return status;
}

/* A folder has objects below its key, a file is one. */
static enum mf_status fetch_all(struct fetch *fetch, char sha256[MF_SHA256_TEXT_BYTES],
                                struct mf_error *error) {
    struct mf_text prefix = {0};
    struct mf_s3_object object;
    bool found = false;
    mf_text_printf(&prefix, "%s/", fetch->key);
    enum mf_status status = mf_text_status(&prefix, error);
    if (!status)
        status = mf_s3_list(fetch->s3, fetch->storage->bucket, mf_text_string(&prefix), fetch_listed, fetch,
                            error);
    mf_text_free(&prefix);
    if (status || fetch->files)
        return status ? status : mf_storage_digest(&fetch->manifest, fetch->files, sha256, error);
    status = mf_s3_head(fetch->s3, fetch->storage->bucket, fetch->key, &found, &object, error);
    if (status || !found)
        return status;
    status = fetch_file(fetch, fetch->key, fetch->into, object.size_bytes, "", error);
    return status ? status : mf_file_sha256(fetch->into, sha256, NULL, error);
}

static enum mf_status fetch_from_bucket(const struct mf_storage *storage, const char *uri, const char *wanted,
                                        const char *into, const atomic_bool *stop, char **path,
                                        struct mf_error *error) {
    struct fetch fetch = {.storage = storage, .key = own_key(storage, uri), .into = into};
    char sha256[MF_SHA256_TEXT_BYTES];
    if (!fetch.key)
        return MF_OK;
    enum mf_status status = mf_storage_session(storage, stop, &fetch.s3, error);
    if (!status)
        status = fetch_all(&fetch, sha256, error);
    if (!status && fetch.files && strcmp(sha256, wanted) != 0)
        status = mf_error_set(error, MF_ERROR_BAD_CHECKPOINT,
                              "%s is damaged: its sha256 is %s, the one that was recorded is %s", uri, sha256,
                              wanted);
    if (!status && fetch.files && !(*path = strdup(into)))
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to fetch an object");
    mf_text_free(&fetch.manifest);
    mf_s3_close(fetch.s3);
    return status;
}

enum mf_status mf_storage_fetch(const struct mf_storage *storage, const char *uri, const char *sha256,
                                const char *into, const atomic_bool *stop, char **path,
                                struct mf_error *error) {
    *path = NULL;
    return *storage->bucket ? fetch_from_bucket(storage, uri, sha256, into, stop, path, error)
                            : locate_in_folder(storage, uri, path, error);
}

/* ---- removing ---------------------------------------------------------------------------------------- */

struct removal {
    const struct mf_storage *storage;
    struct mf_s3 *s3;
};

static enum mf_status remove_listed(void *context, const char *key, int64_t size, struct mf_error *error) {
    struct removal *removal = context;
    (void)size;
    return mf_s3_delete(removal->s3, removal->storage->bucket, key, error);
}

static enum mf_status remove_from_bucket(const struct mf_storage *storage, const char *uri,
                                         struct mf_error *error) {
    struct removal removal = {.storage = storage};
    const char *key = own_key(storage, uri);
    struct mf_text prefix = {0};
    if (!key)
        return MF_OK;
    enum mf_status status = mf_storage_session(storage, NULL, &removal.s3, error);
    mf_text_printf(&prefix, "%s/", key);
    if (!status)
        status = mf_text_status(&prefix, error);
    if (!status)
        status =
            mf_s3_list(removal.s3, storage->bucket, mf_text_string(&prefix), remove_listed, &removal, error);
    if (!status)
        status = mf_s3_delete(removal.s3, storage->bucket, key, error);
    mf_text_free(&prefix);
    mf_s3_close(removal.s3);
    return status;
}

enum mf_status mf_storage_remove(struct mf_storage *storage, const char *uri, struct mf_error *error) {
    char *path = NULL;
    if (*storage->bucket)
        return remove_from_bucket(storage, uri, error);
    enum mf_status status = locate_in_folder(storage, uri, &path, error);
    if (!status && path && strcmp(path, storage->root) != 0)
        status = mf_tree_remove(path, error);
    for (int i = 0; !status && path && i < 2; i++) { /* "checkpoints" and the attempt's folder, when empty */
        *strrchr(path, '/') = 0;
        if (strlen(path) <= strlen(storage->root) || rmdir(path))
            break;
    }
    free(path);
    return status;
}

/* ---- listing ----------------------------------------------------------------------------------------- */

struct listing {
    struct mf_storage *storage;
    mf_storage_visit *visit;
    void *context;
    char *object; /* the key of the object whose files are being counted; NULL: none yet */
    char attempt_id[MF_UUID_TEXT_BYTES];
    int64_t size_bytes;
};

/* TENANT/JOB/ATTEMPT/NAME[/...] or TENANT/JOB/ATTEMPT/checkpoints/NAME[/...]: how long the object's key is, 0
 * when it has another form. */
static size_t object_length(const char *key, char attempt_id[MF_UUID_TEXT_BYTES]) {
    struct mf_uuid uuid;
    const char *part[5] = {key};
    size_t count = 1;
    for (const char *slash = strchr(key, '/'); slash && count < 5; slash = strchr(slash + 1, '/'))
        part[count++] = slash + 1;
    if (count < 4 || part[3] - part[2] != MF_UUID_TEXT_BYTES)
        return 0;
    snprintf(attempt_id, MF_UUID_TEXT_BYTES, "%.*s", MF_UUID_TEXT_BYTES - 1, part[2]);
    const bool below = !strncmp(part[3], "checkpoints/", 12);
    if (!mf_uuid_parse(attempt_id, &uuid) || (below && count < 5) || !strcmp(part[3], "checkpoints"))
        return 0;
    const char *name = below ? part[4] : part[3];
    const size_t length = strcspn(name, "/");
    return length ? (size_t)(name - key) + length : 0;
}

static enum mf_status tell(struct listing *listing, struct mf_error *error) {
    if (!listing->object)
        return MF_OK;
    char *target = *listing->storage->root ? mf_path_join(listing->storage->root, listing->object)
                                           : strdup(listing->object);
    char *uri = target ? mf_storage_uri(listing->storage, target) : NULL;
    const struct mf_storage_entry entry = {listing->attempt_id, uri, listing->size_bytes};
    enum mf_status status =
        uri ? listing->visit(listing->context, &entry, error)
            : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to list the storage");
    free(uri);
    free(target);
    free(listing->object);
    listing->object = NULL;
    listing->size_bytes = 0;
    return status;
}

/* Takes one file, in order of keys; `key` is below the root. */
static enum mf_status take_file(struct listing *listing, const char *key, int64_t size,
                                struct mf_error *error) {
    char attempt_id[MF_UUID_TEXT_BYTES];
    const size_t length = object_length(key, attempt_id);
    enum mf_status status = MF_OK;
    if (!length)
        return MF_OK;
    const char *own = listing->object;
    if (!own || strlen(own) != length || strncmp(own, key, length) != 0) {
        status = tell(listing, error);
        memcpy(listing->attempt_id, attempt_id, sizeof attempt_id);
        if (!status && !(listing->object = strndup(key, length)))
            status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to list the storage");
    }
    listing->size_bytes += size;
    return status;
}

static enum mf_status take_listed(void *context, const char *key, int64_t size, struct mf_error *error) {
    struct listing *listing = context;
    const size_t length = strlen(listing->storage->root);
    return take_file(listing, key + length + (length != 0), size, error);
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_hidden(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static enum mf_status list_folder(struct listing *listing, const char *key, int depth,
                                  struct mf_error *error);

/* `key` lies at `where`. */
static enum mf_status list_entry(struct listing *listing, const char *key, const char *where, int depth,
                                 struct mf_error *error) {
    char attempt_id[MF_UUID_TEXT_BYTES];
    uint64_t size = 0;
    struct mf_error gone;
    if (object_length(key, attempt_id) != strlen(key))
        return depth > 1 ? list_folder(listing, key, depth - 1, error) : MF_OK;
    return mf_tree_size(where, &size, &gone) ? MF_OK : take_file(listing, key, (int64_t)size, error);
}

/* Folders of the storage down to `depth`, then their objects. What goes away meanwhile is not there. */
static enum mf_status list_folder(struct listing *listing, const char *key, int depth,
                                  struct mf_error *error) {
    struct dirent **entries = NULL;
    char *path = mf_path_join(listing->storage->root, key);
    int count = path ? scandir(path, &entries, not_hidden, by_name) : -1;
    enum mf_status status = MF_OK;
    if (count < 0 && errno != ENOENT && errno != ENOTDIR)
        status = mf_error_errno(error, errno, "%s", path ? path : key);
    for (int i = 0; i < count; i++) {
        char *child = *key ? mf_path_join(key, entries[i]->d_name) : strdup(entries[i]->d_name);
        char *where = child ? mf_path_join(listing->storage->root, child) : NULL;
        if (!status && (!child || !where))
            status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to list the storage");
        else if (!status)
            status = list_entry(listing, child, where, depth, error);
        free(where);
        free(child);
        free(entries[i]);
    }
    free(entries);
    free(path);
    return status;
}

enum mf_status mf_storage_each(struct mf_storage *storage, mf_storage_visit *visit, void *context,
                               struct mf_error *error) {
    enum { FOLDERS = 5 };
    struct listing listing = {.storage = storage, .visit = visit, .context = context};
    struct mf_text prefix = {0};
    struct mf_s3 *s3 = NULL;
    enum mf_status status;
    if (*storage->bucket) {
        mf_text_printf(&prefix, *storage->root ? "%s/" : "%s", storage->root);
        if (!(status = mf_text_status(&prefix, error)) &&
            !(status = mf_storage_session(storage, NULL, &s3, error)))
            status = mf_s3_list(s3, storage->bucket, mf_text_string(&prefix), take_listed, &listing, error);
        mf_s3_close(s3);
        mf_text_free(&prefix);
    } else {
        status = list_folder(&listing, "", FOLDERS, error);
    }
    if (!status)
        status = tell(&listing, error);
    free(listing.object);
    return status;
}
