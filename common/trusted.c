#include "common/trusted.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum mf_status check_component(const char *path, bool is_file, struct mf_error *error) {
    struct stat is;
    if (lstat(path, &is))
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%s: %s", path, strerror(errno));
    if (is_file && !S_ISREG(is.st_mode))
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%s is not a regular file", path);
    if (is.st_uid != 0 && is.st_uid != geteuid())
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                            "%s belongs to uid %u, neither to root nor to the user of this program (uid %u): "
                            "chown it",
                            path, (unsigned)is.st_uid, (unsigned)geteuid());
    const bool sticky = S_ISDIR(is.st_mode) && (is.st_mode & S_ISVTX);
    if ((is.st_mode & (S_IWGRP | S_IWOTH)) && !sticky)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                            "%s may be written by %s (mode %04o): chmod go-w it", path,
                            is.st_mode & S_IWOTH ? "everybody" : "its group", (unsigned)(is.st_mode & 07777));
    return MF_OK;
}

static enum mf_status check_path(const char *path, bool is_file, char **resolved, struct mf_error *error) {
    char *real = realpath(path, NULL);
    if (!real)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%s: %s", path, strerror(errno));
    enum mf_status status = check_component("/", false, error);
    for (char *end = strchr(real + 1, '/'); end && status == MF_OK; end = strchr(end + 1, '/')) {
        *end = '\0';
        status = check_component(real, false, error);
        *end = '/';
    }
    if (status == MF_OK)
        status = check_component(real, is_file, error);
    if (status == MF_OK && resolved)
        *resolved = real;
    else
        free(real);
    return status;
}

enum mf_status mf_path_check_trusted(const char *path, char **resolved, struct mf_error *error) {
    return check_path(path, true, resolved, error);
}

enum mf_status mf_folder_check_trusted(const char *path, struct mf_error *error) {
    return check_path(path, false, NULL, error);
}
