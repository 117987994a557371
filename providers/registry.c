#include "providers/registry.h"

#include "common/files.h"
#include "common/text.h"
#include "providers/external.h"
#include "providers/host.h"
#include "providers/huggingface/huggingface.h"
#include "providers/places.h"
#include "providers/plugin.h"
#include "providers/unsloth/unsloth.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_PREFIX "libmodelforge-provider-"
#define FILE_SUFFIX ".so"

static mf_provider_entry_function *const entries[] = {
    mf_huggingface_entry,
    mf_unsloth_entry,
};

enum {
    ENTRIES = sizeof entries / sizeof *entries,
    MAX_LOADED = 64,   /* of one process */
    ASKED_AT_ONCE = 16 /* programs */
};

/* Built-in ones, then the libraries that were loaded. */
static struct {
    pthread_mutex_t lock;
    bool entered;
    const struct mf_provider *provider[MAX_LOADED];
    struct {
        char *path; /* NULL: built in */
        char sha256[MF_SHA256_TEXT_BYTES];
    } library[MAX_LOADED];
    size_t count;
} known = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lock_known(void) {
    pthread_mutex_lock(&known.lock);
    for (size_t i = 0; i < ENTRIES && !known.entered; i++) {
        const struct mf_provider *provider = entries[i](MF_PROVIDER_ABI, mf_host());
        if (provider)
            known.provider[known.count++] = provider;
    }
    known.entered = true;
}

static const struct mf_provider *find_known(const char *name) {
    for (size_t i = 0; i < known.count; i++)
        if (!strcmp(known.provider[i]->get_provider_name(), name))
            return known.provider[i];
    return NULL;
}

/* ---- the plug-in folder ---- */

static bool name_valid(const char *name, size_t length) {
    if (length < 1 || length >= MF_PROVIDER_NAME_BYTES)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789_-", name[i]))
            return false;
    return true;
}

/* The path of a library of this name; freed by the caller; NULL: there is no such file. */
static char *library_of(const char *name) {
    char *folder = NULL, file[sizeof FILE_PREFIX + MF_PROVIDER_NAME_BYTES + sizeof FILE_SUFFIX];
    struct mf_error ignored;
    if (mf_providers_folder(&folder, &ignored) != MF_OK)
        return NULL;
    snprintf(file, sizeof file, "%s%s%s", FILE_PREFIX, name, FILE_SUFFIX);
    char *path = mf_path_join(folder, file);
    free(folder);
    if (path && !mf_path_exists(path)) {
        free(path);
        path = NULL;
    }
    return path;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct mf_provider_listing *)a)->name,
                  ((const struct mf_provider_listing *)b)->name);
}

/* A list that grows. */
struct listing {
    struct mf_provider_listing *row;
    size_t count, room;
    bool failed; /* memory ran out */
};

static struct mf_provider_listing *add_row(struct listing *list, enum mf_provider_kind kind, const char *name,
                                           size_t length) {
    if (list->count == list->room) {
        const size_t room = list->room ? 2 * list->room : 16;
        struct mf_provider_listing *row = realloc(list->row, room * sizeof *row);
        if (!row) {
            list->failed = true;
            return NULL;
        }
        list->row = row;
        list->room = room;
    }
    struct mf_provider_listing *row = &list->row[list->count++];
    *row = (struct mf_provider_listing){.kind = kind, .max_gpus = 1};
    memcpy(row->name, name, length); /* of a valid name: there is room for it and its NUL */
    return row;
}

static bool listed(const struct listing *list, const char *name, size_t length) {
    for (size_t i = 0; i < list->count; i++)
        if (!strncmp(list->row[i].name, name, length) && !list->row[i].name[length])
            return true;
    return false;
}

/* One that has the name of a built-in one is never found: it is not listed. */
static void add_libraries(const char *folder, struct listing *list) {
    const size_t first = list->count, prefix = sizeof FILE_PREFIX - 1, suffix = sizeof FILE_SUFFIX - 1;
    const struct dirent *file;
    DIR *directory = opendir(folder);
    while (directory && !list->failed && (file = readdir(directory))) {
        const size_t length = strlen(file->d_name);
        if (length <= prefix + suffix || strncmp(file->d_name, FILE_PREFIX, prefix) != 0 ||
            strcmp(file->d_name + length - suffix, FILE_SUFFIX) != 0 ||
            !name_valid(file->d_name + prefix, length - prefix - suffix) ||
            listed(list, file->d_name + prefix, length - prefix - suffix))
            continue;
        struct mf_provider_listing *row =
            add_row(list, MF_PROVIDER_LIBRARY, file->d_name + prefix, length - prefix - suffix);
        if (row && !(row->path = mf_path_join(folder, file->d_name)))
            list->failed = true;
    }
    if (directory)
        closedir(directory);
    if (list->count > first)
        qsort(list->row + first, list->count - first, sizeof *list->row, by_name);
}

