#include "worker/storage.h"

#include "common/files.h"
#include "common/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_BYTES = 1 << 20 };

struct mf_storage {
    char *root;
};

/* One publication under way. */
struct publication {
    const char *folder; /* what the trainer may name */
    const char *path;   /* as it named it, for messages */
    char *buffer;       /* COPY_BYTES */
    struct mf_text manifest;
    int64_t size_bytes, files;
};

enum mf_status mf_storage_open(const char *url, struct mf_storage **storage, struct mf_error *error) {
    static const char scheme[] = "file://";
    *storage = NULL;
    if (strncmp(url, scheme, strlen(scheme)) != 0 || url[strlen(scheme)] != '/')
        return mf_error_set(
            error, MF_ERROR_CONFIGURATION,
            "storage.url: '%s' is not file:///folder, the only kind that this version stores to", url);
    const char *root = url + strlen(scheme);
    enum mf_status status = mf_directory_create(root, 0750, error);
    if (status)
        return status;
    struct mf_storage *made = calloc(1, sizeof *made);
    if (!made || !(made->root = strdup(root))) {
        free(made);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the storage");
    }
    *storage = made;
    return MF_OK;
}

void mf_storage_close(struct mf_storage *storage) {
    if (storage)
        free(storage->root);
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
    if (!status)
        mf_text_printf(&publication->manifest, "%s  %s\n", mf_hex(sha256, sizeof sha256, text), relative);
    publication->files++;
    return status;
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
    if (mkdir(target, 0750))
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
    return status ? status : mf_directory_sync(target, error);
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
    return copy_file(publication, source, target, relative, error);
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

/* The sha256 of the manifest with its lines sorted by path. */
static enum mf_status digest_manifest(struct publication *publication, char sha256[MF_SHA256_TEXT_BYTES],
                                      struct mf_error *error) {
    enum mf_status status = mf_text_status(&publication->manifest, error);
    char **lines = status ? NULL : calloc((size_t)publication->files + 1, sizeof *lines);
    struct mf_text sorted = {0};
    if (!status && !lines)
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a manifest");
    size_t count = 0;
    char *rest = publication->manifest.data;
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

enum mf_status mf_storage_publish(struct mf_storage *storage, const char *folder, const char *path,
                                  const char *key, struct mf_stored_artifact *object,
                                  struct mf_error *error) {
    struct publication publication = {.folder = folder, .path = path};
    char *target = mf_path_join(storage->root, key), *parent = target ? strdup(target) : NULL;
    struct mf_text temporary = {0}, uri = {0};
    char unique[MF_UUID_TEXT_BYTES];
    int source = -1;
    bool is_folder = false;
    *object = (struct mf_stored_artifact){0};
    enum mf_status status = MF_OK;
    publication.buffer = malloc(COPY_BYTES);
    if (!target || !parent || !publication.buffer) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to store an artifact");
        goto done;
    }
    *strrchr(parent, '/') = 0;
    mf_text_printf(&temporary, "%s.%s.tmp", target, mf_uuid_format(mf_uuid_random(), unique));
    mf_text_printf(&uri, "file://%s", target);
    if ((status = mf_text_status(&temporary, error)) || (status = mf_text_status(&uri, error)) ||
        (status = open_source(&publication, &source, &is_folder, error)) ||
        (status = mf_directory_create(parent, 0750, error)))
        goto done;
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    status = copy_opened(&publication, source, mf_text_string(&temporary), is_folder ? "" : base, 0, error);
    if (!status && is_folder)
        status = digest_manifest(&publication, object->sha256, error);
    else if (!status && !(status = mf_text_status(&publication.manifest, error)))
        memcpy(object->sha256, mf_text_string(&publication.manifest), MF_SHA256_TEXT_BYTES - 1);
    if (!status)
        status = put_in_place(storage->root, mf_text_string(&temporary), target, parent, &publication, error);
    if (status) {
        struct mf_error ignored;
        (void)mf_tree_remove(mf_text_string(&temporary), &ignored);
        goto done;
    }
    object->uri = mf_text_take(&uri);
    object->size_bytes = publication.size_bytes;
    object->files = publication.files;
done:
    if (source >= 0)
        close(source);
    mf_text_free(&temporary);
    mf_text_free(&uri);
    mf_text_free(&publication.manifest);
    free(publication.buffer);
    free(target);
    free(parent);
    return status;
}

enum mf_status mf_storage_locate(const struct mf_storage *storage, const char *uri, char **path,
                                 struct mf_error *error) {
    static const char scheme[] = "file://";
    *path = NULL;
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
