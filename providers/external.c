#include "providers/external.h"

#include "common/answer.h"
#include "common/config.h"
#include "common/files.h"
#include "common/json.h"
#include "common/text.h"
#include "common/trusted.h"
#include "providers/places.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PATIENCE_SECONDS = 60, LONGEST_SECONDS = 3600, MAX_CAPABILITIES = 4096, REASON_BYTES = 2000 };

static const char suffix[] = ".conf";

static const struct mf_option options[] = {
    {.name = "exec",
     .kind = MF_OPTION_STRING,
     .required = true,
     .meaning = "the program, and what it is always given, between blanks"},
    {.name = "environment.*", .kind = MF_OPTION_PREFIX, .meaning = "a variable of its environment"},
    {.name = "limit.file_bytes",
     .kind = MF_OPTION_INTEGER,
     .initial = "0",
     .minimum = 0,
     .maximum = 1e15,
     .meaning = "the largest file that it may write"},
    {.name = "limit.processes",
     .kind = MF_OPTION_INTEGER,
     .initial = "0",
     .minimum = 0,
     .maximum = 1e6,
     .meaning = "processes and threads of its user at once"},
};
static const struct mf_config_table table = {
    .program = "a provider's file", .options = options, .count = sizeof options / sizeof *options};

static enum mf_status no_memory(struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a provider");
}

int64_t mf_external_patience_ms(void) {
    const char *text = getenv("MODELFORGE_TRAINER_PROVIDER_SECONDS");
    char *end = NULL;
    const long value = text ? strtol(text, &end, 10) : 0;
    const bool given = text && *text && !*end && value >= 1 && value <= LONGEST_SECONDS;
    return (given ? value : PATIENCE_SECONDS) * 1000;
}

static bool name_valid(const char *name, size_t length) {
    return length && length < MF_PROVIDER_NAME_BYTES &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") >= length;
}

/* ---- reading NAME.conf ---- */

/* Every link on the way to the file must be as safe as the file: Python, for one, looks at the name that it
 * was started by. */
static enum mf_status check_file(const char *path, struct mf_error *error) {
    char *at = strdup(path), target[4096];
    enum mf_status status = at ? mf_path_check_trusted(at, NULL, error) : no_memory(error);
    for (int hops = 0; at && status == MF_OK && hops < 40; hops++) {
        ssize_t length = readlink(at, target, sizeof target - 1);
        if (length < 0)
            break;
        target[length] = 0;
        char *slash = strrchr(at, '/');
        slash[slash == at] = 0;
        status = mf_folder_check_trusted(at, error);
        char *next = *target == '/' ? strdup(target) : mf_path_join(at, target);
        free(at);
        if (!(at = next))
            status = no_memory(error);
    }
    free(at);
    return status;
}

/* "exec" into words; each that names a file is checked. */
static enum mf_status take_words(struct mf_external *program, const char *text, struct mf_error *error) {
    char *rest = program->words = strdup(text), *word;
    enum mf_status status = rest ? MF_OK : no_memory(error);
    while (status == MF_OK && (word = strsep(&rest, " \t"))) {
        if (!*word)
            continue;
        if (program->argc == MF_EXTERNAL_MAX_WORDS)
            return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%s: exec has more than %d words",
                                program->path, MF_EXTERNAL_MAX_WORDS);
        if (!program->argc && *word != '/')
            return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                                "%s: exec: '%.200s' is no absolute path: give the program's whole path",
                                program->path, word);
        if (*word == '/' && (!program->argc || mf_path_exists(word)))
            status = check_file(word, error);
        program->argv[program->argc++] = word;
    }
    if (status == MF_OK && !program->argc)
        status =
            mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%s: exec names no program", program->path);
    return status == MF_OK ? status : mf_error_prefix(error, "%s", program->path);
}

static enum mf_status take_variable(void *context, const char *rest, const char *value,
                                    struct mf_error *error) {
    struct mf_external *program = context;
    return json_object_set_new(program->environment, rest, json_string(value))
               ? mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%s: environment.%s is not UTF-8",
                              program->path, rest)
               : MF_OK;
}

