/* One training job: a resolved request brought to the point where its first step can run. */
#ifndef MF_WORKER_TRAINER_JOB_H
#define MF_WORKER_TRAINER_JOB_H

#include "kernels/passes/memory.h"
#include "schemas/request.h"
#include "worker/trainer/access.h"
#include "worker/trainer/adapter.h"
#include "worker/trainer/batcher.h"
#include "worker/trainer/dataset.h"
#include "worker/trainer/device_memory.h"
#include "worker/trainer/report.h"
#include "worker/trainer/runtime.h"
#include "worker/trainer/schedule.h"
#include "worker/trainer/strategies/strategy.h"
#include "worker/trainer/template.h"

/* Adapters of the model under training. */
enum { MF_POLICY_SLOT = 0 };

struct mf_job {
    struct mf_report *report; /* borrowed */
    struct mf_provider_context context;
    struct mf_request request;
    json_t *model_files; /* see model_files.h; NULL before that */
    json_t *run;         /* the worker's "run" object; NULL standalone */
    char *output_dir;
    char *checkpoint_dir;                    /* run's, else output_dir/checkpoints */
    char *resume_from;                       /* a checkpoint's folder; NULL: from step 0 */
    char resumed_plan[MF_SHA256_TEXT_BYTES]; /* its numeric plan (or the first such), where that is another;
                                                "" */
    char *download_dir;                      /* run's, else output_dir: where a dataset is fetched to */
    struct mf_access access;
    int64_t created_at_ms;
    size_t budget_bytes; /* of the plan; 0: the request's memory_budget_gib, else mf_runtime_budget */

    const struct mf_strategy *strategy;
    struct mf_runtime runtime;
    struct mf_dataset dataset;
    struct mf_samples samples;
    struct mf_dataset validation; /* validation_dataset's; path NULL: rows are split off `dataset` */
    struct mf_samples validation_samples;
    struct mf_split split;                 /* eval: indices in eval_samples */
    const struct mf_samples *eval_samples; /* samples or validation_samples */
    struct mf_sampler sampler;
    struct mf_schedule schedule;
    int64_t total_steps, warmup_steps, train_tokens; /* train_tokens: of one epoch */
    int64_t trainable_parameters;

    struct mf_adapter_settings adapter;
    struct mf_adapter_file *start; /* the adapter that training continues from; NULL: a new one */
    struct mf_strategy_programs programs;
    int32_t update, norm;   /* the update program and its gradient norm (1) f32 */
    int32_t pass_tokens;    /* most tokens in one run of a program */
    int32_t pass_sequences; /* most sequences of a pass */
    struct mf_device_memory device_memory;
    struct mf_memory_choice memory; /* what is given up of speed, because memory is short */
};

/* Reads the request file: all fields flat, and under a worker the object "run" {job_id, attempt, attempt_id,
 * output_dir, checkpoint_dir, resume_from, created_at, download_dir, roots, s3_endpoint, s3_region, ca_file};
 * the last five say what it may read (access.h). Artifacts go to `output` (NULL: run's output_dir,
 * else
 * ./modelforge-output); the run goes on from the checkpoint `resume` (NULL: run's resume_from, else step 0).
 * On failure *job needs no closing. */
enum mf_status mf_job_open(const char *request_path, const char *output, const char *resume,
                           struct mf_report *report, struct mf_job *job, struct mf_error *error);
void mf_job_close(struct mf_job *job);

/* Bytes that the plan and what the run keeps on the host besides take; the longest of all rows, in tokens. */
size_t mf_job_managed_bytes(const struct mf_job *job);
int32_t mf_job_longest(const struct mf_job *job);

/* The parts of it that need no model but its tokenizer, for those who train it elsewhere: reads the rows,
 * lays them out as samples of at most `positions` tokens (max_seq_length may not be more), and says which
 * samples train and which evaluate. `model_eos` as in template.h. */
enum mf_status mf_job_read_samples(struct mf_job *job, const struct mf_tokenizer *tokenizer,
                                   int32_t positions, int32_t model_eos, struct mf_error *error);
enum mf_status mf_job_split(struct mf_job *job, struct mf_error *error);

/* Loads model and rows, decides steps and passes, plans memory, binds weights, gives adapters their first
 * values, and reports the plan. The pass size is a function of the request, the rows and this machine's
 * memory. */
enum mf_status mf_job_prepare(struct mf_job *job, struct mf_error *error);

#endif
