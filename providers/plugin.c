#include "providers/plugin.h"

#include "common/answer.h"
#include "common/json.h"
#include "common/process.h"
#include "common/text.h"
#include "common/trusted.h"
#include "providers/places.h"
#include "providers/registry.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { ANSWER_BYTES = 4 << 20, ANSWER_DESCRIPTOR = 3, TEXT_BYTES = 400 };

/* Up to the last member of the first version of the ABI. */
#define SIZE_TO(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))
enum {
    PROVIDER_BYTES = SIZE_TO(struct mf_provider, load_tokenizer),
    CAPABILITY_BYTES = SIZE_TO(struct mf_capability, reason)
};

static enum mf_status refuse(struct mf_error *error, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static enum mf_status refuse(struct mf_error *error, const char *path, const char *format, ...) {
    char text[TEXT_BYTES * 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%s %s", path, text);
    return MF_ERROR_PROVIDER_UNAVAILABLE;
}

/* ---- what a provider says of itself ---- */

static json_t *row_json(const struct mf_capability *row) {
    return !row->architecture || !row->task || !row->strategy || !row->reason ||
                   row->level > MF_CAPABILITY_SUPPORTED
               ? NULL
               : json_pack("{s:s, s:s, s:s, s:s, s:s}", "architecture", row->architecture, "task", row->task,
                           "strategy", row->strategy, "level",
                           mf_capability_level_name((enum mf_capability_level)row->level), "reason",
                           row->reason);
}

static enum mf_status rows_json(const struct mf_capabilities *table, json_t **out, struct mf_error *error) {
    enum mf_status status = MF_OK;
    if (!table->row || table->stride < CAPABILITY_BYTES || !table->count ||
        table->count > MF_PLUGIN_MAX_CAPABILITIES) {
        mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                     "its table of capabilities has %llu rows of %u bytes; 1 to %d rows of at least %d bytes "
                     "are allowed",
                     table->row ? (unsigned long long)table->count : 0ULL, table->stride,
                     MF_PLUGIN_MAX_CAPABILITIES, (int)CAPABILITY_BYTES);
        return MF_ERROR_PROVIDER_UNAVAILABLE;
    }
    json_t *rows = json_array();
    for (uint64_t i = 0; i < table->count && status == MF_OK; i++) {
        const char *at = (const char *)table->row + i * table->stride;
        if (json_array_append_new(rows, row_json((const struct mf_capability *)(const void *)at)))
            status = mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                                  "row %llu of its capabilities lacks a text, is not UTF-8, or has a level "
                                  "that there is not",
                                  (unsigned long long)i + 1);
    }
    if (status == MF_OK)
        *out = rows;
    else
        json_decref(rows);
    return status;
}

/* A provider that cannot run on a kind of device says why; that is no fault. */
static enum mf_status device_json(const struct mf_provider *provider, uint32_t kind, json_t **out,
                                  struct mf_error *error) {
    const struct mf_device device = {.size = sizeof device, .kind = kind};
    struct mf_capabilities table = {.size = sizeof table};
    struct mf_error why = {0};
    json_t *rows = NULL;
    if (provider->capabilities(&device, &table, &why)) {
        *out = json_pack("{s:b, s:s, s:s}", "available", 0, "code", mf_status_code(why.status), "reason",
                         *why.message ? why.message : "it does not say why");
        return *out ? MF_OK
                    : mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "its reason is not UTF-8 text");
    }
    const enum mf_status status = rows_json(&table, &rows, error);
    if (status == MF_OK)
        *out = json_pack("{s:b, s:o}", "available", 1, "capabilities", rows);
    return status;
}

enum mf_status mf_plugin_describe(const struct mf_provider *provider, json_t **out, struct mf_error *error) {
    json_t *cpu = NULL, *cuda = NULL;
    enum mf_status status = device_json(provider, MF_DEVICE_CPU, &cpu, error);
    if (status == MF_OK)
        status = device_json(provider, MF_DEVICE_CUDA, &cuda, error);
    if (status == MF_OK)
        *out = json_pack("{s:O, s:O}", "cpu", cpu, "cuda", cuda);
    json_decref(cpu);
    json_decref(cuda);
    return status;
}

