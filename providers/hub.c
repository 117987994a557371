#include "providers/hub.h"

#include "common/clock.h"
#include "common/digest.h"
#include "common/download.h"
#include "common/files.h"
#include "common/json.h"
#include "common/text.h"
#include "providers/folder.h"
#include "providers/hub_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INDEX_BYTES = 64 << 20, MAX_FILES = 4096, PROGRESS_MS = 2000, LOCK_LOOK_MS = 200, SHA1_DIGITS = 40 };
#define LARGEST_FILE (INT64_C(1) << 42) /* of one whose size the hub does not say */

struct snapshot {
    const struct mf_hub_reference *reference;
    const struct mf_hub_watch *watch;
    struct mf_hub_settings settings;
    struct mf_hub_client client;
    char *repository; /* CACHE/models--organisation--name */
    char *folder;     /* its snapshots/COMMIT; NULL before the commit is known */
    char commit[MF_HUB_COMMIT_BYTES];
    json_t *files; /* names at the hub; NULL: not asked */
    /* the file under way */
    const char *name;
    int descriptor;
    int64_t total_bytes, next_progress_ms;
};

/* ---- names ------------------------------------------------------------------------------------------- */

static bool id_valid(const char *id) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    const char *slash = strchr(id, '/');
    size_t first = strspn(id, letters), length = strlen(id);
    if (!first || length >= MF_HUB_ID_BYTES || strstr(id, "--") || strstr(id, "..") || *id == '.' ||
        *id == '-')
        return false;
    if (!slash)
        return first == length;
    size_t second = strspn(slash + 1, letters);
    return id + first == slash && second && !slash[1 + second] && slash[1] != '.' && slash[1] != '-';
}

static bool revision_valid(const char *revision) {
    size_t length = strlen(revision);
    if (!length || length >= MF_HUB_REVISION_BYTES || *revision == '/' || *revision == '.' ||
        *revision == '-' || revision[length - 1] == '/' || strstr(revision, "..") || strstr(revision, "//"))
        return false;
    for (const char *c = revision; *c; c++)
        if ((unsigned char)*c <= ' ' || (unsigned char)*c > '~' || strchr("\\:?*[^~%#", *c))
            return false;
    return true;
}

static const char scheme[] = "hf://";

bool mf_hub_is_id(const char *model_name) {
    char id[MF_HUB_ID_BYTES];
    struct stat about;
    if (!strncmp(model_name, scheme, strlen(scheme)))
        return true;
    size_t length = strcspn(model_name, "@");
    if (length >= sizeof id || !strchr(model_name, '/') || !lstat(model_name, &about))
        return false;
    snprintf(id, sizeof id, "%.*s", (int)length, model_name);
    return id_valid(id);
}

/* "organisation/name/FILE.gguf", of `length` bytes: splits it; false: it is no such name. */
static bool parse_file(const char *name, size_t length, struct mf_hub_reference *reference) {
    static const char end[] = ".gguf";
    char text[MF_HUB_ID_BYTES + MF_HUB_FILE_BYTES];
    if (length >= sizeof text)
        return false;
    snprintf(text, sizeof text, "%.*s", (int)length, name);
    char *slash = strchr(text, '/'), *file = slash ? strchr(slash + 1, '/') : NULL;
    if (!file || length < sizeof end || strcmp(text + length - (sizeof end - 1), end) != 0)
        return false;
    *file++ = '\0';
    if (strlen(text) >= sizeof reference->id || strlen(file) >= sizeof reference->file ||
        !revision_valid(file))
        return false; /* what a revision may be called, a path may, too */
    snprintf(reference->id, sizeof reference->id, "%s", text);
    snprintf(reference->file, sizeof reference->file, "%s", file);
    return true;
}

