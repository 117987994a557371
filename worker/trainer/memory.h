/* Fitting a job into its memory. */
#ifndef MF_WORKER_TRAINER_MEMORY_H
#define MF_WORKER_TRAINER_MEMORY_H

#include "worker/trainer/job.h"

/* Builds a job's programs on its empty graph, for its pass_tokens and memory. */
typedef enum mf_status mf_job_builder(struct mf_job *job, struct mf_error *error);

/* Bytes that the job's plan may take. */
size_t mf_job_budget(const struct mf_job *job);

/* Decides job->pass_tokens, starting from what it is, and job->memory; leaves the graph planned.
 *  1. The largest pass that fits, with all kept or what is cheap computed again: a smaller pass costs little.
 *     The pass is numeric, and a function of request, rows and budget.
 *  2. At the longest row, of all choices that fit the one that costs least.
 *  3. MF_ERROR_PLAN_TOO_LARGE, saying what the smallest plan needs and what would fit.
 * Nothing is computed again where the request forbids it. */
enum mf_status mf_job_fit_memory(struct mf_job *job, mf_job_builder *build, struct mf_error *error);

#endif