static void add_limit(struct mf_external *program, int resource, int64_t value) {
    program->limit[program->limits++] = (struct mf_process_limit){resource, (uint64_t)value};
}

static enum mf_status read_file(struct mf_external *program, struct mf_error *error) {
    struct mf_config *config = NULL;
    enum mf_status status = mf_path_check_trusted(program->path, NULL, error);
    if (status == MF_OK && mf_config_load_file(&table, program->path, &config, error) != MF_OK)
        status = error->status = MF_ERROR_PROVIDER_UNAVAILABLE;
    if (status == MF_OK)
        status = take_words(program, mf_config_string(config, "exec"), error);
    if (status == MF_OK)
        status = mf_config_each(config, "environment.*", take_variable, program, error);
    if (status == MF_OK) {
        const int64_t bytes = mf_config_integer(config, "limit.file_bytes"),
                      processes = mf_config_integer(config, "limit.processes");
        add_limit(program, RLIMIT_CORE, 0);
        if (bytes)
            add_limit(program, RLIMIT_FSIZE, bytes);
        if (processes)
            add_limit(program, RLIMIT_NPROC, processes);
    }
    mf_config_free(config);
    return status;
}

/* ---- whose process it is ---- */

static enum mf_status choose_user(struct mf_external *program, struct mf_error *error) {
    const char *name = mf_providers_user();
    if (mf_provider_is_trusted(program->name)) {
        for (size_t i = 0; i < program->limits && geteuid() == 0; i++)
            if (program->limit[i].resource == RLIMIT_NPROC)
                return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                                    "%s: limit.processes: the system holds root to no number of processes: "
                                    "let it run as another user (providers.user) or leave the limit out",
                                    program->path);
        return MF_OK;
    }
    if (!name)
        return mf_error_set(
            error, MF_ERROR_PROVIDER_UNAVAILABLE,
            "provider '%s' is a program of its own: name it in providers.trusted to let it run "
            "as this worker's user, or a user for it in providers.user",
            program->name);
    errno = 0;
    const struct passwd *entry = getpwnam(name);
    if (!entry)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "providers.user: there is no user '%.100s'",
                            name);
    if (!entry->pw_uid || entry->pw_uid == geteuid())
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                            "providers.user: '%.100s' is %s: name a user of its own for providers", name,
                            entry->pw_uid ? "the user of this worker" : "root");
    if (geteuid() != 0)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                            "provider '%s' is to run as '%.100s' (providers.user), which takes a worker that "
                            "is root; or name it in providers.trusted",
                            program->name, name);
    program->switches = true;
    program->user = (struct mf_process_user){entry->pw_uid, entry->pw_gid};
    program->home = strdup(entry->pw_dir ? entry->pw_dir : "/");
    return program->home ? MF_OK : no_memory(error);
}

enum mf_status mf_external_find(const char *name, struct mf_external **out, struct mf_error *error) {
    char *folder = NULL, *path = NULL;
    struct mf_external *program = NULL;
    *out = NULL;
    if (!name_valid(name, strlen(name)))
        return MF_OK;
    enum mf_status status = mf_providers_folder(&folder, error);
    if (status == MF_OK && asprintf(&path, "%s/%s%s", folder, name, suffix) < 0) {
        path = NULL;
        status = no_memory(error);
    }
    if (status != MF_OK || !path || access(path, F_OK) != 0)
        goto done;
    if (!(program = calloc(1, sizeof *program)) || !(program->environment = json_object())) {
        status = no_memory(error);
        goto done;
    }
    snprintf(program->name, sizeof program->name, "%s", name);
    program->path = path;
    path = NULL;
    if ((status = read_file(program, error)) || (status = choose_user(program, error)))
        goto done;
    *out = program;
    program = NULL;
done:
    mf_external_free(program);
    free(path);
    free(folder);
    return status;
}

void mf_external_free(struct mf_external *program) {
    if (!program)
        return;
    json_decref(program->environment);
    free(program->path);
    free(program->words);
    free(program->home);
    free(program);
}

