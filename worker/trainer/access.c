#include "worker/trainer/access.h"

#include "common/download.h"
#include "common/files.h"
#include "common/redact.h"
#include "common/s3.h"
#include "providers/hub.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STALL_MS = 60000, REDIRECTS = 5, MODEL_DEPTH = 8 };

static const char https[] = "https://", s3_scheme[] = "s3://", hub_scheme[] = "hf://";

static bool begins(const char *text, const char *with) {
    return !strncasecmp(text, with, strlen(with));
}

/* ---- roots ------------------------------------------------------------------------------------------- */

/* Spellings that a server may read as a way up. */
static bool climbs(const char *path) {
    for (const char *at = path; *at && *at != '?'; at++)
        if (*at == '\\' || (*at == '.' && at[1] == '.') || !strncasecmp(at, "%2e", 3) ||
            !strncasecmp(at, "%2f", 3) || !strncasecmp(at, "%5c", 3))
            return true;
    return false;
}

/* `text` is `root` or lies below it. */
static bool is_below(const char *root, const char *text) {
    const size_t length = strlen(root);
    if (strncmp(root, text, length) != 0)
        return false;
    return !text[length] || strchr("/?#@", text[length]) || (length && root[length - 1] == '/');
}

bool mf_access_covers(const char *root, const char *url) {
    char own[512], other[512];
    if (begins(root, https)) {
        if (!mf_url_origin(root, own, sizeof own) || !mf_url_origin(url, other, sizeof other) ||
            strcmp(own, other) != 0)
            return false;
        const char *path = url + strlen(other), *base = root + strlen(own);
        return !climbs(path) && is_below(*base ? base : "/", *path == '/' ? path : "/");
    }
    if (begins(root, s3_scheme))
        return begins(url, s3_scheme) && !climbs(url) && is_below(root, url);
    return begins(root, hub_scheme) && is_below(root, url);
}

static bool allows_url(const struct mf_access *access, const char *url) {
    size_t i;
    const json_t *root;
    if (!access->roots)
        return true;
    json_array_foreach(access->roots, i,
                       root) if (mf_access_covers(json_string_value(root), url)) return true;
    return false;
}

/* Opens a real path below one of the roots. -1 with EXDEV when it lies below none. */
static int open_below_roots(const struct mf_access *access, const char *real, int flags) {
    size_t i;
    const json_t *entry;
    int descriptor = -1;
    if (!access->roots)
        return open(real, flags | O_CLOEXEC);
    errno = EXDEV;
    json_array_foreach(access->roots, i, entry) {
        const char *root = json_string_value(entry);
        struct mf_error why;
        if (*root != '/')
            continue;
        if (!mf_path_open_beneath(root, real, flags, 0, &descriptor, &why))
            return descriptor;
    }
    errno = errno ? errno : EXDEV;
    return -1;
}

/* Whether a path that cannot be resolved would lie below a root by its name. */
static bool named_below_roots(const struct mf_access *access, const char *path) {
    size_t i;
    const json_t *root;
    if (!access->roots)
        return true;
    json_array_foreach(access->roots, i, root) {
        const char *folder = json_string_value(root);
        if (*folder == '/' && !climbs(path) && (!strcmp(folder, "/") || is_below(folder, path)))
            return true;
    }
    return false;
}

/* ---- models ------------------------------------------------------------------------------------------ */

static enum mf_status model_forbidden(const char *model_name, const char *what, struct mf_error *error) {
    return mf_error_set(
        error, MF_ERROR_MODEL_FORBIDDEN,
        "model_name: %.500s: %s is not among what this worker lets this tenant read (tenants.roots)",
        model_name, what);
}

/* Every file in the folder, links resolved. */
static enum mf_status check_entries(const struct mf_access *access, const char *model_name,
                                    const char *folder, int depth, struct mf_error *error) {
    DIR *entries = opendir(folder);
    enum mf_status status = MF_OK;
    struct dirent *entry;
    if (!entries)
        return MF_OK; /* whoever opens it says why it cannot be read */
    while (!status && (entry = readdir(entries))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        char *path = mf_path_join(folder, entry->d_name), *real = path ? realpath(path, NULL) : NULL;
        struct stat about;
        int descriptor = real ? open_below_roots(access, real, O_PATH) : -1;
        if (real && descriptor < 0)
            status = model_forbidden(model_name, entry->d_name, error);
        else if (real && depth < MODEL_DEPTH && !lstat(path, &about) && S_ISDIR(about.st_mode))
            status = check_entries(access, model_name, real, depth + 1, error);
        if (descriptor >= 0)
            close(descriptor);
        free(real);
        free(path);
    }
    closedir(entries);
    return status;
}

