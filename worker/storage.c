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

enum { COPY_BYTES = 1 << 20 };

/* One publication under way. */
struct publication {
    const char *folder; /* what the trainer may name */
    const char *path;   /* as it named it, for messages */
    char *buffer;       /* COPY_BYTES; NULL for a bucket */
    struct mf_s3 *s3;   /* NULL: a folder; targets are paths there, keys of `bucket` here */
    const char *bucket;
    struct mf_text manifest;
    int64_t size_bytes, files;
};

static enum mf_status copy_text(char **to, const char *from, struct mf_error *error) {
    return !from || (*to = strdup(from))
               ? MF_OK
               : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the storage");
}

/* Also learns whether there are credentials. */
static enum mf_status open_bucket(struct mf_storage *storage, const struct mf_storage_options *options,
                                  struct mf_error *error) {
    const char *prefix;
    struct mf_s3 *s3 = NULL;
    if (!mf_s3_uri_split(options->url, storage->bucket, &prefix))
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "storage.url: '%s' is not s3://bucket/prefix",
                            options->url);
    enum mf_status status = copy_text(&storage->root, prefix, error);
    for (size_t length = status ? 0 : strlen(storage->root); length && storage->root[length - 1] == '/';)
        storage->root[--length] = 0;
    if (!status)
        status = copy_text(&storage->endpoint, options->s3_endpoint, error);
    if (!status)
        status = copy_text(&storage->region, options->s3_region, error);
    if (!status)
        status = copy_text(&storage->ca_file, options->s3_ca_file, error);
    if (!status)
        status = mf_storage_session(storage, NULL, &s3, error);
    mf_s3_close(s3);
    return status ? mf_error_prefix(error, "storage.url") : MF_OK;
}

enum mf_status mf_storage_session(const struct mf_storage *storage, const atomic_bool *stop,
                                  struct mf_s3 **s3, struct mf_error *error) {
    const struct mf_s3_options options = {
        .endpoint = storage->endpoint, .region = storage->region, .ca_file = storage->ca_file, .stop = stop};
    return mf_s3_open(&options, s3, error);
}

enum mf_status mf_storage_open(const struct mf_storage_options *options, struct mf_storage **storage,
                               struct mf_error *error) {
    static const char scheme[] = "file://";
    const char *folder = options->url + strlen(scheme);
    *storage = NULL;
    struct mf_storage *made = calloc(1, sizeof *made);
    enum mf_status status;
    if (!made)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the storage");
    if (!strncmp(options->url, "s3://", 5)) {
        status = open_bucket(made, options, error);
    } else if (!strncmp(options->url, scheme, strlen(scheme)) && *folder == '/') {
        status = copy_text(&made->root, folder, error);
        if (!status)
            status = mf_directory_create(folder, 0750, error);
    } else {
        status = mf_error_set(
            error, MF_ERROR_CONFIGURATION,
            "storage.url: '%s' is neither file:///folder nor s3://bucket/prefix, the kinds that there are",
            options->url);
    }
    if (status)
        mf_storage_close(made);
    else
        *storage = made;
    return status;
}

void mf_storage_close(struct mf_storage *storage) {
    if (!storage)
        return;
    free(storage->root);
    free(storage->endpoint);
    free(storage->region);
    free(storage->ca_file);
    free(storage);
}

void mf_stored_artifact_free(struct mf_stored_artifact *object) {
    free(object->uri);
    object->uri = NULL;
}

static enum mf_status refuse(const struct publication *publication, const char *reason,
                             struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL,
                        "the trainer named the artifact '%.512s', which %s", publication->path, reason);
}

static enum mf_status add_line(struct publication *publication, const char *sha256, const char *relative) {
    mf_text_printf(&publication->manifest, "%s  %s\n", sha256, relative);
    publication->files++;
    return MF_OK;
}