enum mf_status mf_hub_parse(const char *model_name, const char *revision, struct mf_hub_reference *reference,
                            struct mf_error *error) {
    const char *name = model_name + (strncmp(model_name, scheme, strlen(scheme)) ? 0 : strlen(scheme));
    const char *at = strchr(name, '@');
    size_t length = at ? (size_t)(at - name) : strlen(name);
    *reference = (struct mf_hub_reference){0};
    if (!parse_file(name, length, reference) && length < sizeof reference->id)
        memcpy(reference->id, name, length);
    if (!id_valid(reference->id)) /* one that is too long is "" */
        return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                            "model_name: '%.300s' is not of the form hf://organisation/name@revision, or "
                            "hf://organisation/name/FILE.gguf@revision",
                            model_name);
    const char *wanted = at ? at + 1 : revision ? revision : "main";
    if (at && revision && strcmp(at + 1, revision) != 0)
        return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                            "revision: '%.200s' is not the revision in model_name '%.300s'; give it once",
                            revision, model_name);
    if (!revision_valid(wanted))
        return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                            "revision: '%.200s' is not the name of a branch, a tag or a commit", wanted);
    snprintf(reference->revision, sizeof reference->revision, "%s", wanted);
    return MF_OK;
}

static bool is_commit(const char *text) {
    return strlen(text) == MF_HUB_COMMIT_BYTES - 1 &&
           strspn(text, "0123456789abcdef") == MF_HUB_COMMIT_BYTES - 1;
}

/* ---- the cache --------------------------------------------------------------------------------------- */

static enum mf_status no_memory(struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the model hub");
}

/* REPOSITORY/a/b; freed by the caller; NULL: memory. */
static char *cache_path(const struct snapshot *snapshot, const char *a, const char *b) {
    char *path = NULL;
    return asprintf(&path, "%s/%s/%s", snapshot->repository, a, b) < 0 ? NULL : path;
}

static enum mf_status make_parent(const char *path, struct mf_error *error) {
    char *parent = path ? strdup(path) : NULL;
    if (!parent)
        return no_memory(error);
    *strrchr(parent, '/') = 0;
    enum mf_status status = mf_directory_create(parent, 0755, error);
    free(parent);
    return status;
}

static enum mf_status set_commit(struct snapshot *snapshot, const char *commit, struct mf_error *error) {
    snprintf(snapshot->commit, sizeof snapshot->commit, "%s", commit);
    snapshot->folder = cache_path(snapshot, "snapshots", snapshot->commit);
    return snapshot->folder ? MF_OK : no_memory(error);
}

/* The commit that the revision was when it was last asked for; false: never. */
static bool known_commit(const struct snapshot *snapshot, char commit[MF_HUB_COMMIT_BYTES]) {
    char *path = cache_path(snapshot, "refs", snapshot->reference->revision), *text = NULL;
    struct mf_error ignored;
    bool known = path && !mf_file_read(path, 256, &text, NULL, &ignored);
    if (known)
        text[strcspn(text, " \r\n")] = 0;
    known = known && is_commit(text);
    if (known)
        memcpy(commit, text, MF_HUB_COMMIT_BYTES);
    free(text);
    free(path);
    return known;
}

/* As Hugging Face's library writes it: the commit alone. */
static enum mf_status remember_commit(const struct snapshot *snapshot, struct mf_error *error) {
    char before[MF_HUB_COMMIT_BYTES];
    if (!strcmp(snapshot->reference->revision, snapshot->commit) ||
        (known_commit(snapshot, before) && !strcmp(before, snapshot->commit)))
        return MF_OK;
    char *path = cache_path(snapshot, "refs", snapshot->reference->revision);
    enum mf_status status = path ? make_parent(path, error) : no_memory(error);
    if (!status)
        status = mf_file_write_atomic(path, snapshot->commit, strlen(snapshot->commit), 0644, error);
    free(path);
    return status;
}

static bool is_there(const struct snapshot *snapshot, const char *name) {
    char *path = mf_path_join(snapshot->folder, name);
    bool there = path && mf_path_exists(path);
    free(path);
    return there;
}

static bool is_complete(const struct snapshot *snapshot) {
    if (*snapshot->reference->file)
        return is_there(snapshot, snapshot->reference->file);
    const struct mf_model_reference folder = {.size = sizeof folder, .model_id = snapshot->folder};
    struct mf_error why;
    return !mf_folder_check(&folder, &why);
}