/* One that has the name of a library or a built-in one is never found: it is not listed. */
static void add_programs(const char *folder, struct listing *list) {
    json_t *names = mf_external_names();
    const json_t *item;
    size_t i;
    list->failed |= !names;
    json_array_foreach(names, i, item) {
        const char *name = json_string_value(item);
        struct mf_provider_listing *row =
            listed(list, name, strlen(name)) ? NULL : add_row(list, MF_PROVIDER_PROGRAM, name, strlen(name));
        if (row && asprintf(&row->path, "%s/%s.conf", folder, name) < 0) {
            row->path = NULL;
            list->failed = true;
        }
    }
    json_decref(names);
}

/* ---- what programs say ---- */

/* What a program says holds for every device: it chooses itself. */
static void take_answer(struct mf_provider_listing *row, const json_t *answer) {
    const char *version = json_string_value(json_object_get(answer, "version"));
    json_t *device =
        json_is_true(json_object_get(answer, "available"))
            ? json_pack("{s:b, s:O}", "available", 1, "capabilities", json_object_get(answer, "capabilities"))
            : json_pack("{s:b, s:s, s:O}", "available", 0, "code",
                        mf_status_code(MF_ERROR_PROVIDER_UNAVAILABLE), "reason",
                        json_object_get(answer, "reason"));
    row->version = version ? strdup(version) : NULL;
    row->max_gpus = mf_external_max_gpus(answer);
    row->devices = json_pack("{s:O, s:O}", "cpu", device, "cuda", device);
    json_decref(device);
}

/* Programs to ask, by several threads. */
struct question {
    struct mf_provider_listing *row;
    struct mf_external *program; /* NULL: cannot be asked */
};
struct inquiry {
    struct question *question;
    size_t count;
    atomic_size_t next;
};

static void *ask_programs(void *argument) {
    struct inquiry *inquiry = argument;
    for (size_t i; (i = atomic_fetch_add(&inquiry->next, 1)) < inquiry->count;) {
        const struct question *question = &inquiry->question[i];
        json_t *answer = NULL;
        if (question->program && mf_external_ask(question->program, &answer, &question->row->error) == MF_OK)
            take_answer(question->row, answer);
        json_decref(answer);
    }
    return NULL;
}

/* The user database is read before the threads start. */
static enum mf_status describe_programs(struct mf_provider_listing *row, size_t count,
                                        struct mf_error *error) {
    struct inquiry inquiry = {.question = calloc(count + 1, sizeof *inquiry.question), .count = count};
    pthread_t thread[ASKED_AT_ONCE];
    size_t threads = 0;
    if (!inquiry.question)
        return mf_error_errno(error, ENOMEM, "the list of providers");
    for (size_t i = 0; i < count; i++) {
        inquiry.question[i].row = &row[i];
        (void)mf_external_find(row[i].name, &inquiry.question[i].program, &row[i].error);
    }
    while (threads + 1 < count && threads + 1 < ASKED_AT_ONCE &&
           pthread_create(&thread[threads], NULL, ask_programs, &inquiry) == 0)
        threads++;
    (void)ask_programs(&inquiry);
    for (size_t i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    for (size_t i = 0; i < count; i++)
        mf_external_free(inquiry.question[i].program);
    free(inquiry.question);
    return MF_OK;
}

static void add_built_in(struct listing *list) {
    lock_known();
    for (size_t i = 0; i < ENTRIES && i < known.count; i++) {
        const char *name = known.provider[i]->get_provider_name();
        struct mf_provider_listing *row = add_row(list, MF_PROVIDER_BUILT_IN, name, strlen(name));
        if (row)
            mf_plugin_describe(known.provider[i], &row->devices, &row->error);
    }
    pthread_mutex_unlock(&known.lock);
}

/* `but`: a library that is not tried again; NULL: none. */
static enum mf_status list_but(const char *but, struct mf_provider_listing **out, size_t *count,
                               struct mf_error *error) {
    struct listing list = {0};
    char *folder = NULL;
    add_built_in(&list);
    const size_t libraries = list.count;
    enum mf_status status = mf_providers_folder(&folder, error);
    if (status == MF_OK)
        add_libraries(folder, &list);
    const size_t programs = list.count;
    if (status == MF_OK)
        add_programs(folder, &list);
    if (status == MF_OK && list.failed)
        status = mf_error_errno(error, ENOMEM, "the list of providers");
    free(folder);
    for (size_t i = libraries; i < programs && status == MF_OK; i++)
        if (!but || strcmp(list.row[i].name, but) != 0)
            mf_plugin_try(list.row[i].name, list.row[i].path, mf_host(), &list.row[i].devices,
                          &list.row[i].error);
    if (status == MF_OK)
        status = describe_programs(list.row + programs, list.count - programs, error);
    if (status != MF_OK) {
        mf_provider_list_free(list.row, list.count);
        list = (struct listing){0};
    }
    *out = list.row;
    *count = list.count;
    return status;
}

enum mf_status mf_provider_list(struct mf_provider_listing **out, size_t *count, struct mf_error *error) {
    return list_but(NULL, out, count, error);
}

void mf_provider_list_free(struct mf_provider_listing *list, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(list[i].path);
        free(list[i].version);
        json_decref(list[i].devices);
    }
    free(list);
}

