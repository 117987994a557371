/* What a run leaves in its output folder: the kinds that the request's `output` names, and training.json. */
#ifndef MF_WORKER_TRAINER_OUTPUTS_H
#define MF_WORKER_TRAINER_OUTPUTS_H

#include "worker/trainer/job.h"
#include "worker/trainer/loop.h"

/* Can everything that the request wants be written of this model? Before training; MF_ERROR_UNSUPPORTED_FIELD
 * names what cannot. */
enum mf_status mf_outputs_check(const struct mf_request *request, const struct mf_model *model,
                                struct mf_error *error);

/* Writes and reports each kind as it is complete: adapter/ (PEFT), or model/ where every weight is trained
 * (Hugging Face, in the dtypes of the base), merged_16bit/ (Hugging Face), model.gguf (q8_0), training.json.
 * MF_ERROR_CANCELLED when the run is to end. */
enum mf_status mf_outputs_write(struct mf_job *job, const struct mf_history *history, struct mf_error *error);
/* The same of what only what is trained tells, once the programs are built. */
enum mf_status mf_outputs_check_trained(const struct mf_job *job, struct mf_error *error);

#endif