static enum mf_status send_file(struct publication *publication, int source, const char *target,
                                const char *relative, struct mf_error *error) {
    char sha256[MF_SHA256_TEXT_BYTES];
    struct stat about;
    if (fstat(source, &about))
        return mf_error_errno(error, errno, "%s", relative);
    enum mf_status status = mf_s3_put(publication->s3, publication->bucket, target, source,
                                      (int64_t)about.st_size, sha256, error);
    publication->size_bytes += about.st_size;
    return status ? status : add_line(publication, sha256, relative);
}

/* Copies one open regular file to `target` and appends its line to the manifest. */
static enum mf_status copy_file(struct publication *publication, int source, const char *target,
                                const char *relative, struct mf_error *error) {
    struct mf_digest *digest = NULL;
    unsigned char sha256[MF_SHA256_BYTES];
    char text[MF_SHA256_TEXT_BYTES];
    enum mf_status status = mf_digest_begin(MF_DIGEST_SHA256, &digest, error);
    int out = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (!status && out < 0)
        status = mf_error_errno(error, errno, "%s", target);
    while (!status) {
        ssize_t n = read(source, publication->buffer, COPY_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            status = mf_error_errno(error, errno, "%s", relative);
        if (n <= 0)
            break;
        status = mf_digest_update(digest, publication->buffer, (size_t)n, error);
        if (!status)
            status = mf_descriptor_write(out, publication->buffer, (size_t)n, target, error);
        publication->size_bytes += n;
    }
    if (!status && fsync(out))
        status = mf_error_errno(error, errno, "%s", target);
    if (out >= 0 && close(out) && !status)
        status = mf_error_errno(error, errno, "%s", target);
    if (status) {
        mf_digest_cancel(digest);
        return status;
    }
    status = mf_digest_finish(digest, sha256, error);
    return status ? status : add_line(publication, mf_hex(sha256, sizeof sha256, text), relative);
}

static enum mf_status copy_entry(struct publication *publication, int parent, const char *name,
                                 const char *target, const char *relative, int depth, struct mf_error *error);

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_dots(const struct dirent *entry) {
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static enum mf_status copy_folder(struct publication *publication, int folder, const char *target,
                                  const char *relative, int depth, struct mf_error *error) {
    struct dirent **entries = NULL;
    enum mf_status status = MF_OK;
    if (depth > MF_STORAGE_MAX_DEPTH)
        return refuse(publication, "is nested too deep", error);
    if (!publication->s3 && mkdir(target, 0750))
        return mf_error_errno(error, errno, "%s", target);
    int count = scandirat(folder, ".", &entries, not_dots, by_name);
    if (count < 0)
        return mf_error_errno(error, errno, "%s", *relative ? relative : publication->path);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        if (!status && strpbrk(name, "\n\\")) /* would make two lines of one in the manifest */
            status = refuse(publication, "holds a file whose name has a line break or backslash", error);
        char *child = status ? NULL : mf_path_join(target, name);
        char *child_relative = status || !*relative ? NULL : mf_path_join(relative, name);
        if (!status && (!child || (*relative && !child_relative)))
            status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a path");
        if (!status)
            status = copy_entry(publication, folder, name, child, child_relative ? child_relative : name,
                                depth, error);
        free(child);
        free(child_relative);
        free(entries[i]);
    }
    free(entries);
    return status || publication->s3 ? status : mf_directory_sync(target, error);
}

static enum mf_status copy_opened(struct publication *publication, int source, const char *target,
                                  const char *relative, int depth, struct mf_error *error) {
    struct stat about;
    if (fstat(source, &about))
        return mf_error_errno(error, errno, "%s", relative);
    if (S_ISDIR(about.st_mode))
        return copy_folder(publication, source, target, relative, depth + 1, error);
    if (!S_ISREG(about.st_mode))
        return refuse(publication, "is or holds something that is neither a file nor a folder", error);
    if (publication->files >= MF_STORAGE_MAX_FILES)
        return refuse(publication, "holds too many files", error);
    return publication->s3 ? send_file(publication, source, target, relative, error)
                           : copy_file(publication, source, target, relative, error);
}

static enum mf_status copy_entry(struct publication *publication, int parent, const char *name,
                                 const char *target, const char *relative, int depth,
                                 struct mf_error *error) {
    int source = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (source < 0 && errno == ELOOP)
        return refuse(publication, "holds a symbolic link", error);
    if (source < 0)
        return mf_error_errno(error, errno, "%s", relative);
    enum mf_status status = copy_opened(publication, source, target, relative, depth, error);
    close(source);
    return status;
}

static int by_path(const void *a, const void *b) {
    const char *left = *(const char *const *)a + MF_SHA256_TEXT_BYTES + 1;
    const char *right = *(const char *const *)b + MF_SHA256_TEXT_BYTES + 1;
    return strcmp(left, right);
}

enum mf_status mf_storage_digest(struct mf_text *manifest, int64_t files, char sha256[MF_SHA256_TEXT_BYTES],
                                 struct mf_error *error) {
    enum mf_status status = mf_text_status(manifest, error);
    char **lines = status ? NULL : calloc((size_t)files + 1, sizeof *lines);
    struct mf_text sorted = {0};
    if (!status && !lines)
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a manifest");
    size_t count = 0;
    char *rest = manifest->data;
    while (lines && rest && *rest)
        lines[count++] = strsep(&rest, "\n");
    if (lines) {
        qsort(lines, count, sizeof *lines, by_path);
        for (size_t i = 0; i < count; i++)
            mf_text_printf(&sorted, "%s\n", lines[i]);
        status = mf_text_status(&sorted, error);
    }
    if (!status)
        status = mf_sha256_text(mf_text_string(&sorted), sorted.length, sha256, error);
    mf_text_free(&sorted);
    free(lines);
    return status;
}

static enum mf_status open_source(const struct publication *publication, int *source, bool *is_folder,
                                  struct mf_error *error) {
    struct stat about;
    struct mf_error reason;
    enum mf_status status = mf_path_open_beneath(publication->folder, publication->path,
                                                 O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0, source, &reason);
    if (status == MF_ERROR_INVALID_FIELD)
        return refuse(publication, "leads out of the attempt's folder", error);
    if (status)
        return refuse(publication, "cannot be opened", error);
    if (fstat(*source, &about)) {
        close(*source);
        return mf_error_errno(error, errno, "%s", publication->path);
    }
    *is_folder = S_ISDIR(about.st_mode);
    return MF_OK;
}

/* Moves the finished copy to its key without ever replacing anything there. */
static enum mf_status put_in_place(const char *root, const char *temporary, const char *target, char *parent,
                                   const struct publication *publication, struct mf_error *error) {
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, target, RENAME_NOREPLACE)) {
        if (errno == EEXIST)
            return refuse(publication, "was stored before", error);
        if (errno != EINVAL && errno != ENOSYS) /* file systems that cannot: the key is the attempt's own */
            return mf_error_errno(error, errno, "%s", target);
        if (mf_path_exists(target))
            return refuse(publication, "was stored before", error);
        if (rename(temporary, target))
            return mf_error_errno(error, errno, "%s", target);
    }
    enum mf_status status = mf_directory_sync(parent, error);
    while (!status && strlen(parent) > strlen(root)) { /* its folders may be new as well */
        *strrchr(parent, '/') = 0;
        status = mf_directory_sync(*parent ? parent : "/", error);
    }
    return status;
}

