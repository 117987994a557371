/* submit --dry-run: what a request would do, told by the trainer of this machine. */
#ifndef MF_PRODUCER_CLI_DRY_RUN_H
#define MF_PRODUCER_CLI_DRY_RUN_H

#include "producer/cli/settings.h"

/* Runs `modelforge-trainer plan` on a request that was checked, and prints what it prints. The trainer is
 * option trainer.path, else the one beside this program, else the one in PATH; where there is none, says that
 * the request itself is well and nothing more can be told. Sends nothing. Returns an enum mf_exit:
 * MF_EXIT_FAILED when the job would fail. */
int mf_dry_run(struct mf_settings *settings, const struct mf_request *request);

#endif
