/* The GPUs that this worker may give to jobs: watched by a thread of their own, each locked for the job that
 * has it.
 *
 * The lock of a GPU is flock(2) on LOCK_DIR/modelforge-<uuid>.lock, the same file for all workers of a host.
 * A worker takes it before it claims a job, hands it to the trainer and lets go: the trainer's processes hold
 * it until the last of them has ended, however they and the worker end. A worker that comes back finds the
 * GPUs of trainers that still live locked, and those of dead ones free. Locks are only tried, never waited
 * for, and several are taken at once by one worker of a host at a time: no two workers can wait for each
 * other's half. */
#ifndef MF_WORKER_GPUS_H
#define MF_WORKER_GPUS_H

#include "worker/gpu_source.h"
#include "worker/wakeup.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mf_gpus;

struct mf_gpus_options {
    const char *inventory_file; /* NULL: the driver */
    const char *choice; /* "all", "none", or uuids or positions in the bus order, separated by commas */
    const char *lock_dir;
    int64_t poll_ms;
    int64_t foreign_bytes;        /* a GPU on which programs that hold no lock use more is not free */
    struct mf_wakeup *changed[2]; /* raised when what works or is free has changed; may be NULL */
};

/* Looks for GPUs once and starts to watch them. *gpus is NULL when this worker has none.
 * MF_ERROR_CONFIGURATION when the choice names what is not there, or locks cannot be made. */
enum mf_status mf_gpus_open(const struct mf_gpus_options *options, struct mf_gpus **gpus,
                            struct mf_error *error);
void mf_gpus_close(struct mf_gpus *gpus); /* NULL is allowed */

bool mf_gpus_any(struct mf_gpus *gpus); /* is there one, working or not? NULL: no. Any thread */

/* What is known of them now, as worker_status shows it: an array, and the bytes of those that work, largest
 * first. NULL: no memory; the caller decrefs. Any thread. */
json_t *mf_gpus_describe(struct mf_gpus *gpus, int64_t memory[MF_MAX_GPUS], size_t *working);

/* A GPU that is locked for this process. */
struct mf_gpu_lock {
    char uuid[MF_GPU_UUID_BYTES];
    int64_t memory_bytes;
    int fd; /* -1: let go of, or handed on */
};
struct mf_gpu_hold {
    struct mf_gpu_lock gpu[MF_MAX_GPUS]; /* largest first */
    size_t count;
    bool busy;    /* another worker of this host is choosing: try again soon */
    int claim_fd; /* held while this one chooses */
};
/* Locks every GPU that works, is chosen, and is free; mf_gpu_hold_end() lets go of those that were not taken
 * out (their fd set to -1). Never waits. A GPU whose memory others still use is looked at again at once, and
 * `changed` raised when it is free. Any thread. */
void mf_gpus_hold(struct mf_gpus *gpus, struct mf_gpu_hold *hold);
void mf_gpu_hold_end(struct mf_gpu_hold *hold);
void mf_gpu_unlock(struct mf_gpu_lock *lock);

#endif
