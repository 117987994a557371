/* A command on a job, as the codec (Avro), the store (PostgreSQL) and clients share it. */
#ifndef MF_SCHEMAS_COMMAND_H
#define MF_SCHEMAS_COMMAND_H

#include <stdbool.h>

#include "common/digest.h"
#include "schemas/request.h"

#ifdef __cplusplus
extern "C" {
#endif

enum mf_command_action { MF_COMMAND_CANCEL, MF_COMMAND_PAUSE, MF_COMMAND_RESUME, MF_COMMAND_RETRY };

/* "cancel", ...; NULL out of range. */
const char *mf_command_action_name(enum mf_command_action action);
/* False for any other name. */
bool mf_command_action_parse(const char *name, enum mf_command_action *action);

/* Owns its strings; freed with mf_command_free. */
struct mf_command {
    char command_id[MF_UUID_TEXT_BYTES]; /* the same command sent twice has the same id */
    char *tenant, *request_id;
    enum mf_command_action action;
    struct mf_optional_integer expected_generation;
    char *reason, *requested_by; /* may be NULL */
};
/* A zeroed one and a second call are fine. */
void mf_command_free(struct mf_command *command);

#ifdef __cplusplus
}
#endif

#endif