/* ---- loading ---- */

/* Before any of its functions is called. */
static enum mf_status check_struct(const struct mf_provider *provider, const char *name, const char *path,
                                   struct mf_error *error) {
    if (!provider)
        return refuse(error, path,
                      "does not work with this program: its mf_provider_entry returned NULL (the host has "
                      "version %d of the ABI)",
                      MF_PROVIDER_ABI);
    if (provider->abi_version != MF_PROVIDER_ABI)
        return refuse(error, path, "has version %u of the provider ABI, this program version %d: rebuild it",
                      provider->abi_version, MF_PROVIDER_ABI);
    if (provider->size < PROVIDER_BYTES)
        return refuse(error, path, "offers a struct mf_provider of %u bytes, fewer than the %d of the ABI",
                      provider->size, (int)PROVIDER_BYTES);
    if (!provider->get_provider_name || !provider->capabilities || !provider->validate_model_access ||
        !provider->load_model || !provider->load_tokenizer)
        return refuse(error, path, "lacks a function of struct mf_provider");
    const char *own = provider->get_provider_name();
    if (!own || strcmp(own, name) != 0)
        return refuse(error, path, "calls itself '%.64s', not '%s' as its file does", own ? own : "(NULL)",
                      name);
    return MF_OK;
}

static enum mf_status open_library(const char *name, const char *path, const struct mf_host_api *host,
                                   const struct mf_provider **out, struct mf_error *error) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        return refuse(error, path, "cannot be loaded: %.*s", TEXT_BYTES, why ? why : "no reason given");
    }
    mf_provider_entry_function *entry = NULL;
    void *symbol = dlsym(library, "mf_provider_entry");
    memcpy(&entry, &symbol, sizeof entry); /* POSIX: an object pointer that holds a function's address */
    if (!entry)
        return refuse(error, path, "exports no symbol mf_provider_entry");
    *out = entry(MF_PROVIDER_ABI, host);
    return check_struct(*out, name, path, error);
}

/* ---- the trial ---- */

static void leave_quietly(void) {
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTERM, SIGINT, SIGALRM, SIGPIPE};
    const struct rlimit none = {0, 0};
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        signal(fatal[i], SIG_DFL);
    setrlimit(RLIMIT_CORE, &none);
    setpgid(0, 0); /* so that what it starts ends with it */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* In the child: loads the library and writes what it says, or what is wrong with it. Does not return. */
static _Noreturn void try_in_child(const char *name, const char *path, const struct mf_host_api *host,
                                   int answer) {
    struct mf_error error = {0};
    const struct mf_provider *provider = NULL;
    json_t *devices = NULL;
    leave_quietly();
    const int nothing = open("/dev/null", O_RDWR);
    if (nothing < 0 || (answer != ANSWER_DESCRIPTOR && dup2(answer, ANSWER_DESCRIPTOR) < 0) ||
        dup2(nothing, 0) < 0 || dup2(nothing, 1) < 0 || dup2(nothing, 2) < 0 ||
        close_range(ANSWER_DESCRIPTOR + 1, ~0U, 0))
        _exit(126);
    enum mf_status status = open_library(name, path, host, &provider, &error);
    if (status == MF_OK && provider && (status = mf_plugin_describe(provider, &devices, &error)) != MF_OK)
        mf_error_prefix(&error, "%s", path);
    json_t *text = status == MF_OK ? json_pack("{s:O}", "devices", devices)
                                   : json_pack("{s:s}", "refused", error.message);
    const int failed = !text || json_dumpfd(text, ANSWER_DESCRIPTOR, JSON_COMPACT);
    _exit(failed ? 125 : 0);
}