static int is_program(const struct dirent *entry) {
    const size_t length = strlen(entry->d_name), end = sizeof suffix - 1;
    return length > end && !strcmp(entry->d_name + length - end, suffix) &&
           name_valid(entry->d_name, length - end);
}

json_t *mf_external_names(void) {
    struct mf_error error;
    char *folder = NULL;
    struct dirent **entry = NULL;
    json_t *names = json_array();
    int count =
        mf_providers_folder(&folder, &error) == MF_OK ? scandir(folder, &entry, is_program, alphasort) : 0;
    for (int i = 0; i < count; i++) {
        json_array_append_new(names,
                              json_stringn(entry[i]->d_name, strlen(entry[i]->d_name) - sizeof suffix + 1));
        free(entry[i]);
    }
    free(entry);
    free(folder);
    return names;
}

/* ---- running it ---- */

static bool may_see(const char *variable) {
    static const char *const names[] = {
        "PATH=",         "LANG=",           "LC_",  "TZ=",  "TMPDIR=", "LD_LIBRARY_PATH=", "HF_HOME=",
        "HF_HUB_CACHE=", "XDG_CACHE_HOME=", "OMP_", "MKL_", "CUDA_",   "NVIDIA_",          "NCCL_"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strncmp(variable, names[i], strlen(names[i])))
            return true;
    return false;
}

static void set_all(json_t *variables, const json_t *from) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)from, name, value) json_object_set(variables, name, value);
}

extern char **environ;

char **mf_external_environment(const struct mf_external *program, const json_t *more) {
    json_t *variables = json_object(), *value;
    const char *name, *home = program->switches ? program->home : getenv("HOME");
    for (size_t i = 0; environ[i]; i++) {
        const char *equals = strchr(environ[i], '=');
        if (!equals || !may_see(environ[i]))
            continue;
        char *own = strndup(environ[i], (size_t)(equals - environ[i]));
        if (own)
            json_object_set_new(variables, own, json_string(equals + 1));
        free(own);
    }
    if (home)
        json_object_set_new(variables, "HOME", json_string(home));
    set_all(variables, program->environment);
    set_all(variables, more);
    json_object_set_new(variables, "MODELFORGE_PROVIDER", json_string(program->name));
    char **result = calloc(json_object_size(variables) + 1, sizeof *result);
    size_t used = 0;
    json_object_foreach(variables, name, value) {
        if (result && json_is_string(value) &&
            asprintf(&result[used], "%s=%s", name, json_string_value(value)) < 0) {
            result[used] = NULL;
            mf_external_environment_free(result);
            result = NULL;
        } else if (json_is_string(value)) {
            used++;
        }
    }
    json_decref(variables);
    return result;
}

void mf_external_environment_free(char **environment) {
    for (size_t i = 0; environment && environment[i]; i++)
        free(environment[i]);
    free(environment);
}

struct mf_process_options mf_external_options(struct mf_external *program, const char *command,
                                              const char *argument) {
    program->argv[program->argc] = (char *)command;
    program->argv[program->argc + 1] = (char *)argument;
    program->argv[program->argc + 2] = NULL;
    return (struct mf_process_options){.argv = (const char *const *)program->argv,
                                       .death_signal = SIGKILL,
                                       .guarded = true,
                                       .user = program->switches ? &program->user : NULL,
                                       .limits = program->limit,
                                       .limit_count = program->limits};
}

static enum mf_status refuse(const struct mf_external *program, struct mf_last_words *words,
                             struct mf_error *error, const char *what) {
    const char *line = mf_last_words_line(words);
    return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "provider '%s': '%s capabilities' %s%s%s",
                        program->name, program->argv[program->argc - 1], what, *line ? "; it wrote: " : "",
                        line);
}

static void close_pipe(const int *ends) {
    close(ends[0]);
    close(ends[1]);
}

