#include "common/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/text.h"

/* Reads until `size` bytes are there or the file ends; -1 with errno. */
static ssize_t read_fully(int descriptor, char *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(descriptor, data + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* Opens a regular file for reading; a pipe or device, which could block for ever, is refused. On failure
 * *descriptor is -1. */
static enum mf_status open_regular(const char *path, int *descriptor, struct stat *information,
                                   struct mf_error *error) {
    enum mf_status status = MF_OK;
    *descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*descriptor < 0)
        return mf_error_errno(error, errno, "cannot open %s", path);
    if (fstat(*descriptor, information))
        status = mf_error_errno(error, errno, "cannot look at %s", path);
    else if (!S_ISREG(information->st_mode))
        status = mf_error_set(error, MF_ERROR_IO, "%s is not a regular file", path);
    if (status) {
        close(*descriptor);
        *descriptor = -1;
    }
    return status;
}

enum mf_status mf_file_read(const char *path, size_t limit_bytes, char **data, size_t *size,
                            struct mf_error *error) {
    struct stat information = {0};
    char *bytes = NULL;
    int descriptor;
    *data = NULL;
    enum mf_status status = open_regular(path, &descriptor, &information, error);
    if (status)
        return status;
    if ((uint64_t)information.st_size > limit_bytes) {
        status = mf_error_set(error, MF_ERROR_IO, "%s holds %lld bytes, at most %zu are read", path,
                              (long long)information.st_size, limit_bytes);
        goto done;
    }
    size_t expected = (size_t)information.st_size;
    bytes = malloc(expected + 1);
    if (!bytes) {
        status =
            mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the %zu bytes of %s", expected, path);
        goto done;
    }
    ssize_t n = read_fully(descriptor, bytes, expected);
    if (n < 0) {
        status = mf_error_errno(error, errno, "cannot read %s", path);
        goto done;
    }
    bytes[n] = 0;
    if (size)
        *size = (size_t)n;
    *data = bytes;
    bytes = NULL;
done:
    free(bytes);
    close(descriptor);
    return status;
}

enum mf_status mf_descriptor_write(int descriptor, const void *data, size_t size, const char *path,
                                   struct mf_error *error) {
    for (size_t done = 0; done < size;) {
        ssize_t n = write(descriptor, (const char *)data + done, size - done);
        if (n < 0 && errno != EINTR)
            return mf_error_errno(error, errno, "cannot write %s", path);
        if (n > 0)
            done += (size_t)n;
    }
    return MF_OK;
}

/* The folder part of a path ("." when it has none); NULL when memory runs out. */
static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

enum mf_status mf_directory_sync(const char *path, struct mf_error *error) {
    enum mf_status status = MF_OK;
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return mf_error_errno(error, errno, "cannot open the folder %s", path);
    if (fsync(descriptor))
        status = mf_error_errno(error, errno, "cannot sync the folder %s", path);
    close(descriptor);
    return status;
}

enum mf_status mf_atomic_file_open(const char *path, mode_t mode, struct mf_atomic_file *file,
                                   struct mf_error *error) {
    *file = (struct mf_atomic_file){.descriptor = -1};
    struct mf_text temporary = {0};
    mf_text_printf(&temporary, "%s.%016llx.tmp", path, (unsigned long long)mf_random_u64());
    file->path = strdup(path);
    file->temporary = mf_text_take(&temporary);
    if (!file->path || !file->temporary) {
        mf_atomic_file_abandon(file);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the name %s", path);
    }
    file->descriptor = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (file->descriptor < 0) {
        enum mf_status status = mf_error_errno(error, errno, "cannot create %s", file->temporary);
        mf_atomic_file_abandon(file);
        return status;
    }
    return MF_OK;
}

enum mf_status mf_atomic_file_commit(struct mf_atomic_file *file, struct mf_error *error) {
    enum mf_status status = MF_OK;
    if (file->descriptor < 0)
        return mf_error_set(error, MF_ERROR_IO, "a file that is not open cannot be committed");
    char *folder = folder_of(file->path);
    if (!folder) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the folder of %s", file->path);
        goto done;
    }
    if (fsync(file->descriptor)) {
        status = mf_error_errno(error, errno, "cannot sync %s", file->temporary);
        goto done;
    }
    if (rename(file->temporary, file->path)) {
        status = mf_error_errno(error, errno, "cannot rename %s to %s", file->temporary, file->path);
        goto done;
    }
    free(file->temporary);
    file->temporary = NULL;
    status = mf_directory_sync(folder, error);
done:
    free(folder);
    mf_atomic_file_abandon(file);
    return status;
}

void mf_atomic_file_abandon(struct mf_atomic_file *file) {
    if (file->descriptor >= 0) {
        close(file->descriptor);
        if (file->temporary)
            unlink(file->temporary);
    }
    free(file->path);
    free(file->temporary);
    *file = (struct mf_atomic_file){.descriptor = -1};
}

