/* training.json: everything that is needed to repeat a run and to judge it. */
#ifndef MF_WORKER_TRAINER_RECORD_H
#define MF_WORKER_TRAINER_RECORD_H

#include "worker/trainer/job.h"
#include "worker/trainer/loop.h"

/* Writes `path` atomically: the resolved request, the worker's run object, versions and backend, seed, sha256
 * of the dataset and of every file of the model folder that was read, the numeric plan, counts, every step's
 * loss, rate and gradient norm, and the evaluations. Reads the model's files once more to hash them. */
enum mf_status mf_record_write(const char *path, const struct mf_job *job, const struct mf_history *history,
                               struct mf_error *error);

#endif
