/* Configuration: one option table a program; a properties file, then the environment, then the command line,
 * the later overriding the earlier. The table prints its own documentation.
 *
 * File: one `name = value` a line, UTF-8; blank lines and lines that begin with # or ! are skipped; white
 * space around name and value is cut. Unknown names, a name given twice and bad values are errors that name
 * file, line and option (MF_ERROR_CONFIGURATION). Environment: MODELFORGE_ and the name in upper case, dots
 * as underscores: database.url is MODELFORGE_DATABASE_URL. For a prefix option the rest is lower-cased and
 * its underscores become dots: MODELFORGE_KAFKA_BOOTSTRAP_SERVERS is kafka.bootstrap.servers. A MODELFORGE_
 * variable that names no option is logged as a warning (another program may own it). */
#ifndef MF_COMMON_CONFIG_H
#define MF_COMMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/error.h"

enum mf_option_kind {
    MF_OPTION_STRING,
    MF_OPTION_INTEGER,   /* within [minimum, maximum] when maximum > minimum */
    MF_OPTION_NUMBER,    /* the same */
    MF_OPTION_BOOLEAN,   /* true | false */
    MF_OPTION_CHOICE,    /* one of `choices`, separated by | */
    MF_OPTION_PREFIX,    /* name ends in ".*": any name below it, read with mf_config_each */
    MF_OPTION_ELSEWHERE, /* an exact name or "prefix.*" of another program: accepted and not read here, so
                            that programs can share a file; not shown by --help */
};

struct mf_option {
    const char *name; /* lower case with dots: "database.url" */
    enum mf_option_kind kind;
    const char *initial; /* the default, as text; NULL: none (unset, or `required`) */
    double minimum, maximum;
    const char *choices;
    bool required; /* loading fails when nothing gives it */
    bool secret;   /* may hold a password: never printed */
    const char *meaning;
};

struct mf_config_table {
    const char *program; /* "modelforge-worker" */
    const struct mf_option *options;
    size_t count;
};

/* Immutable after loading, then any thread. Holds pointers into the table. */
struct mf_config;

/* An override as the command line gives it (--set name=value). */
struct mf_config_override {
    const char *name, *value;
};

/* Reads `path` (NULL: the file that MODELFORGE_CONFIG names, or no file), the environment, `overrides`.
 * *config is freed with mf_config_free. */
enum mf_status mf_config_load(const struct mf_config_table *table, const char *path,
                              const struct mf_config_override *overrides, size_t override_count,
                              struct mf_config **config, struct mf_error *error);
/* Reads the file alone: neither the environment nor a command line. */
enum mf_status mf_config_load_file(const struct mf_config_table *table, const char *path,
                                   struct mf_config **config, struct mf_error *error);
void mf_config_free(struct mf_config *config);

/* Values by name. The name must be in the table with that kind: anything else is a defect and aborts.
 * string and choice give NULL when unset; integer, number and boolean need a default or `required`. */
const char *mf_config_string(const struct mf_config *config, const char *name);
int64_t mf_config_integer(const struct mf_config *config, const char *name);
double mf_config_number(const struct mf_config *config, const char *name);
bool mf_config_boolean(const struct mf_config *config, const char *name);
/* Whether file, environment or command line gave it. */
bool mf_config_given(const struct mf_config *config, const char *name);

/* Calls visit for each given name below the prefix option ("kafka.*"), in order of name, with the rest of the
 * name ("bootstrap.servers"); stops at the first status that is not MF_OK and returns it. */
enum mf_status mf_config_each(const struct mf_config *config, const char *prefix_option,
                              enum mf_status (*visit)(void *context, const char *rest, const char *value,
                                                      struct mf_error *error),
                              void *context, struct mf_error *error);

/* The option table as text for --help: name, type and range, default, meaning, environment variable. */
void mf_config_print_options(const struct mf_config_table *table, FILE *out);
/* The values in force with where each came from, secrets as "***". */
void mf_config_print_values(const struct mf_config *config, FILE *out);

#endif