static void note(const struct snapshot *snapshot, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void note(const struct snapshot *snapshot, const char *format, ...) {
    struct mf_text text = {0};
    va_list arguments;
    char line[1024];
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    mf_text_puts(&text, line);
    if (snapshot->watch->note)
        snapshot->watch->note(snapshot->watch->context, mf_text_string(&text));
    mf_text_free(&text);
}

/* ---- one file ---------------------------------------------------------------------------------------- */

/* Asked by the transfer about once a second: also the place to say how far it is. */
static bool watch_transfer(void *context) {
    struct snapshot *snapshot = context;
    const struct mf_hub_watch *watch = snapshot->watch;
    struct stat about;
    const int64_t now_ms = mf_clock_monotonic_ms();
    if (watch->progress && snapshot->descriptor >= 0 && now_ms >= snapshot->next_progress_ms &&
        !fstat(snapshot->descriptor, &about)) {
        snapshot->next_progress_ms = now_ms + PROGRESS_MS;
        watch->progress(watch->context, snapshot->name, (int64_t)about.st_size, snapshot->total_bytes);
    }
    return watch->cancelled && watch->cancelled(watch->context);
}

/* The lock that Hugging Face's library takes, so that two downloads of a blob do not mix. */
static enum mf_status lock_blob(struct snapshot *snapshot, const char *etag, int *lock,
                                struct mf_error *error) {
    char *path = NULL;
    const char *slash = strrchr(snapshot->repository, '/');
    if (asprintf(&path, "%s/.locks/%s/%s.lock", snapshot->settings.cache, slash + 1, etag) < 0)
        return no_memory(error);
    enum mf_status status = make_parent(path, error);
    if (!status && (*lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)) < 0)
        status = mf_error_errno(error, errno, "%s", path);
    while (!status && flock(*lock, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK)
            break; /* a file system without locks: the hash is checked all the same */
        poll(NULL, 0, LOCK_LOOK_MS);
        if (watch_transfer(snapshot))
            status =
                mf_error_set(error, MF_ERROR_CANCELLED, "cancelled while another download was waited for");
    }
    free(path);
    return status;
}

/* git's name of a file: the sha1 of "blob SIZE", a NUL and its bytes. */
static enum mf_status git_sha1(int descriptor, int64_t size, char text[2 * MF_SHA1_BYTES + 1],
                               struct mf_error *error) {
    static const size_t room = 1 << 16;
    struct mf_digest *digest = NULL;
    uint8_t result[MF_SHA1_BYTES];
    char head[64], *bytes = malloc(room);
    int length = snprintf(head, sizeof head, "blob %lld", (long long)size) + 1;
    enum mf_status status = bytes ? mf_digest_begin(MF_DIGEST_SHA1, &digest, error) : no_memory(error);
    if (!status)
        status = mf_digest_update(digest, head, (size_t)length, error);
    for (int64_t offset = 0; !status && offset < size;) {
        ssize_t n = pread(descriptor, bytes, room, (off_t)offset);
        if (n <= 0)
            status = mf_error_errno(error, n ? errno : EIO, "a downloaded file");
        else
            status = mf_digest_update(digest, bytes, (size_t)n, error);
        offset += n;
    }
    if (status)
        mf_digest_cancel(digest);
    else if (!(status = mf_digest_finish(digest, result, error)))
        mf_hex(result, sizeof result, text);
    free(bytes);
    return status;
}

/* Whether the bytes are those that the ETag names; an ETag of neither form proves nothing. */
static enum mf_status check_hash(const char *path, int descriptor, int64_t size, const char *etag, bool *fine,
                                 struct mf_error *error) {
    char text[MF_SHA256_TEXT_BYTES];
    const bool hexadecimal = strspn(etag, "0123456789abcdef") == strlen(etag);
    enum mf_status status = MF_OK;
    *fine = true;
    if (!hexadecimal || (strlen(etag) != MF_SHA256_TEXT_BYTES - 1 && strlen(etag) != SHA1_DIGITS))
        return MF_OK;
    if (strlen(etag) == SHA1_DIGITS)
        status = git_sha1(descriptor, size, text, error);
    else
        status = mf_file_sha256(path, text, NULL, error);
    *fine = !status && !strcmp(text, etag);
    return status;
}

