/* Removes from the storage what a committed transaction superseded: checkpoints beyond their job's
 * save_total_limit or of jobs that ended, and what ended attempts stored and no row names. Never the
 * checkpoint that a job would be resumed from, never anything of an attempt that still holds its lease, never
 * what this database does not know. */
#ifndef MF_WORKER_COLLECTOR_H
#define MF_WORKER_COLLECTOR_H

#include "worker/worker.h"

#include <stdio.h>

struct mf_collection {
    bool dry_run;          /* only say what would be removed */
    bool checkpoints_only; /* the storage is not looked through for left-overs */
    int64_t keep_s;
    FILE *report; /* a line for each object; NULL: none */
    int64_t checkpoints, checkpoint_bytes, orphans, orphan_bytes;
    int64_t failed; /* objects that the storage did not let go; they are tried again */
};

/* One look by one collector at a time: *busy says that another one was at it and nothing was done. */
enum mf_status mf_collect(struct mf_database *database, struct mf_storage *storage,
                          struct mf_collection *collection, bool *busy, struct mf_error *error);

/* The daemon's thread: one look every storage.collect_seconds, and for checkpoints when the recorder says so.
 */
void *mf_collector_main(void *worker);

/* "modelforge-worker collect": one look, reported on standard output. Returns the exit status. */
int mf_collect_command(const struct mf_settings *settings, bool dry_run);

#endif