/* The sha256 of what was published; a single file's is that of its bytes. */
static enum mf_status finish_digest(struct publication *publication, bool is_folder,
                                    char sha256[MF_SHA256_TEXT_BYTES], struct mf_error *error) {
    if (is_folder)
        return mf_storage_digest(&publication->manifest, publication->files, sha256, error);
    enum mf_status status = mf_text_status(&publication->manifest, error);
    if (!status)
        memcpy(sha256, mf_text_string(&publication->manifest), MF_SHA256_TEXT_BYTES - 1);
    return status;
}

/* Into a folder: a copy beside the target, then moved there. */
static enum mf_status publish_to_folder(const struct mf_storage *storage, struct publication *publication,
                                        int source, bool is_folder, const char *base, const char *target,
                                        char sha256[MF_SHA256_TEXT_BYTES], struct mf_error *error) {
    struct mf_text temporary = {0};
    char unique[MF_UUID_TEXT_BYTES], *parent = strdup(target);
    enum mf_status status = MF_OK;
    publication->buffer = malloc(COPY_BYTES);
    if (!parent || !publication->buffer) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to store an artifact");
        goto done;
    }
    *strrchr(parent, '/') = 0;
    mf_text_printf(&temporary, "%s.%s.tmp", target, mf_uuid_format(mf_uuid_random(), unique));
    if ((status = mf_text_status(&temporary, error)) || (status = mf_directory_create(parent, 0750, error)))
        goto done;
    status = copy_opened(publication, source, mf_text_string(&temporary), is_folder ? "" : base, 0, error);
    if (!status)
        status = finish_digest(publication, is_folder, sha256, error);
    if (!status)
        status = put_in_place(storage->root, mf_text_string(&temporary), target, parent, publication, error);
    if (status) {
        struct mf_error ignored;
        (void)mf_tree_remove(mf_text_string(&temporary), &ignored);
    }
