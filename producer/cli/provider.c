/* provider check: whether a provider's program keeps its contract, told by the trainer of this machine. */
#include "producer/cli/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: modelforge provider check NAME [--trust]\n\n"
    "Runs the program of NAME.conf in the folder for providers through the trainer protocol on "
    "a tiny model, and says what\n"
    "it breaks: `modelforge-trainer check` on this machine (option trainer.path). --trust: as this "
    "user, though the program is\n"
    "not named in providers.trusted. Exit status 0: nothing is broken; 1: something is.";

int mf_command_provider(struct mf_settings *settings, int argc, char **argv) {
    struct mf_process_exit exit = {0};
    struct mf_error error;
    char *trainer = NULL, text[64];
    const char *name = NULL;
    bool trust = false;
    if (argc == 2 && !strcmp(argv[1], "--help")) {
        mf_print_help(stdout, help);
        return MF_EXIT_OK;
    }
    if (argc < 2 || strcmp(argv[1], "check") != 0)
        return mf_usage("provider", "'check' is what there is to do, and a NAME is needed");
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "--trust"))
            trust = true;
        else if (*argv[i] == '-' || name)
            return mf_usage("provider", "unexpected argument '%s'", argv[i]);
        else
            name = argv[i];
    }
    if (!name)
        return mf_usage("provider", "check: a NAME is needed");
    enum mf_status status = mf_settings_load(settings, &error);
    if (status == MF_OK)
        status = mf_trainer_find(settings, &trainer, &error);
    if (status == MF_OK && !trainer)
        status =
            mf_error_set(&error, MF_ERROR_CONFIGURATION,
                         "there is no " MF_TRAINER_NAME
                         " beside this program or in PATH, and it is what checks: name it in trainer.path");
    const char *const words[] = {trainer, "check", name, trust ? "--trust" : NULL, NULL};
    if (status == MF_OK)
        status = mf_trainer_run(words, &exit, &error);
    if (status == MF_OK && (exit.signal || exit.code > 1))
        status = mf_error_set(&error, MF_ERROR_IO, "%s check: %s", trainer,
                              mf_process_exit_text(&exit, text, sizeof text));
    free(trainer);
    if (status != MF_OK)
        return mf_fail(&error);
    return exit.code == 0 ? MF_EXIT_OK : MF_EXIT_FAILED;
}
