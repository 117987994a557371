#include "schemas/command.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
    [MF_COMMAND_CANCEL] = "cancel",
    [MF_COMMAND_PAUSE] = "pause",
    [MF_COMMAND_RESUME] = "resume",
    [MF_COMMAND_RETRY] = "retry",
};
enum { COUNT = sizeof names / sizeof *names };

const char *mf_command_action_name(enum mf_command_action action) {
    return (unsigned)action < COUNT ? names[action] : NULL;
}

bool mf_command_action_parse(const char *name, enum mf_command_action *action) {
    for (int i = 0; i < COUNT; i++)
        if (!strcmp(name, names[i])) {
            *action = (enum mf_command_action)i;
            return true;
        }
    return false;
}

void mf_command_free(struct mf_command *command) {
    free(command->tenant);
    free(command->request_id);
    free(command->reason);
    free(command->requested_by);
    *command = (struct mf_command){0};
}