done:
    free(publication->buffer);
    mf_text_free(&temporary);
    free(parent);
    return status;
}

static enum mf_status publish_to_bucket(const struct mf_storage *storage, struct publication *publication,
                                        int source, bool is_folder, const char *base, const char *target,
                                        const atomic_bool *stop, char sha256[MF_SHA256_TEXT_BYTES],
                                        struct mf_error *error) {
    enum mf_status status = mf_storage_session(storage, stop, &publication->s3, error);
    publication->bucket = storage->bucket;
    if (!status)
        status = copy_opened(publication, source, target, is_folder ? "" : base, 0, error);
    if (!status)
        status = finish_digest(publication, is_folder, sha256, error);
    mf_s3_close(publication->s3);
    return status;
}

char *mf_storage_uri(const struct mf_storage *storage, const char *target) {
    struct mf_text uri = {0};
    if (*storage->bucket)
        mf_text_printf(&uri, "s3://%s/%s", storage->bucket, target);
    else
        mf_text_printf(&uri, "file://%s", target);
    return mf_text_take(&uri);
}

enum mf_status mf_storage_publish(struct mf_storage *storage, const char *folder, const char *path,
                                  const char *key, const atomic_bool *stop, struct mf_stored_artifact *object,
                                  struct mf_error *error) {
    struct publication publication = {.folder = folder, .path = path};
    char *target = *storage->root ? mf_path_join(storage->root, key) : strdup(key);
    char *uri = target ? mf_storage_uri(storage, target) : NULL;
    int source = -1;
    bool is_folder = false;
    *object = (struct mf_stored_artifact){0};
    enum mf_status status;
    if (!target || !uri) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to store an artifact");
        goto done;
    }
    if ((status = open_source(&publication, &source, &is_folder, error)))
        goto done;
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    status = *storage->bucket ? publish_to_bucket(storage, &publication, source, is_folder, base, target,
                                                  stop, object->sha256, error)
                              : publish_to_folder(storage, &publication, source, is_folder, base, target,
                                                  object->sha256, error);
    if (status)
        goto done;
    object->uri = uri;
    uri = NULL;
    object->size_bytes = publication.size_bytes;
    object->files = publication.files;
done:
    if (source >= 0)
        close(source);
    mf_text_free(&publication.manifest);
    free(uri);
    free(target);
    return status;
}