/* What a transfer that ended badly means. */
static enum mf_status transfer_failed(const struct snapshot *snapshot, enum mf_status status,
                                      const struct mf_download_result *result, const struct mf_error *reason,
                                      struct mf_error *error) {
    const struct mf_hub_watch *watch = snapshot->watch;
    if (watch->cancelled && watch->cancelled(watch->context))
        return mf_error_set(error, MF_ERROR_CANCELLED, "cancelled while the model was downloaded");
    if (status == MF_ERROR_HTTP && result->status >= 400) {
        const struct mf_http_response response = {.status = result->status};
        return mf_hub_refused(&snapshot->client, &response, snapshot->reference->id, snapshot->name, error);
    }
    if (status == MF_ERROR_HTTP)
        return mf_error_set(error, MF_ERROR_HUB, "model hub: %s of %s: %s", snapshot->name,
                            snapshot->reference->id, reason->message);
    return mf_error_set(error, status, "%s of %s: %s", snapshot->name, snapshot->reference->id,
                        reason->message);
}

/* Fetches into the open file, from where it ends, and checks it. */
static enum mf_status transfer(struct snapshot *snapshot, const char *url, const struct mf_hub_file *file,
                               const char *path, struct mf_error *error) {
    const char *const headers[] = {"Accept-Encoding: identity", snapshot->client.authorization, NULL};
    const struct mf_download download = {.url = url,
                                         .headers = headers,
                                         .descriptor = snapshot->descriptor,
                                         .limit_bytes =
                                             file->size_bytes >= 0 ? file->size_bytes : LARGEST_FILE,
                                         .expected_bytes = file->size_bytes,
                                         .redirects = 5};
    for (int round = 0;; round++) {
        struct mf_download_result result;
        struct mf_error reason;
        bool fine = false;
        enum mf_status status = mf_download(&snapshot->client.options, &download, &result, &reason);
        if (status)
            status = transfer_failed(snapshot, status, &result, &reason, error);
        else
            status = check_hash(path, snapshot->descriptor, result.size_bytes, file->etag, &fine, error);
        mf_text_free(&result.body);
        if (status || fine)
            return status;
        /* a part of another download, or a damaged one: once more from the beginning */
        if (ftruncate(snapshot->descriptor, 0))
            return mf_error_errno(error, errno, "%s", path);
        if (round)
            return mf_error_set(error, MF_ERROR_HUB,
                                "model hub: %s of %s does not have the hash that it is named by",
                                snapshot->name, snapshot->reference->id);
    }
}