static enum mf_status start(struct mf_external *program, const int *answer, const int *words,
                            struct mf_process *process, struct mf_error *error) {
    const struct mf_process_descriptor descriptors[] = {{answer[1], STDOUT_FILENO},
                                                        {words[1], STDERR_FILENO}};
    struct mf_process_options how_to = mf_external_options(program, "capabilities", NULL);
    char **environment = mf_external_environment(program, NULL);
    if (!environment)
        return no_memory(error);
    how_to.environment = (const char *const *)environment;
    how_to.directory = "/";
    how_to.descriptors = descriptors;
    how_to.descriptor_count = sizeof descriptors / sizeof *descriptors;
    enum mf_status status = mf_process_spawn(&how_to, process, error);
    mf_external_environment_free(environment);
    return status == MF_OK ? status
                           : mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "provider '%s': %s",
                                          program->name, error->message);
}

static enum mf_status run(struct mf_external *program, struct mf_text *answer, struct mf_last_words *words,
                          struct mf_error *error) {
    int out[2], text[2];
    struct mf_process process;
    struct mf_process_exit exit;
    enum mf_answer end;
    char what[200], how[128];
    if (pipe2(out, O_CLOEXEC))
        return mf_error_errno(error, errno, "a pipe to '%s'", program->name);
    if (pipe2(text, O_CLOEXEC)) {
        close_pipe(out);
        return mf_error_errno(error, errno, "a pipe to '%s'", program->name);
    }
    (void)fcntl(text[0], F_SETFL, O_NONBLOCK);
    enum mf_status status = start(program, out, text, &process, error);
    close(out[1]);
    close(text[1]);
    if (status == MF_OK)
        status = mf_answer_read_both(&process, out[0], text[0], MF_EXTERNAL_ANSWER_BYTES,
                                     mf_external_patience_ms(), answer, words, &exit, &end, error);
    close(out[0]);
    close(text[0]);
    if (status != MF_OK)
        return status;
    if (end == MF_ANSWER_TOO_LONG)
        return refuse(program, words, error, "wrote more than 1 MiB");
    if (end == MF_ANSWER_TOO_LATE)
        snprintf(what, sizeof what, "did not end within %lld s",
                 (long long)(mf_external_patience_ms() / 1000));
    else if (exit.signal || exit.code)
        snprintf(what, sizeof what, "failed: %s", mf_process_exit_text(&exit, how, sizeof how));
    else
        return mf_text_status(answer, error);
    return refuse(program, words, error, what);
}

/* ---- its answer ---- */

static enum mf_status check_rows(const json_t *answer, const char *where, struct mf_error *error) {
    static const char *const members[] = {"architecture", "task", "strategy", "level", "reason"};
    static const char *const levels = " unsupported experimental limited supported ";
    json_t *rows = NULL, *row;
    const char *text;
    char level[32];
    size_t i;
    enum mf_status status = mf_json_array(answer, where, "capabilities", MAX_CAPABILITIES, &rows, error);
    if (status != MF_OK)
        return status;
    json_array_foreach(rows, i, row) {
        char at[300];
        snprintf(at, sizeof at, "%.200s: row %zu of capabilities", where, i + 1);
        for (size_t m = 0; m < sizeof members / sizeof *members; m++) {
            if ((status = mf_json_string(row, at, members[m], REASON_BYTES, &text, error)))
                return status;
            if (m == 3 && (snprintf(level, sizeof level, " %.20s ", text), !strstr(levels, level)))
                return mf_error_set(
                    error, MF_ERROR_PROVIDER_UNAVAILABLE,
                    "%s: level '%.40s' is none of unsupported, experimental, limited, supported", at, text);
        }
    }
    return MF_OK;
}

