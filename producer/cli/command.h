/* The table of modelforge's commands. */
#ifndef MF_PRODUCER_CLI_COMMAND_H
#define MF_PRODUCER_CLI_COMMAND_H

#include "producer/cli/settings.h"

struct mf_cli_command {
    const char *name;
    int (*run)(struct mf_settings *settings, int argc, char **argv); /* argv[0] is the name */
    const char *summary;                                             /* NULL: for programs, not listed */
    const char *flags; /* "--wait --watch": what --help names, for completion */
    const char *words; /* what may stand where no flag stands; "" when that cannot be known */
    bool fields;       /* takes every field of a request as a flag */
};

const struct mf_cli_command *mf_cli_commands(size_t *count);
const struct mf_cli_command *mf_cli_command_find(const char *name); /* NULL: none */

#endif