/* The blob, downloaded when it is not there. */
static enum mf_status fetch_blob(struct snapshot *snapshot, const char *url, const struct mf_hub_file *file,
                                 const char *blob, struct mf_error *error) {
    char *partial = NULL;
    int lock = -1;
    if (asprintf(&partial, "%s.incomplete", blob) < 0)
        return no_memory(error);
    enum mf_status status = make_parent(blob, error);
    if (!status)
        status = lock_blob(snapshot, file->etag, &lock, error);
    if (!status && !mf_path_exists(blob)) {
        snapshot->total_bytes = file->size_bytes;
        snapshot->next_progress_ms = 0;
        snapshot->descriptor = open(partial, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (snapshot->descriptor < 0)
            status = mf_error_errno(error, errno, "%s", partial);
        if (!status)
            status = transfer(snapshot, url, file, partial, error);
        if (!status && (fsync(snapshot->descriptor) || rename(partial, blob)))
            status = mf_error_errno(error, errno, "%s", blob);
        if (snapshot->descriptor >= 0)
            close(snapshot->descriptor);
        snapshot->descriptor = -1;
    }
    if (lock >= 0)
        close(lock);
    free(partial);
    return status;
}

/* snapshots/COMMIT/name -> ../../blobs/ETAG, one "../" more for each folder in the name. */
static enum mf_status link_blob(const struct snapshot *snapshot, const char *etag, struct mf_error *error) {
    char *path = mf_path_join(snapshot->folder, snapshot->name);
    struct mf_text target = {0};
    for (const char *slash = snapshot->name; (slash = strchr(slash, '/')); slash++)
        mf_text_puts(&target, "../");
    mf_text_printf(&target, "../../blobs/%s", etag);
    enum mf_status status = mf_text_status(&target, error);
    if (!status && !path)
        status = no_memory(error);
    if (!status)
        status = make_parent(path, error);
    if (!status && path && symlink(mf_text_string(&target), path) && errno != EEXIST)
        status = mf_error_errno(error, errno, "%s", path);
    mf_text_free(&target);
    free(path);
    return status;
}

static enum mf_status fetch_file(struct snapshot *snapshot, const char *name, struct mf_error *error) {
    struct mf_hub_file file;
    char *url = NULL, *blob = NULL;
    if (is_there(snapshot, name))
        return MF_OK;
    snapshot->name = name;
    enum mf_status status =
        mf_hub_file(&snapshot->client, snapshot->reference->id, snapshot->commit, name, &file, &url, error);
    if (!status)
        blob = cache_path(snapshot, "blobs", file.etag);
    if (!status && !blob)
        status = no_memory(error);
    else if (!status)
        status = fetch_blob(snapshot, url, &file, blob, error);
    if (!status)
        status = link_blob(snapshot, file.etag, error);
    free(blob);
    free(url);
    return status;
}

/* ---- which files ------------------------------------------------------------------------------------- */

static bool has_file(const struct snapshot *snapshot, const char *name) {
    size_t i;
    const json_t *file;
    json_array_foreach(
        snapshot->files, i,
        file) if (!strcmp(json_string_value(json_object_get(file, "rfilename")), name)) return true;
    return false;
}

static const char single[] = "model.safetensors", sharded[] = "model.safetensors.index.json";

static bool is_gguf(const char *name) {
    const size_t length = strlen(name);
    return length > 5 && !strcmp(name + length - 5, ".gguf");
}

/* The GGUF file that is meant. */
static enum mf_status check_file(const struct snapshot *snapshot, struct mf_error *error) {
    struct mf_text there = {0};
    size_t i;
    const json_t *file;
    if (has_file(snapshot, snapshot->reference->file))
        return MF_OK;
    json_array_foreach(snapshot->files, i, file) {
        const char *name = json_string_value(json_object_get(file, "rfilename"));
        if (is_gguf(name) && there.length < 500)
            mf_text_printf(&there, "%s%.100s", there.length ? ", " : "", name);
    }
    const enum mf_status status = mf_error_set(
        error, MF_ERROR_MODEL_NOT_FOUND, "model_name: %s has no file %s at its hub (GGUF files there: %s)",
        snapshot->reference->id, snapshot->reference->file, there.length ? mf_text_string(&there) : "none");
    mf_text_free(&there);
    return status;
}

static enum mf_status check_files(const struct snapshot *snapshot, struct mf_error *error) {
    static const char *const needed[] = {"config.json", "tokenizer.json"};
    const char *id = snapshot->reference->id, *missing = NULL;
    if (*snapshot->reference->file)
        return check_file(snapshot, error);
    for (size_t i = 0; i < sizeof needed / sizeof *needed && !missing; i++)
        missing = has_file(snapshot, needed[i]) ? NULL : needed[i];
    if (missing)
        return mf_error_set(
            error, MF_ERROR_MODEL_INCOMPLETE,
            "model_name: %s has no %s at its hub; choose a model that was saved with save_pretrained "
            "and its fast tokenizer",
            id, missing);
    if (has_file(snapshot, single) || has_file(snapshot, sharded))
        return MF_OK;
    size_t i;
    const json_t *file;
    json_array_foreach(snapshot->files, i, file) {
        const char *name = json_string_value(json_object_get(file, "rfilename"));
        if (is_gguf(name))
            return mf_error_set(
                error, MF_ERROR_MODEL_INCOMPLETE,
                "model_name: %s holds GGUF files only; the provider gguf trains one: hf://%s/%.100s", id, id,
                name);
    }
    return mf_error_set(error, MF_ERROR_MODEL_INCOMPLETE,
                        "model_name: %s has no model.safetensors at its hub%s", id,
                        has_file(snapshot, "pytorch_model.bin")
                            ? "; pytorch_model.bin is not read, because loading a pickle runs code"
                            : "");
}

static enum mf_status fetch_shards(struct snapshot *snapshot, struct mf_error *error) {
    char *path = mf_path_join(snapshot->folder, sharded);
    json_t *index = NULL;
    struct mf_error reason;
    enum mf_status status = path ? MF_OK : no_memory(error);
    if (!status && mf_json_read_file(path, INDEX_BYTES, &index, &reason))
        status = mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s", reason.message);
    const char *tensor;
    json_t *file;
    json_object_foreach(json_object_get(index, "weight_map"), tensor, file) {
        const char *name = json_string_value(file);
        if (status)
            break;
        if (!name || strchr(name, '/') || *name == '.')
            status = mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: weight_map: %s: not the name of a file",
                                  path, tensor);
        else
            status = fetch_file(snapshot, name, error);
    }
    json_decref(index);
    free(path);
    return status;
}

