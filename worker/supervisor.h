/* Runs one trainer process for one job: starts it, reads what it reports, watches that it goes on, stops it
 * when asked, stores what it made, and judges how it ended. Never touches PostgreSQL: what it learns waits in
 * the job for the recorder. */
#ifndef MF_WORKER_SUPERVISOR_H
#define MF_WORKER_SUPERVISOR_H

#include "worker/job.h"

/* Takes *claim and `gpus` (malloc'ed, NULL: none; also when it fails), starts the job's thread and puts the
 * job into the table. The trainer sees these GPUs and no others, and holds their locks. On failure the lease
 * is still held: release it. */
enum mf_status mf_supervisor_start(struct mf_worker *worker, struct mf_claim *claim, struct mf_gpu_lock *gpus,
                                   size_t gpu_count, struct mf_error *error);

/* Joins the thread of a job that ended, removes its folder and frees it. It must be out of the table. */
void mf_supervisor_free(struct mf_job *job);

#endif
