/* Which bytes a run is made from. */
#ifndef MF_WORKER_TRAINER_MODEL_FILES_H
#define MF_WORKER_TRAINER_MODEL_FILES_H

#include "worker/trainer/job.h"

/* Name, size and sha256 of every file of the base model's folder that belongs to a model, by name, into
 * job->model_files. Reads all of them: once a run, between load and the first step. */
enum mf_status mf_model_files_digest(struct mf_job *job, struct mf_error *error);

/* Whether the files that a checkpoint names (`there`, as job->model_files) are those of this job.
 * MF_ERROR_BAD_CHECKPOINT names the first that is another one, gone or new; `where` begins the message. */
enum mf_status mf_model_files_compare(const struct mf_job *job, const json_t *there, const char *where,
                                      struct mf_error *error);

#endif