static enum mf_status fetch_files(struct snapshot *snapshot, struct mf_error *error) {
    static const char *const names[] = {"config.json",
                                        "generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "chat_template.jinja",
                                        "vocab.json",
                                        "merges.txt",
                                        "vocab.txt",
                                        "tokenizer.model",
                                        "spiece.model",
                                        "preprocessor_config.json",
                                        "processor_config.json"};
    enum mf_status status = MF_OK;
    if (*snapshot->reference->file)
        return fetch_file(snapshot, snapshot->reference->file, error);
    for (size_t i = 0; !status && i < sizeof names / sizeof *names; i++)
        if (has_file(snapshot, names[i]))
            status = fetch_file(snapshot, names[i], error);
    if (!status && has_file(snapshot, single))
        return fetch_file(snapshot, single, error);
    if (!status)
        status = fetch_file(snapshot, sharded, error);
    return status ? status : fetch_shards(snapshot, error);
}

/* ---- the whole --------------------------------------------------------------------------------------- */

static void close_snapshot(struct snapshot *snapshot) {
    mf_hub_client_close(&snapshot->client);
    mf_hub_settings_free(&snapshot->settings);
    json_decref(snapshot->files);
    free(snapshot->repository);
    free(snapshot->folder);
}

static enum mf_status open_snapshot(const struct mf_hub_reference *reference,
                                    const struct mf_hub_watch *watch, struct snapshot *snapshot,
                                    struct mf_error *error) {
    static const struct mf_hub_watch nobody;
    struct mf_text path = {0};
    *snapshot = (struct snapshot){.reference = reference, .watch = watch ? watch : &nobody, .descriptor = -1};
    enum mf_status status = mf_hub_settings_load(&snapshot->settings, error);
    if (status)
        return status;
    mf_text_printf(&path, "%s/models--", snapshot->settings.cache);
    for (const char *c = reference->id; *c; c++)
        mf_text_puts(&path, *c == '/' ? "--" : (char[]){*c, 0});
    snapshot->repository = mf_text_take(&path);
    status = snapshot->repository
                 ? mf_hub_client_open(&snapshot->settings, watch_transfer, snapshot, &snapshot->client, error)
                 : no_memory(error);
    if (status)
        close_snapshot(snapshot);
    return status;
}

