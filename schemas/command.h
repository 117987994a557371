/* What a command asks for: a plain enum that the codec (Avro) and the store (PostgreSQL) share. */
#ifndef MF_SCHEMAS_COMMAND_H
#define MF_SCHEMAS_COMMAND_H

#include <stdbool.h>

enum mf_command_action { MF_COMMAND_CANCEL, MF_COMMAND_PAUSE, MF_COMMAND_RESUME, MF_COMMAND_RETRY };

/* "cancel", ...; NULL out of range. */
const char *mf_command_action_name(enum mf_command_action action);
/* False for any other name. */
bool mf_command_action_parse(const char *name, enum mf_command_action *action);

#endif