static enum mf_status check_answer(const json_t *answer, const char *where, struct mf_error *error) {
    int64_t protocol = 0;
    int64_t max_gpus = 1;
    bool available = false, exact = true;
    const char *text;
    enum mf_status status = mf_json_integer(answer, where, "protocol", 0, 1000000, &protocol, error);
    if (status == MF_OK && protocol != 1)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                            "%s: it speaks trainer protocol %lld, this version 1", where,
                            (long long)protocol);
    if (status == MF_OK)
        status = mf_json_boolean(answer, where, "available", &available, error);
    if (status == MF_OK)
        status = mf_json_string(answer, where, available ? "version" : "reason", REASON_BYTES, &text, error);
    if (status == MF_OK)
        status = mf_json_optional_boolean(answer, where, "exact_resume", &exact, error);
    if (status == MF_OK)
        status =
            mf_json_optional_integer(answer, where, "max_gpus", 1, MF_EXTERNAL_MAX_GPUS, &max_gpus, error);
    if (status == MF_OK && available)
        status = check_rows(answer, where, error);
    return status;
}

enum mf_status mf_external_ask(const struct mf_external *program, json_t **answer, struct mf_error *error) {
    struct mf_text text = {0};
    struct mf_external own = *program; /* its words get a command */
    struct mf_last_words words = {0};
    json_t *object = NULL;
    char where[128];
    *answer = NULL;
    snprintf(where, sizeof where, "provider '%s': its capabilities", program->name);
    enum mf_status status = run(&own, &text, &words, error);
    if (status == MF_OK) {
        status = mf_json_parse(mf_text_string(&text), text.length, where, &object, error);
        mf_json_clean_text(object);
        if (status == MF_OK)
            status = check_answer(object, where, error);
        const char *line = mf_last_words_line(&words);
        if (status != MF_OK && status != MF_ERROR_OUT_OF_MEMORY) {
            struct mf_error why = *error;
            status = mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%s%s%s", why.message,
                                  *line ? "; it wrote: " : "", line);
        }
    }
    if (status == MF_OK)
        *answer = json_incref(object);
    json_decref(object);
    mf_text_free(&text);
    return status;
}

int64_t mf_external_max_gpus(const json_t *answer) {
    const json_t *most = json_object_get(answer, "max_gpus");
    return most ? json_integer_value(most) : 1;
}

static bool covers(const json_t *row, const char *member, const char *name) {
    const char *pattern = json_string_value(json_object_get(row, member));
    return pattern && (!strcmp(pattern, "*") || !strcmp(pattern, name));
}

static const char *text_of(const json_t *row, const char *member) {
    const char *text = json_string_value(json_object_get(row, member));
    return text ? text : "";
}

/* "llama (text-generation, sft), ...": the rows that are not unsupported, as many as an error has room for.
 */
static void list_what_works(const json_t *rows, struct mf_text *text) {
    enum { ROOM = 500 };
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row) {
        if (!strcmp(text_of(row, "level"), "unsupported"))
            continue;
        if (text->length > ROOM) {
            mf_text_puts(text, ", ...");
            return;
        }
        mf_text_printf(text, "%s%.100s (%.100s, %.100s)", text->length ? ", " : "",
                       text_of(row, "architecture"), text_of(row, "task"), text_of(row, "strategy"));
    }
}

enum mf_status mf_external_require(const struct mf_external *program, const json_t *answer,
                                   const char *architecture, const char *task, const char *strategy,
                                   struct mf_error *error) {
    const char *reason = "the provider does not know this combination";
    size_t i;
    const json_t *row;
    if (!json_is_true(json_object_get(answer, "available")))
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%s",
                            json_string_value(json_object_get(answer, "reason")));
    json_array_foreach(json_object_get(answer, "capabilities"), i, row) {
        if (!covers(row, "architecture", architecture) || !covers(row, "task", task) ||
            !covers(row, "strategy", strategy))
            continue;
        if (strcmp(json_string_value(json_object_get(row, "level")), "unsupported") != 0)
            return MF_OK;
        reason = json_string_value(json_object_get(row, "reason"));
        break;
    }
    struct mf_text works = {0};
    list_what_works(json_object_get(answer, "capabilities"), &works);
    mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED,
                 "%s cannot train %s for %s with %s: %s. What it trains here: %s", program->name,
                 architecture, task, strategy, reason, works.length ? mf_text_string(&works) : "nothing");
    mf_text_free(&works);
    return MF_ERROR_PROVIDER_UNSUPPORTED;
}