/* What the cache alone gives: the commit that is asked for or was known, with every file. */
static enum mf_status use_cache(struct snapshot *snapshot, bool *complete, struct mf_error *error) {
    char commit[MF_HUB_COMMIT_BYTES];
    const char *revision = snapshot->reference->revision;
    *complete = false;
    if (is_commit(revision))
        memcpy(commit, revision, sizeof commit);
    else if (!known_commit(snapshot, commit))
        return MF_OK;
    free(snapshot->folder);
    enum mf_status status = set_commit(snapshot, commit, error);
    *complete = !status && is_complete(snapshot);
    return status;
}

/* Learns the commit and the names of the files from the hub. */
static enum mf_status ask_hub(struct snapshot *snapshot, struct mf_error *error) {
    json_t *object = NULL;
    enum mf_status status = mf_hub_repository(&snapshot->client, snapshot->reference->id,
                                              snapshot->reference->revision, &object, error);
    if (!status) {
        snapshot->files = json_incref(json_object_get(object, "siblings"));
        free(snapshot->folder);
        status = set_commit(snapshot, json_string_value(json_object_get(object, "sha")), error);
    }
    json_decref(object);
    return status ? status : check_files(snapshot, error);
}

static enum mf_status not_cached(const struct snapshot *snapshot, struct mf_error *error) {
    return mf_error_set(
        error, MF_ERROR_MODEL_NOT_FOUND,
        "model_name: %s at revision %s is not whole in the cache %s, and HF_HUB_OFFLINE forbids to ask "
        "the hub",
        snapshot->reference->id, snapshot->reference->revision, snapshot->settings.cache);
}

/* Finds the commit; *ready: every file is in the cache. */
static enum mf_status find(struct snapshot *snapshot, bool *ready, struct mf_error *error) {
    enum mf_status status = use_cache(snapshot, ready, error);
    if (status || (*ready && is_commit(snapshot->reference->revision)))
        return status;
    if (snapshot->settings.offline)
        return *ready ? MF_OK : not_cached(snapshot, error);
    const bool was_ready = *ready;
    status = ask_hub(snapshot, error);
    if (status == MF_ERROR_HUB && was_ready) { /* as Hugging Face's library does, but said aloud */
        note(snapshot, "%s; using commit %s from the cache, which revision %s was when it was last asked for",
             error->message, snapshot->commit, snapshot->reference->revision);
        return MF_OK;
    }
    *ready = !status && is_complete(snapshot);
    return status;
}

enum mf_status mf_hub_check(const struct mf_hub_reference *reference, const struct mf_hub_watch *watch,
                            struct mf_error *error) {
    struct snapshot snapshot;
    struct mf_hub_file file;
    char *url = NULL;
    bool ready = false;
    enum mf_status status = open_snapshot(reference, watch, &snapshot, error);
    if (status)
        return status;
    status = find(&snapshot, &ready, error);
    if (!status && !ready) /* a gated model may be listed and not be read */
        status = mf_hub_file(&snapshot.client, reference->id, snapshot.commit,
                             *reference->file ? reference->file : "config.json", &file, &url, error);
    free(url);
    close_snapshot(&snapshot);
    return status;
}

enum mf_status mf_hub_snapshot(const struct mf_hub_reference *reference, const struct mf_hub_watch *watch,
                               char **folder, char commit[MF_HUB_COMMIT_BYTES], struct mf_error *error) {
    struct snapshot snapshot;
    bool ready = false;
    *folder = NULL;
    enum mf_status status = open_snapshot(reference, watch, &snapshot, error);
    if (status)
        return status;
    status = find(&snapshot, &ready, error);
    if (!status && !ready)
        status = fetch_files(&snapshot, error);
    if (!status && snapshot.files)
        status = remember_commit(&snapshot, error);
    if (!status) {
        memcpy(commit, snapshot.commit, MF_HUB_COMMIT_BYTES);
        *folder = *reference->file ? mf_path_join(snapshot.folder, reference->file) : strdup(snapshot.folder);
        status = *folder ? MF_OK : no_memory(error);
    }
    close_snapshot(&snapshot);
    return status;
}
