/* The folder of an attempt and what a trainer finds in it and around it. */
#ifndef MF_WORKER_ATTEMPT_H
#define MF_WORKER_ATTEMPT_H

#include "worker/job.h"

/* Makes work.dir/runs/<attempt uuid>/ (0700); *folder is freed by the caller. */
enum mf_status mf_attempt_make_folder(const struct mf_settings *settings, const struct mf_claim *claim,
                                      char **folder, struct mf_error *error);

/* Writes its request.json (0600): the request and the object "run". `resume_from`: a checkpoint's folder,
 * NULL: start at step 0. */
enum mf_status mf_attempt_write_request(const struct mf_settings *settings, const struct mf_claim *claim,
                                        const char *folder, const char *resume_from, struct mf_error *error);

/* Puts the options providers.* into this process's environment, from where trainers get them. Before there
 * are threads. */
enum mf_status mf_attempt_tell_providers(const struct mf_settings *settings, struct mf_error *error);

/* The trainer's environment: the few variables of this process that it may see. Freed with free(); the texts
 * are this process's. `hub`, `s3`: with the keys for model hubs and for S3; a tenant's roots say what
 * it may reach. `visible_gpus`: "CUDA_VISIBLE_DEVICES=...", borrowed, in the place of this process's own;
 * NULL: that one. NULL when memory runs out. */
const char **mf_attempt_environment(bool hub, bool s3, const char *visible_gpus);

/* Removes what earlier lives of this worker left under work.dir/runs/; their trainers died with them. */
void mf_attempt_sweep(const struct mf_settings *settings);

#endif
