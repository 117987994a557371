/* What a provider's program gets of a job: everything that its request names, found, allowed, downloaded and
 * laid out in a folder of its own, so that the program needs neither credentials nor a reader for every form
 * of a dataset, and sees nothing that its tenant may not read. */
#ifndef MF_WORKER_TRAINER_EXTERNAL_INPUT_H
#define MF_WORKER_TRAINER_EXTERNAL_INPUT_H

#include "providers/external.h"
#include "worker/trainer/job.h"

struct mf_external_input {
    char *folder;        /* FOLDER/program, of this run alone */
    char *request_path;  /* FOLDER/program/request.json */
    char *work_folder;   /* FOLDER/program/work: where the program runs */
    json_t *environment; /* MODELFORGE_PROTOCOL, _OUTPUT_DIR, _CHECKPOINT_DIR and, to go on, _RESUME_FROM */
    int64_t dropped_rows, truncated_rows;
};

/* Fills it and makes the folders, given to the program's user where it is another one. The program's
 * request.json is the request, every field present, but
 *
 *     model_name, adapter_name_or_path
 *         folders of this machine; revision is null
 *     dataset, validation_dataset
 *         JSONL files of this machine: a row is {"messages": [{"role", "content"}]} or {"text"}, whichever
 *         form it had (dataset.h)
 *     run.job_id, attempt, attempt_id, created_at
 *         under a worker
 *     run.output_dir, checkpoint_dir, resume_from
 *         where it may write: artifacts below the first, checkpoints below the second, named absolute or
 * relative to them; the folder of a checkpoint to go on from, or absent run.train_samples, eval_samples JSONL
 * files {"input_ids": [...], "labels": [...]}: the rows by the model's tokenizer and the request's template,
 * at most max_seq_length long, -100 where nothing is trained; eval_samples is absent where no row evaluates
 *     run.changed
 *         names of the fields whose value is not the default: one that the program does not obey it must
 *         refuse ("unsupported_field")
 *
 * MF_ERROR_PROVIDER_UNSUPPORTED and _UNAVAILABLE by `answer` (mf_external_ask()); what model, rows and
 * tokenizer bring. On failure *input needs no closing. */
enum mf_status mf_external_input_make(struct mf_job *job, const struct mf_external *program,
                                      const json_t *answer, struct mf_external_input *input,
                                      struct mf_error *error);
/* Removes its folder. */
void mf_external_input_close(struct mf_external_input *input);

#endif