static enum mf_status take_name(const char *name, char **allowed, struct mf_error *error) {
    *allowed = strdup(name);
    return *allowed ? MF_OK : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
}

enum mf_status mf_access_model(const struct mf_access *access, const char *model_name, char **allowed,
                               struct mf_error *error) {
    char url[MF_HUB_ID_BYTES + MF_HUB_FILE_BYTES + MF_HUB_REVISION_BYTES + 8];
    *allowed = NULL;
    if (mf_hub_is_id(model_name)) {
        snprintf(url, sizeof url, "%s%s", begins(model_name, hub_scheme) ? "" : hub_scheme, model_name);
        return allows_url(access, url) ? take_name(model_name, allowed, error)
                                       : model_forbidden(model_name, "the model hub", error);
    }
    char *real = realpath(model_name, NULL);
    if (!real)
        return named_below_roots(access, model_name) ? take_name(model_name, allowed, error)
                                                     : model_forbidden(model_name, "its folder", error);
    int descriptor = open_below_roots(access, real, O_PATH);
    enum mf_status status = descriptor >= 0 ? MF_OK : model_forbidden(model_name, "its folder", error);
    if (!status && access->roots)
        status = check_entries(access, model_name, real, 0, error);
    if (descriptor >= 0)
        close(descriptor);
    if (status)
        free(real);
    else if (!access->roots) { /* the name that the user gave reads better in messages */
        free(real);
        status = take_name(model_name, allowed, error);
    } else {
        *allowed = real;
    }
    return status;
}

/* ---- datasets ---------------------------------------------------------------------------------------- */

static enum mf_status dataset_forbidden(const char *dataset, struct mf_error *error) {
    char shown[600];
    return mf_error_set(error, MF_ERROR_DATASET_FORBIDDEN,
                        "dataset: %s is not among what this worker lets this tenant read (tenants.roots)",
                        mf_redact(dataset, shown, sizeof shown));
}

static enum mf_status open_file(const struct mf_access *access, const char *dataset, struct mf_opened *opened,
                                struct mf_error *error) {
    char *real = realpath(dataset, NULL);
    const int reason = errno;
    if (!real && named_below_roots(access, dataset))
        return mf_error_set(error, MF_ERROR_DATASET_NOT_FOUND, "dataset: cannot open %s: %s", dataset,
                            strerror(reason));
    opened->descriptor = real ? open_below_roots(access, real, O_RDONLY | O_NONBLOCK) : -1;
    const int failure = errno;
    free(real);
    if (opened->descriptor >= 0)
        return MF_OK;
    if (access->roots)
        return dataset_forbidden(dataset, error);
    return mf_error_set(error, MF_ERROR_DATASET_NOT_FOUND, "dataset: cannot open %s: %s", dataset,
                        strerror(failure));
}

static enum mf_status allow_redirect(void *context, const char *url, struct mf_error *error) {
    return allows_url(context, url) ? MF_OK : dataset_forbidden(url, error);
}

static enum mf_status fetch_https(const struct mf_access *access, const char *dataset, int descriptor,
                                  int64_t limit_bytes, struct mf_error *error) {
    const struct mf_http_options options = {.stall_ms = STALL_MS,
                                            .ca_file = access->ca_file,
                                            .public_addresses_only = !access->roots,
                                            .cancelled = access->cancelled,
                                            .cancelled_context = access->context};
    const struct mf_download download = {.url = dataset,
                                         .descriptor = descriptor,
                                         .limit_bytes = limit_bytes,
                                         .expected_bytes = -1,
                                         .redirects = REDIRECTS,
                                         .allow = access->roots ? allow_redirect : NULL,
                                         .context = (void *)access};
    struct mf_download_result result;
    struct mf_error reason;
    char shown[600];
    enum mf_status status = mf_download(&options, &download, &result, &reason);
    mf_text_free(&result.body);
    if (!status)
        return MF_OK;
    mf_redact(dataset, shown, sizeof shown);
    shown[strcspn(shown, "?")] = 0; /* a signed URL is a secret */
    const int answer = result.status;
    if (status == MF_ERROR_HTTP && (answer == 401 || answer == 403 || answer == 404 || answer == 410))
        status = MF_ERROR_DATASET_NOT_FOUND;
    return mf_error_set(error, status, "dataset: %s: %s", shown, reason.message);
}

