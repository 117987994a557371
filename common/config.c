#include "common/config.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/files.h"
#include "common/log.h"
#include "common/text.h"

extern char **environ;

enum { CONFIG_FILE_BYTES = 1 << 20 };

static const char environment_prefix[] = "MODELFORGE_";

/* A value in force. For a prefix option there is one entry for each name below it. */
struct entry {
    const struct mf_option *option;
    char *name, *value;
    char *origin; /* "modelforge.properties:3", "MODELFORGE_DATABASE_URL", "the command line" */
};

struct mf_config {
    const struct mf_config_table *table;
    struct entry *entries;
    size_t count, capacity;
};

static bool is_prefix(const struct mf_option *option) {
    size_t length = strlen(option->name);
    return length > 2 && !strcmp(option->name + length - 2, ".*");
}

/* Whether `name` is the option's name, or lies below its prefix. */
static bool matches(const struct mf_option *option, const char *name) {
    size_t length = strlen(option->name);
    if (!is_prefix(option))
        return !strcmp(option->name, name);
    return strlen(name) > length - 1 && !strncmp(option->name, name, length - 1);
}

/* The option of a name; an exact one before a prefix. */
static const struct mf_option *find_option(const struct mf_config_table *table, const char *name) {
    for (int prefix = 0; prefix < 2; prefix++)
        for (size_t i = 0; i < table->count; i++)
            if (is_prefix(&table->options[i]) == (prefix == 1) && matches(&table->options[i], name))
                return &table->options[i];
    return NULL;
}

static struct entry *find_entry(const struct mf_config *config, const char *name) {
    for (size_t i = 0; i < config->count; i++)
        if (!strcmp(config->entries[i].name, name))
            return &config->entries[i];
    return NULL;
}

/* The names that share the longest beginning with a wrong one are what was meant, most of the time. */
static const char *nearest_option(const struct mf_config_table *table, const char *name) {
    const char *best = NULL;
    size_t best_length = 2;
    for (size_t i = 0; i < table->count; i++) {
        size_t same = 0;
        while (name[same] && name[same] == table->options[i].name[same])
            same++;
        if (same > best_length && table->options[i].kind != MF_OPTION_ELSEWHERE) {
            best_length = same;
            best = table->options[i].name;
        }
    }
    return best;
}

static bool is_choice(const char *choices, const char *value) {
    size_t length = strlen(value);
    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        if (length && !strncmp(c, value, length) && (c[length] == '|' || !c[length]))
            return true;
    return false;
}

static bool number_of(const char *value, double *number) {
    char *end;
    errno = 0;
    *number = strtod(value, &end);
    return end != value && !*end && !errno && isfinite(*number);
}

static bool integer_of(const char *value, int64_t *integer) {
    char *end;
    errno = 0;
    *integer = strtoll(value, &end, 10);
    return end != value && !*end && !errno && !isspace((unsigned char)value[0]);
}

static enum mf_status check_value(const struct mf_option *option, const char *name, const char *value,
                                  const char *origin, struct mf_error *error) {
    double number = 0;
    int64_t integer = 0;
    const char *shown = option->secret ? "***" : value;
    switch (option->kind) {
    case MF_OPTION_INTEGER:
        if (!integer_of(value, &integer))
            return mf_error_set(error, MF_ERROR_CONFIGURATION, "%s: %s: \"%s\" is not an integer", origin,
                                name, shown);
        number = (double)integer;
        break;
    case MF_OPTION_NUMBER:
        if (!number_of(value, &number))
            return mf_error_set(error, MF_ERROR_CONFIGURATION, "%s: %s: \"%s\" is not a number", origin, name,
                                shown);
        break;
    case MF_OPTION_BOOLEAN:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
            return mf_error_set(error, MF_ERROR_CONFIGURATION, "%s: %s: \"%s\" is neither true nor false",
                                origin, name, shown);
        return MF_OK;
    case MF_OPTION_CHOICE:
        if (!is_choice(option->choices, value))
            return mf_error_set(error, MF_ERROR_CONFIGURATION, "%s: %s: \"%s\" is not one of %s", origin,
                                name, shown, option->choices);
        return MF_OK;
    default:
        return MF_OK;
    }
    if (option->maximum > option->minimum && (number < option->minimum || number > option->maximum))
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "%s: %s: %s is not in [%.15g, %.15g]", origin,
                            name, shown, option->minimum, option->maximum);
    return MF_OK;
}

static enum mf_status no_memory(struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the configuration");
}

