/* Files: bounded reading, atomic and durable writing, paths that cannot leave their root. All functions: any
 * thread. MF_ERROR_IO (MF_ERROR_DISK_FULL) with path and reason unless said otherwise. */
#ifndef MF_COMMON_FILES_H
#define MF_COMMON_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/digest.h"
#include "common/error.h"

/* The whole regular file; fails when it holds more than `limit_bytes`. *data has a NUL after its `*size`
 * bytes and is freed by the caller. `size` may be NULL. */
enum mf_status mf_file_read(const char *path, size_t limit_bytes, char **data, size_t *size,
                            struct mf_error *error);

/* Replaces `path` so that after any crash either the old or the new content is there: temporary file beside
 * it, fsync, rename, fsync of the folder. */
enum mf_status mf_file_write_atomic(const char *path, const void *data, size_t size, mode_t mode,
                                    struct mf_error *error);

/* The same in pieces, for large files: write to `descriptor` as you like, then commit, or abandon (which
 * removes the temporary file). Both free it. */
struct mf_atomic_file {
    int descriptor;
    char *path, *temporary;
};
enum mf_status mf_atomic_file_open(const char *path, mode_t mode, struct mf_atomic_file *file,
                                   struct mf_error *error);
enum mf_status mf_atomic_file_commit(struct mf_atomic_file *file, struct mf_error *error);
void mf_atomic_file_abandon(struct mf_atomic_file *file);

/* write(2) until all is written. `path` is for the message. */
enum mf_status mf_descriptor_write(int descriptor, const void *data, size_t size, const char *path,
                                   struct mf_error *error);

/* mkdir -p; an existing folder is fine. */
enum mf_status mf_directory_create(const char *path, mode_t mode, struct mf_error *error);
/* fsync of a folder, so that names made or renamed in it last. */
enum mf_status mf_directory_sync(const char *path, struct mf_error *error);
bool mf_path_exists(const char *path);
/* "folder/name" with one slash between; freed by the caller; NULL when memory runs out. */
char *mf_path_join(const char *folder, const char *name);

/* Opens `path` (relative to `root`, or absolute and below it) so that no "..", symbolic link or magic link
 * leads out of `root`: openat2(RESOLVE_BENEATH) where the kernel has it, else the resolved path is checked.
 * `flags` and `mode` as for open(2); O_CLOEXEC is added. MF_ERROR_INVALID_FIELD when it would leave the root.
 * The caller closes *descriptor. */
enum mf_status mf_path_open_beneath(const char *root, const char *path, int flags, mode_t mode,
                                    int *descriptor, struct mf_error *error);
/* The real absolute path of an existing file or folder below `root`; freed by the caller.
 * MF_ERROR_INVALID_FIELD when it lies elsewhere. For showing and storing; open with mf_path_open_beneath. */
enum mf_status mf_path_resolve_beneath(const char *root, const char *path, char **resolved,
                                       struct mf_error *error);

/* Sum of the sizes of the regular files below `path` (links are not followed), or the size of one file. */
enum mf_status mf_tree_size(const char *path, uint64_t *size_bytes, struct mf_error *error);
/* Removes a file or a folder and everything below it, not following links; gone already is fine. */
enum mf_status mf_tree_remove(const char *path, struct mf_error *error);

/* sha256 as hexadecimal digits, and the size (may be NULL), of a file's bytes. */
enum mf_status mf_file_sha256(const char *path, char text[MF_SHA256_TEXT_BYTES], uint64_t *size_bytes,
                              struct mf_error *error);

#endif