enum mf_status mf_file_write_atomic(const char *path, const void *data, size_t size, mode_t mode,
                                    struct mf_error *error) {
    struct mf_atomic_file file;
    enum mf_status status = mf_atomic_file_open(path, mode, &file, error);
    if (status)
        return status;
    status = mf_descriptor_write(file.descriptor, data, size, path, error);
    if (status) {
        mf_atomic_file_abandon(&file);
        return status;
    }
    return mf_atomic_file_commit(&file, error);
}

enum mf_status mf_directory_create(const char *path, mode_t mode, struct mf_error *error) {
    char *copy = strdup(path);
    if (!copy)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the path %s", path);
    enum mf_status status = MF_OK;
    for (char *p = copy + 1; !status && *copy; p++) {
        char end = *p;
        if (end && end != '/')
            continue;
        *p = 0;
        struct stat information;
        if (mkdir(copy, mode) &&
            (errno != EEXIST || stat(copy, &information) || !S_ISDIR(information.st_mode)))
            status =
                mf_error_errno(error, errno == EEXIST ? ENOTDIR : errno, "cannot create the folder %s", copy);
        *p = end;
        if (!end)
            break;
    }
    free(copy);
    return status;
}

bool mf_path_exists(const char *path) {
    return access(path, F_OK) == 0;
}

char *mf_path_join(const char *folder, const char *name) {
    struct mf_text path = {0};
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    mf_text_append(&path, folder, length);
    if (length && folder[length - 1] != '/')
        mf_text_puts(&path, "/");
    mf_text_puts(&path, name + strspn(name, "/"));
    if (path.failed)
        mf_text_free(&path);
    return path.data;
}

/* Where `real`, a resolved path, lies below `root`, a resolved folder: the part after it, "" for the root
 * itself, NULL when it lies elsewhere. */
static const char *part_below(const char *root, const char *real) {
    size_t length = strlen(root);
    if (!strcmp(root, "/"))
        return real + 1;
    if (strncmp(root, real, length) != 0 || (real[length] && real[length] != '/'))
        return NULL;
    return real[length] ? real + length + 1 : "";
}

static enum mf_status outside(const char *root, const char *path, struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s lies outside of %s", path, root);
}

enum mf_status mf_path_resolve_beneath(const char *root, const char *path, char **resolved,
                                       struct mf_error *error) {
    enum mf_status status = MF_OK;
    char *real = NULL, *joined = NULL, *real_root = realpath(root, NULL);
    *resolved = NULL;
    if (!real_root) {
        status = mf_error_errno(error, errno, "cannot resolve %s", root);
        goto done;
    }
    joined = path[0] == '/' ? strdup(path) : mf_path_join(real_root, path);
    real = joined ? realpath(joined, NULL) : NULL;
    if (!real) {
        status = mf_error_errno(error, joined ? errno : ENOMEM, "cannot resolve %s below %s", path, root);
        goto done;
    }
    if (!part_below(real_root, real)) {
        status = outside(root, path, error);
        goto done;
    }
    *resolved = real;
    real = NULL;
done:
    free(real);
    free(joined);
    free(real_root);
    return status;
}

/* Without openat2: resolves the folder of the path, checks that, and opens the last part without following a
 * link there. A folder swapped for a link between the two steps is caught by comparing the opened folder's
 * own path. */