/* Sets a value, over what was there before. */
static enum mf_status set_value(struct mf_config *config, const char *name, const char *value,
                                const char *origin, struct mf_error *error) {
    const struct mf_option *option = find_option(config->table, name);
    if (!option) {
        const char *near = nearest_option(config->table, name);
        return mf_error_set(error, MF_ERROR_CONFIGURATION,
                            "%s: unknown option %s%s%s; %s --help lists the options", origin, name,
                            near ? ", did you mean " : "", near ? near : "", config->table->program);
    }
    enum mf_status status = check_value(option, name, value, origin, error);
    if (status || option->kind == MF_OPTION_ELSEWHERE)
        return status;
    struct entry *entry = find_entry(config, name);
    if (!entry) {
        if (config->count == config->capacity) {
            size_t capacity = config->capacity ? 2 * config->capacity : 32;
            struct entry *entries = realloc(config->entries, capacity * sizeof *entries);
            if (!entries)
                return no_memory(error);
            config->entries = entries;
            config->capacity = capacity;
        }
        entry = &config->entries[config->count++];
        *entry = (struct entry){.option = option, .name = strdup(name)};
    }
    free(entry->value);
    free(entry->origin);
    entry->value = strdup(value);
    entry->origin = strdup(origin);
    return entry->name && entry->value && entry->origin ? MF_OK : no_memory(error);
}

/* Cuts white space off both ends, in place. */
static char *trim(char *text) {
    text += strspn(text, " \t\r");
    size_t length = strlen(text);
    while (length && strchr(" \t\r", text[length - 1]))
        text[--length] = 0;
    return text;
}

static enum mf_status read_line(struct mf_config *config, const char *path, size_t number, char *line,
                                struct mf_error *error) {
    struct mf_text origin = {0};
    enum mf_status status = MF_OK;
    mf_text_printf(&origin, "%s:%zu", path, number);
    line = trim(line);
    if (!*line || *line == '#' || *line == '!')
        goto done;
    char *equals = strchr(line, '=');
    if (!equals || equals == line) {
        status =
            mf_error_set(error, MF_ERROR_CONFIGURATION, "%s: expected name = value", mf_text_string(&origin));
        goto done;
    }
    *equals = 0;
    const char *name = trim(line), *value = trim(equals + 1);
    const struct entry *before = find_entry(config, name);
    if (before)
        status = mf_error_set(error, MF_ERROR_CONFIGURATION, "%s: %s was given at %s before",
                              mf_text_string(&origin), name, before->origin);
    else
        status = set_value(config, name, value, mf_text_string(&origin), error);
done:
    mf_text_free(&origin);
    return status;
}

/* A file that others may read should hold no password. */
static void warn_of_open_secrets(const struct mf_config *config, const char *path) {
    struct stat information;
    if (stat(path, &information) || !(information.st_mode & (S_IRGRP | S_IROTH)))
        return;
    for (size_t i = 0; i < config->count; i++)
        if (config->entries[i].option->secret)
            mf_log_warning("a configuration file with secrets can be read by others: chmod 600",
                           MF_LOG_TEXT("file", path), MF_LOG_TEXT("option", config->entries[i].name));
}

static enum mf_status read_file(struct mf_config *config, const char *path, struct mf_error *error) {
    char *text;
    size_t size;
    enum mf_status status = mf_file_read(path, CONFIG_FILE_BYTES, &text, &size, error);
    if (status)
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "configuration file: %s",
                            error ? error->message : path);
    if (strlen(text) != size)
        status =
            mf_error_set(error, MF_ERROR_CONFIGURATION, "%s holds a NUL byte: not a properties file", path);
    size_t number = 1;
    for (char *line = text; !status && line; number++) {
        char *end = strchr(line, '\n');
        if (end)
            *end = 0;
        status = read_line(config, path, number, line, error);
        line = end ? end + 1 : NULL;
    }
    free(text);
    if (!status)
        warn_of_open_secrets(config, path);
    return status;
}

/* "database.url" to "MODELFORGE_DATABASE_URL". */
static void environment_name(const char *name, struct mf_text *out) {
    mf_text_puts(out, environment_prefix);
    for (const char *c = name; *c; c++) {
        char upper = *c == '.' || *c == '-' ? '_' : (char)toupper((unsigned char)*c);
        mf_text_append(out, &upper, 1);
    }
}

