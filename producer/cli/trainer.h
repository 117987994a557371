/* The trainer of this machine, for commands that need no queue. */
#ifndef MF_PRODUCER_CLI_TRAINER_H
#define MF_PRODUCER_CLI_TRAINER_H

#include "common/process.h"
#include "producer/cli/settings.h"

#define MF_TRAINER_NAME "modelforge-trainer"

/* Option trainer.path, which must be there; else the one beside this program, else the one in PATH. *path,
 * freed by the caller, is NULL when there is none. */
enum mf_status mf_trainer_find(struct mf_settings *settings, char **path, struct mf_error *error);

/* Runs it with this process's environment and outputs; it ends with this process. argv[0] is its path. */
enum mf_status mf_trainer_run(const char *const *argv, struct mf_process_exit *exit, struct mf_error *error);

#endif