/* ---- by name ---- */

/* "huggingface, gguf": those that can be used, without the one that was just refused. */
static void name_valid_ones(const char *refused, struct mf_text *text) {
    struct mf_provider_listing *list = NULL;
    size_t count = 0;
    struct mf_error ignored;
    if (list_but(refused, &list, &count, &ignored) != MF_OK)
        return;
    for (size_t i = 0; i < count; i++)
        if (list[i].devices)
            mf_text_printf(text, "%s%s", text->length ? ", " : "", list[i].name);
    mf_provider_list_free(list, count);
}

static enum mf_status load_library(const char *name, const char *path, const struct mf_provider **out,
                                   struct mf_error *error) {
    if (known.count == MAX_LOADED)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%d providers are loaded already",
                            MAX_LOADED);
    char sha256[MF_SHA256_TEXT_BYTES], *own_path = strdup(path);
    enum mf_status status = own_path ? mf_plugin_load(name, path, mf_host(), out, error)
                                     : mf_error_errno(error, ENOMEM, "provider '%s'", name);
    if (status == MF_OK) /* of a file that nobody else may write */
        status = mf_file_sha256(path, sha256, NULL, error);
    if (status != MF_OK) {
        *out = NULL;
        free(own_path);
        return status;
    }
    known.library[known.count].path = own_path;
    memcpy(known.library[known.count].sha256, sha256, sizeof sha256);
    known.provider[known.count++] = *out;
    return MF_OK;
}

bool mf_provider_library(const struct mf_provider *provider, const char **path, const char **sha256) {
    bool found = false;
    lock_known();
    for (size_t i = 0; i < known.count && !found; i++) {
        if (known.provider[i] != provider || !known.library[i].path)
            continue;
        *path = known.library[i].path;
        *sha256 = known.library[i].sha256;
        found = true;
    }
    pthread_mutex_unlock(&known.lock);
    return found;
}

bool mf_provider_is_program(const char *name) {
    char *folder = NULL, *path = NULL, *library = NULL;
    struct mf_error ignored;
    bool is = name_valid(name, strlen(name)) && mf_providers_folder(&folder, &ignored) == MF_OK;
    lock_known();
    is = is && !find_known(name);
    pthread_mutex_unlock(&known.lock);
    if (is && (library = library_of(name)))
        is = false;
    if (is && asprintf(&path, "%s/%s.conf", folder, name) < 0)
        path = NULL;
    is = is && path && mf_path_exists(path);
    free(library);
    free(folder);
    free(path);
    return is;
}

enum mf_status mf_provider_find(const char *name, const struct mf_provider **out, struct mf_error *error) {
    const bool valid = name_valid(name, strlen(name));
    struct mf_text names = {0};
    struct mf_error why;
    char *path = NULL;
    enum mf_status status = MF_OK;
    *out = NULL;
    if (mf_provider_is_program(name))
        return mf_error_set(
            error, MF_ERROR_PROVIDER_UNSUPPORTED,
            "provider '%s' is a program of its own: it trains by modelforge-trainer run alone", name);
    lock_known();
    if (!(*out = find_known(name)) && valid && (path = library_of(name)))
        status = load_library(name, path, out, &why);
    pthread_mutex_unlock(&known.lock);
    if (!*out)
        name_valid_ones(status != MF_OK ? name : NULL, &names);
    if (status != MF_OK)
        mf_error_set(error, status, "provider '%s' cannot be used: %s. Valid providers: %s", name,
                     why.message, mf_text_string(&names));
    else if (!*out)
        status = mf_error_set(error, MF_ERROR_UNKNOWN_PROVIDER, "Unknown provider '%s'. Valid providers: %s",
                              name, mf_text_string(&names));
    mf_text_free(&names);
    free(path);
    return status;
}

/* ---- calling one ---- */