/* Whether the variable belongs to this option; then its option name is in *name. */
static bool environment_matches(const struct mf_option *option, const char *variable, size_t length,
                                struct mf_text *name) {
    struct mf_text expected = {0};
    bool found = false;
    mf_text_clear(name);
    environment_name(option->name, &expected);
    if (is_prefix(option)) {
        size_t prefix = expected.length - 1; /* up to and with the underscore before the star */
        found = length > prefix && !strncmp(variable, mf_text_string(&expected), prefix);
        if (found) {
            mf_text_append(name, option->name, strlen(option->name) - 1);
            for (size_t i = prefix; i < length; i++) {
                char lower = variable[i] == '_' ? '.' : (char)tolower((unsigned char)variable[i]);
                mf_text_append(name, &lower, 1);
            }
        }
    } else {
        found = length == expected.length && !strncmp(variable, mf_text_string(&expected), length);
        if (found)
            mf_text_puts(name, option->name);
    }
    mf_text_free(&expected);
    return found;
}

static enum mf_status read_variable(struct mf_config *config, const char *variable, struct mf_error *error) {
    const char *equals = strchr(variable, '=');
    size_t length = (size_t)(equals - variable);
    struct mf_text name = {0}, shown = {0};
    enum mf_status status = MF_OK;
    bool found = false;
    mf_text_append(&shown, variable, length);
    if (!strcmp(mf_text_string(&shown), "MODELFORGE_CONFIG"))
        goto done;
    for (int prefix = 0; prefix < 2 && !found; prefix++)
        for (size_t i = 0; i < config->table->count && !found; i++)
            if (is_prefix(&config->table->options[i]) == (prefix == 1))
                found = environment_matches(&config->table->options[i], variable, length, &name);
    if (found)
        status = set_value(config, mf_text_string(&name), equals + 1, mf_text_string(&shown), error);
    else
        mf_log_warning("this environment variable names no option of this program",
                       MF_LOG_TEXT("variable", mf_text_string(&shown)),
                       MF_LOG_TEXT("program", config->table->program));
done:
    mf_text_free(&name);
    mf_text_free(&shown);
    return status;
}

static enum mf_status check_required(const struct mf_config *config, struct mf_error *error) {
    for (size_t i = 0; i < config->table->count; i++) {
        const struct mf_option *option = &config->table->options[i];
        if (option->required && !option->initial && !find_entry(config, option->name)) {
            struct mf_text variable = {0};
            environment_name(option->name, &variable);
            enum mf_status status = mf_error_set(
                error, MF_ERROR_CONFIGURATION,
                "%s needs the option %s: %s (in the properties file, or as %s)", config->table->program,
                option->name, option->meaning, mf_text_string(&variable));
            mf_text_free(&variable);
            return status;
        }
    }
    return MF_OK;
}

