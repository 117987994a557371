/* One long-lived thread that starts all trainers: the kernel's parent-death signal belongs to the thread that
 * forked, so the starter must live as long as the worker (40-reliability.md, rule 11). */
#ifndef MF_WORKER_SPAWNER_H
#define MF_WORKER_SPAWNER_H

#include "common/process.h"

struct mf_spawner;

enum mf_status mf_spawner_start(struct mf_spawner **spawner, struct mf_error *error);
void mf_spawner_stop(
    struct mf_spawner *spawner); /* children that still run get their death signal; NULL allowed */

/* mf_process_spawn() in the spawner's thread; waits for it. Any thread. */
enum mf_status mf_spawner_spawn(struct mf_spawner *spawner, const struct mf_process_options *options,
                                struct mf_process *process, struct mf_error *error);

#endif