static int64_t seconds_allowed(void) {
    const char *text = getenv("MODELFORGE_TRAINER_PROVIDER_SECONDS");
    char *end = NULL;
    const long value = text ? strtol(text, &end, 10) : 0;
    return text && *text && !*end && value >= 1 && value <= 3600 ? value : MF_PLUGIN_SECONDS;
}

static enum mf_status judge(const char *path, const struct mf_process_exit *exit,
                            const struct mf_text *answer, json_t **devices, struct mf_error *error) {
    char how[128];
    json_t *object = NULL;
    struct mf_error ignored;
    const bool parsed =
        answer->length && mf_json_parse(answer->data, answer->length, path, &object, &ignored) == MF_OK;
    const char *refused = json_string_value(json_object_get(object, "refused"));
    json_t *described = json_object_get(object, "devices");
    enum mf_status status = MF_OK;
    if (exit->signal || exit->code || !parsed || (!refused && !json_is_object(described)))
        status =
            refuse(error, path, "%s while it was loaded: %s", exit->signal ? "crashed" : "ended the process",
                   mf_process_exit_text(exit, how, sizeof how));
    else if (refused)
        status = mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%s", refused);
    else if (devices)
        *devices = json_incref(described);
    json_decref(object);
    return status;
}

static enum mf_status try_library(const char *name, const char *path, const struct mf_host_api *host,
                                  json_t **devices, struct mf_error *error) {
    const int64_t seconds = seconds_allowed();
    struct mf_text answer = {0};
    struct mf_process process = {0};
    struct mf_process_exit exit;
    enum mf_answer end;
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC))
        return mf_error_errno(error, errno, "a pipe to try %s", path);
    process.pid = fork();
    if (process.pid == 0)
        try_in_child(name, path, host, pipes[1]);
    close(pipes[1]);
    if (process.pid < 0) {
        close(pipes[0]);
        return mf_error_errno(error, errno, "a process to try %s", path);
    }
    setpgid(process.pid, process.pid); /* the child does the same; whoever is first */
    enum mf_status status =
        mf_answer_read(&process, pipes[0], ANSWER_BYTES, seconds * 1000, &answer, &exit, &end, error);
    close(pipes[0]);
    if (status == MF_OK && end == MF_ANSWER_TOO_LATE)
        status = refuse(error, path, "was not loaded within %lld s", (long long)seconds);
    else if (status == MF_OK && end == MF_ANSWER_TOO_LONG)
        status = refuse(error, path, "said more than %d bytes while it was loaded", ANSWER_BYTES);
    else if (status == MF_OK)
        status = judge(path, &exit, &answer, devices, error);
    mf_text_free(&answer);
    return status;
}

/* Who runs with the trainer's rights has to be named, and nobody else may write it. */
static enum mf_status check_trust(const char *name, const char *path, char **real, struct mf_error *error) {
    if (!mf_provider_is_trusted(name))
        return refuse(error, path,
                      "is not tried: a shared library runs as the user of this program; name '%s' in "
                      "providers.trusted (MODELFORGE_TRAINER_PROVIDERS_TRUSTED) if it may",
                      name);
    return mf_path_check_trusted(path, real, error);
}

enum mf_status mf_plugin_try(const char *name, const char *path, const struct mf_host_api *host,
                             json_t **devices, struct mf_error *error) {
    char *real = NULL;
    enum mf_status status = check_trust(name, path, &real, error);
    if (status == MF_OK)
        status = try_library(name, real, host, devices, error);
    free(real);
    return status;
}

enum mf_status mf_plugin_load(const char *name, const char *path, const struct mf_host_api *host,
                              const struct mf_provider **out, struct mf_error *error) {
    char *real = NULL;
    *out = NULL;
    enum mf_status status = check_trust(name, path, &real, error);
    if (status == MF_OK)
        status = try_library(name, real, host, NULL, error);
    if (status == MF_OK)
        status = open_library(name, real, host, out, error);
    if (status != MF_OK)
        *out = NULL;
    free(real);
    return status;
}