static int compare_entries(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

/* Checks and sorts what was read; frees it where `status` or the check is a failure. */
static enum mf_status finish(struct mf_config *config, enum mf_status status, struct mf_config **result,
                             struct mf_error *error) {
    if (!status)
        status = check_required(config, error);
    if (status) {
        mf_config_free(config);
        return status;
    }
    if (config->count)
        qsort(config->entries, config->count, sizeof *config->entries, compare_entries);
    *result = config;
    return MF_OK;
}

enum mf_status mf_config_load_file(const struct mf_config_table *table, const char *path,
                                   struct mf_config **result, struct mf_error *error) {
    struct mf_config *config = calloc(1, sizeof *config);
    *result = NULL;
    if (!config)
        return no_memory(error);
    config->table = table;
    return finish(config, read_file(config, path, error), result, error);
}

enum mf_status mf_config_load(const struct mf_config_table *table, const char *path,
                              const struct mf_config_override *overrides, size_t override_count,
                              struct mf_config **result, struct mf_error *error) {
    enum mf_status status = MF_OK;
    struct mf_config *config = calloc(1, sizeof *config);
    *result = NULL;
    if (!config)
        return no_memory(error);
    config->table = table;
    if (!path)
        path = getenv("MODELFORGE_CONFIG");
    if (path && *path)
        status = read_file(config, path, error);
    for (char **variable = environ; !status && *variable; variable++)
        if (!strncmp(*variable, environment_prefix, strlen(environment_prefix)) && strchr(*variable, '='))
            status = read_variable(config, *variable, error);
    for (size_t i = 0; !status && i < override_count; i++)
        status = set_value(config, overrides[i].name, overrides[i].value, "the command line", error);
    return finish(config, status, result, error);
}

void mf_config_free(struct mf_config *config) {
    if (!config)
        return;
    for (size_t i = 0; i < config->count; i++) {
        free(config->entries[i].name);
        free(config->entries[i].value);
        free(config->entries[i].origin);
    }
    free(config->entries);
    free(config);
}

/* The value in force of an option of this kind. A name that the table lacks is a defect of the program. */
static const char *value_of(const struct mf_config *config, const char *name, enum mf_option_kind kind) {
    const struct mf_option *option = find_option(config->table, name);
    if (!option || option->kind != kind) {
        mf_log_error("the program reads an option that its table does not have", MF_LOG_TEXT("option", name));
        abort();
    }
    const struct entry *entry = find_entry(config, name);
    return entry ? entry->value : option->initial;
}

static const char *number_text(const struct mf_config *config, const char *name, enum mf_option_kind kind) {
    const char *value = value_of(config, name, kind);
    if (!value) {
        mf_log_error("the program reads an option that has no value", MF_LOG_TEXT("option", name));
        abort();
    }
    return value;
}

const char *mf_config_string(const struct mf_config *config, const char *name) {
    const struct mf_option *option = find_option(config->table, name);
    return value_of(config, name,
                    option && option->kind == MF_OPTION_CHOICE ? MF_OPTION_CHOICE : MF_OPTION_STRING);
}

int64_t mf_config_integer(const struct mf_config *config, const char *name) {
    return strtoll(number_text(config, name, MF_OPTION_INTEGER), NULL, 10);
}

double mf_config_number(const struct mf_config *config, const char *name) {
    return strtod(number_text(config, name, MF_OPTION_NUMBER), NULL);
}

bool mf_config_boolean(const struct mf_config *config, const char *name) {
    return !strcmp(number_text(config, name, MF_OPTION_BOOLEAN), "true");
}

bool mf_config_given(const struct mf_config *config, const char *name) {
    return find_entry(config, name) != NULL;
}

enum mf_status mf_config_each(const struct mf_config *config, const char *prefix_option,
                              enum mf_status (*visit)(void *context, const char *rest, const char *value,
                                                      struct mf_error *error),
                              void *context, struct mf_error *error) {
    enum mf_status status = MF_OK;
    size_t prefix = strlen(prefix_option) - 1;
    for (size_t i = 0; !status && i < config->count; i++)
        if (!strcmp(config->entries[i].option->name, prefix_option))
            status = visit(context, config->entries[i].name + prefix, config->entries[i].value, error);
    return status;
}

static void print_form(const struct mf_option *option, FILE *out) {
    switch (option->kind) {
    case MF_OPTION_INTEGER:
    case MF_OPTION_NUMBER:
        fputs(option->kind == MF_OPTION_INTEGER ? "integer" : "number", out);
        if (option->maximum > option->minimum)
            fprintf(out, " in [%.15g, %.15g]", option->minimum, option->maximum);
        break;
    case MF_OPTION_BOOLEAN:
        fputs("true|false", out);
        break;
    case MF_OPTION_CHOICE:
        fputs(option->choices, out);
        break;
    default:
        fputs("text", out);
    }
}

void mf_config_print_options(const struct mf_config_table *table, FILE *out) {
    fprintf(out, "Options (in a properties file, as environment variables, or on the command line):\n");
    for (size_t i = 0; i < table->count; i++) {
        const struct mf_option *option = &table->options[i];
        if (option->kind == MF_OPTION_ELSEWHERE)
            continue;
        struct mf_text variable = {0};
        environment_name(option->name, &variable);
        fprintf(out, "  %s (", option->name);
        print_form(option, out);
        if (option->initial)
            fprintf(out, ", default %s", option->secret ? "***" : option->initial);
        fprintf(out, "%s) [%s]\n      %s\n", option->required && !option->initial ? ", required" : "",
                mf_text_string(&variable), option->meaning);
        mf_text_free(&variable);
    }
}

void mf_config_print_values(const struct mf_config *config, FILE *out) {
    for (size_t i = 0; i < config->table->count; i++) {
        const struct mf_option *option = &config->table->options[i];
        if (option->initial && !find_entry(config, option->name))
            fprintf(out, "%s = %s  # default\n", option->name, option->secret ? "***" : option->initial);
    }
    for (size_t i = 0; i < config->count; i++) {
        char redacted[1024], assignment[1024];
        const struct entry *entry = &config->entries[i];
        /* the name decides too: kafka.sasl.password is a secret below a prefix */
        snprintf(assignment, sizeof assignment, "%s=%s", entry->name,
                 entry->option->secret ? "***" : entry->value);
        fprintf(out, "%s  # %s\n", mf_redact(assignment, redacted, sizeof redacted), entry->origin);
    }
}