static enum mf_status settle(const struct mf_provider *provider, const char *function, int result, bool made,
                             struct mf_error *error) {
    if (result != MF_PROVIDER_OK && error->status != MF_OK)
        return error->status;
    if (result != MF_PROVIDER_OK)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                            "provider '%s' breaks the ABI: %s returned %d and did not say why",
                            provider->get_provider_name(), function, result);
    if (!made)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                            "provider '%s' breaks the ABI: %s succeeded without a result",
                            provider->get_provider_name(), function);
    return MF_OK;
}

enum mf_status mf_provider_validate_model_access(const struct mf_provider *provider,
                                                 struct mf_provider_context *context,
                                                 const struct mf_model_reference *reference,
                                                 struct mf_error *error) {
    error->status = MF_OK;
    const int result = provider->validate_model_access(context, reference, error);
    return settle(provider, "validate_model_access", result, true, error);
}

enum mf_status mf_provider_load_model(const struct mf_provider *provider, struct mf_provider_context *context,
                                      const struct mf_load_options *options, struct mf_model **out,
                                      struct mf_error *error) {
    error->status = MF_OK;
    *out = NULL;
    const int result = provider->load_model(context, options, out, error);
    if (result != MF_PROVIDER_OK)
        *out = NULL;
    return settle(provider, "load_model", result, *out != NULL, error);
}

enum mf_status mf_provider_load_tokenizer(const struct mf_provider *provider,
                                          struct mf_provider_context *context,
                                          const struct mf_model_reference *reference,
                                          struct mf_tokenizer **out, struct mf_error *error) {
    error->status = MF_OK;
    *out = NULL;
    const int result = provider->load_tokenizer(context, reference, out, error);
    if (result != MF_PROVIDER_OK)
        *out = NULL;
    return settle(provider, "load_tokenizer", result, *out != NULL, error);
}

/* ---- capabilities ---- */

static bool covers(const char *pattern, const char *name) {
    return !strcmp(pattern, "*") || !strcmp(pattern, name);
}

enum mf_status mf_provider_capability(const struct mf_provider *provider, const struct mf_device *device,
                                      const char *architecture, const char *task, const char *strategy,
                                      enum mf_capability_level *level, const char **reason,
                                      struct mf_error *error) {
    struct mf_capabilities table = {.size = sizeof table};
    *level = MF_CAPABILITY_UNSUPPORTED;
    error->status = MF_OK;
    const int result = provider->capabilities(device, &table, error);
    enum mf_status status = settle(provider, "capabilities", result, table.row != NULL, error);
    if (status || !table.row)
        return status;
    if (reason)
        *reason = "the provider does not know this combination";
    for (uint64_t i = 0; i < table.count; i++) {
        const struct mf_capability *row =
            (const struct mf_capability *)(const void *)((const char *)table.row + i * table.stride);
        if (!covers(row->architecture, architecture) || !covers(row->task, task) ||
            !covers(row->strategy, strategy))
            continue;
        *level = (enum mf_capability_level)row->level;
        if (reason)
            *reason = row->reason;
        break;
    }
    return MF_OK;
}

/* "llama (text-generation, sft), ...": the rows that are not unsupported, as many as there is room for. */
static void list_what_works(const struct mf_capabilities *table, char *text, size_t bytes) {
    size_t used = 0;
    *text = '\0';
    for (uint64_t i = 0; i < table->count && used + 1 < bytes; i++) {
        const struct mf_capability *row =
            (const struct mf_capability *)(const void *)((const char *)table->row + i * table->stride);
        if (row->level > MF_CAPABILITY_UNSUPPORTED)
            used += (size_t)snprintf(text + used, bytes - used, "%s%s (%s, %s)", used ? ", " : "",
                                     row->architecture, row->task, row->strategy);
    }
    if (used + 1 > bytes && bytes > 4)
        memcpy(text + bytes - 4, "...", 4);
}

enum mf_status mf_provider_require(const struct mf_provider *provider, const struct mf_device *device,
                                   const char *architecture, const char *task, const char *strategy,
                                   struct mf_error *error) {
    enum mf_capability_level level;
    const char *reason = "";
    enum mf_status status =
        mf_provider_capability(provider, device, architecture, task, strategy, &level, &reason, error);
    if (status || level > MF_CAPABILITY_UNSUPPORTED)
        return status;
    char works[600];
    struct mf_capabilities table = {.size = sizeof table};
    if (provider->capabilities(device, &table, error))
        return error->status;
    list_what_works(&table, works, sizeof works);
    return mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED,
                        "%s cannot train %s for %s with %s: %s. What it trains here: %s",
                        provider->get_provider_name(), architecture, task, strategy, reason,
                        *works ? works : "nothing");
}

const char *mf_capability_level_name(enum mf_capability_level level) {
    static const char *const names[] = {"unsupported", "experimental", "limited", "supported"};
    return (unsigned)level < sizeof names / sizeof *names ? names[level] : "unsupported";
}