static int open_checked(const char *real_root, const char *relative, int flags, mode_t mode) {
    char folder_path[PATH_MAX], real[PATH_MAX], link[64];
    const char *slash = strrchr(relative, '/'), *name = slash ? slash + 1 : relative;
    if (!strcmp(name, "..") || !strcmp(name, "")) {
        errno = EXDEV;
        return -1;
    }
    int n = snprintf(folder_path, sizeof folder_path, "%s/%.*s", real_root,
                     slash ? (int)(slash - relative) : 0, relative);
    if (n < 0 || (size_t)n >= sizeof folder_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int folder = open(folder_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, real, sizeof real - 1);
    int descriptor = -1;
    if (length > 0) {
        real[length] = 0;
        if (part_below(real_root, real))
            descriptor = openat(folder, name, flags | O_CLOEXEC | O_NOFOLLOW, mode);
        else
            errno = EXDEV;
    }
    int saved = errno;
    close(folder);
    errno = saved;
    return descriptor;
}

static int open_beneath(const char *real_root, const char *relative, int flags, mode_t mode) {
    int folder = open(real_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return -1;
    struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                           .mode = flags & O_CREAT ? mode : 0,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int descriptor = (int)syscall(SYS_openat2, folder, relative, &how, sizeof how);
    int saved = errno;
    close(folder);
    errno = saved;
    /* EPERM is what container sandboxes that do not know the call answer */
    if (descriptor < 0 && (errno == ENOSYS || errno == EPERM))
        descriptor = open_checked(real_root, relative, flags, mode);
    return descriptor;
}

enum mf_status mf_path_open_beneath(const char *root, const char *path, int flags, mode_t mode,
                                    int *descriptor, struct mf_error *error) {
    enum mf_status status = MF_OK;
    *descriptor = -1;
    char *real_root = realpath(root, NULL);
    if (!real_root)
        return mf_error_errno(error, errno, "cannot resolve %s", root);
    const char *relative = path;
    if (path[0] == '/') {
        relative = part_below(real_root, path);
        if (!relative)
            relative = part_below(root, path);
        if (!relative) {
            status = outside(root, path, error);
            goto done;
        }
    }
    relative += strspn(relative, "/");
    *descriptor = open_beneath(real_root, *relative ? relative : ".", flags, mode);
    if (*descriptor < 0)
        status = errno == EXDEV || errno == ELOOP ? outside(root, path, error)
                                                  : mf_error_errno(error, errno, "cannot open %s", path);
done:
    free(real_root);
    return status;
}

/* Calls visit for everything in a folder; recursion is in visit. Depth is bounded by the caller. */
typedef enum mf_status visit_entry(int folder, const char *name, const char *path, int depth, void *context,
                                   struct mf_error *error);

enum { TREE_DEPTH = 64 };

static enum mf_status visit_folder(int parent, const char *name, const char *path, int depth,
                                   visit_entry *visit, void *context, struct mf_error *error) {
    if (depth > TREE_DEPTH)
        return mf_error_set(error, MF_ERROR_IO, "%s is nested deeper than %d folders", path, TREE_DEPTH);
    int descriptor = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (descriptor < 0)
        return mf_error_errno(error, errno, "cannot open the folder %s", path);
    DIR *folder = fdopendir(descriptor);
    if (!folder) {
        close(descriptor);
        return mf_error_errno(error, errno, "cannot read the folder %s", path);
    }
    enum mf_status status = MF_OK;
    struct dirent *entry;
    while (!status && (errno = 0, entry = readdir(folder))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        char *below = mf_path_join(path, entry->d_name);
        status = below ? visit(dirfd(folder), entry->d_name, below, depth, context, error)
                       : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a name in %s", path);
        free(below);
    }
    if (!status && errno)
        status = mf_error_errno(error, errno, "cannot read the folder %s", path);
    closedir(folder);
    return status;
}

static enum mf_status add_size(int folder, const char *name, const char *path, int depth, void *context,
                               struct mf_error *error) {
    struct stat information;
    if (fstatat(folder, name, &information, AT_SYMLINK_NOFOLLOW))
        return mf_error_errno(error, errno, "cannot look at %s", path);
    if (S_ISREG(information.st_mode))
        *(uint64_t *)context += (uint64_t)information.st_size;
    if (S_ISDIR(information.st_mode))
        return visit_folder(folder, name, path, depth + 1, add_size, context, error);
    return MF_OK;
}

enum mf_status mf_tree_size(const char *path, uint64_t *size_bytes, struct mf_error *error) {
    *size_bytes = 0;
    return add_size(AT_FDCWD, path, path, 0, size_bytes, error);
}

static enum mf_status remove_entry(int folder, const char *name, const char *path, int depth, void *context,
                                   struct mf_error *error) {
    if (!unlinkat(folder, name, 0) || errno == ENOENT)
        return MF_OK;
    if (errno != EISDIR && errno != EPERM)
        return mf_error_errno(error, errno, "cannot remove %s", path);
    enum mf_status status = visit_folder(folder, name, path, depth + 1, remove_entry, context, error);
    if (!status && unlinkat(folder, name, AT_REMOVEDIR) && errno != ENOENT)
        status = mf_error_errno(error, errno, "cannot remove the folder %s", path);
    return status;
}

enum mf_status mf_tree_remove(const char *path, struct mf_error *error) {
    return remove_entry(AT_FDCWD, path, path, 0, NULL, error);
}

enum mf_status mf_file_sha256(const char *path, char text[MF_SHA256_TEXT_BYTES], uint64_t *size_bytes,
                              struct mf_error *error) {
    enum { CHUNK_BYTES = 1 << 18 };
    enum mf_status status = MF_OK;
    struct mf_digest *digest = NULL;
    uint8_t result[MF_SHA256_BYTES];
    uint64_t total = 0;
    char *chunk = malloc(CHUNK_BYTES);
    struct stat information;
    int descriptor;
    if ((status = open_regular(path, &descriptor, &information, error)))
        goto done;
    if (!chunk) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to read %s", path);
        goto done;
    }
    if ((status = mf_digest_begin(MF_DIGEST_SHA256, &digest, error)))
        goto done;
    for (ssize_t n; (n = read_fully(descriptor, chunk, CHUNK_BYTES)) != 0; total += (uint64_t)n) {
        if (n < 0) {
            status = mf_error_errno(error, errno, "cannot read %s", path);
            goto done;
        }
        if ((status = mf_digest_update(digest, chunk, (size_t)n, error)))
            goto done;
    }
    status = mf_digest_finish(digest, result, error);
    digest = NULL;
    if (status)
        goto done;
    mf_hex(result, sizeof result, text);
    if (size_bytes)
        *size_bytes = total;
done:
    mf_digest_cancel(digest);
    if (descriptor >= 0)
        close(descriptor);
    free(chunk);
    return status;
}
