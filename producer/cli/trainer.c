#include "producer/cli/trainer.h"

#include "producer/cli/program.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum mf_status mf_trainer_find(struct mf_settings *settings, char **path, struct mf_error *error) {
    const char *given = mf_config_string(settings->config, "trainer.path");
    if (!given) {
        *path = mf_program_find(MF_TRAINER_NAME);
        return MF_OK;
    }
    *path = strdup(given);
    if (access(given, X_OK) != 0)
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "trainer.path: %s: %s", given, strerror(errno));
    return MF_OK;
}

enum mf_status mf_trainer_run(const char *const *argv, struct mf_process_exit *exit, struct mf_error *error) {
    const struct mf_process_options options = {.argv = argv,
                                               .environment = (const char *const *)environ,
                                               .death_signal = SIGTERM,
                                               .keep_group = true};
    struct mf_process process;
    fflush(stdout);
    enum mf_status status = mf_process_spawn(&options, &process, error);
    return status ? status : mf_process_wait(&process, -1, exit, error);
}