static enum mf_status fetch_s3(const struct mf_access *access, const char *dataset, int descriptor,
                               int64_t limit_bytes, struct mf_error *error) {
    const struct mf_s3_options options = {.endpoint = access->s3_endpoint,
                                          .region = access->s3_region,
                                          .ca_file = access->ca_file,
                                          .cancelled = access->cancelled,
                                          .cancelled_context = access->context};
    char bucket[MF_S3_BUCKET_BYTES];
    const char *key;
    struct mf_s3 *s3 = NULL;
    bool found = false;
    if (!mf_s3_uri_split(dataset, bucket, &key) || !*key)
        return mf_error_set(error, MF_ERROR_DATASET_NOT_FOUND, "dataset: '%.500s' is not s3://bucket/key",
                            dataset);
    enum mf_status status = mf_s3_open(&options, &s3, error);
    if (!status)
        status = mf_s3_get(s3, bucket, key, descriptor, limit_bytes, &found, error);
    mf_s3_close(s3);
    if (!status && !found)
        status = mf_error_set(error, MF_ERROR_DATASET_NOT_FOUND, "dataset: there is no %.500s", dataset);
    return status;
}

/* Into a file of its own that gets its name when it is whole. */
static enum mf_status fetch(const struct mf_access *access, const char *dataset, const char *folder,
                            int64_t limit_bytes, struct mf_opened *opened, struct mf_error *error) {
    char *path = mf_path_join(folder, "dataset");
    struct mf_atomic_file file;
    if (!path)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    enum mf_status status = mf_directory_create(folder, 0700, error);
    if (!status && !(status = mf_atomic_file_open(path, 0600, &file, error))) {
        status = begins(dataset, https) ? fetch_https(access, dataset, file.descriptor, limit_bytes, error)
                                        : fetch_s3(access, dataset, file.descriptor, limit_bytes, error);
        if (status)
            mf_atomic_file_abandon(&file);
        else
            status = mf_atomic_file_commit(&file, error);
    }
    if (status && access->cancelled && access->cancelled(access->context))
        status = mf_error_set(error, MF_ERROR_CANCELLED, "cancelled while the dataset was fetched");
    if (!status && (opened->descriptor = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        status = mf_error_errno(error, errno, "%s", path);
    free(path);
    return status;
}

enum mf_status mf_access_dataset(const struct mf_access *access, const char *dataset, const char *folder,
                                 int64_t limit_bytes, struct mf_opened *opened, struct mf_error *error) {
    enum mf_status status;
    char shown[600];
    *opened = (struct mf_opened){.descriptor = -1};
    const bool at_url = begins(dataset, https) || begins(dataset, s3_scheme);
    if (!at_url && strstr(dataset, "://"))
        return mf_error_set(error, MF_ERROR_DATASET_NOT_FOUND,
                            "dataset: '%s' is neither a path nor https:// or s3://, which can be fetched",
                            mf_redact(dataset, shown, sizeof shown));
    if (!at_url)
        status = open_file(access, dataset, opened, error);
    else if (!allows_url(access, dataset))
        status = dataset_forbidden(dataset, error);
    else
        status = fetch(access, dataset, folder, limit_bytes, opened, error);
    if (!status)
        snprintf(opened->path, sizeof opened->path, "/proc/self/fd/%d", opened->descriptor);
    return status;
}

void mf_access_close(struct mf_opened *opened) {
    if (*opened->path && opened->descriptor >= 0)
        close(opened->descriptor);
    *opened = (struct mf_opened){.descriptor = -1};
}
