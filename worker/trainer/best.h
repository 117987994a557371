/* The best state of a run so far, and when to stop: functions of the evaluations alone, so that a resumed run
 * decides as one that was never interrupted. The rules are those of Transformers' Trainer and its
 * EarlyStoppingCallback with threshold 0: better is strictly lower, the first evaluation is the best so far.
 */
#ifndef MF_WORKER_TRAINER_BEST_H
#define MF_WORKER_TRAINER_BEST_H

#include "worker/trainer/loop.h"

/* The best of the evaluations by the request's metric_for_best_model; NULL before the first. */
const struct mf_evaluation_record *mf_best_evaluation(const struct mf_request *request,
                                                      const struct mf_history *history);

/* early_stopping_patience evaluations, one after the other, were no better than the best before them. */
bool mf_best_stops(const struct mf_request *request, const struct mf_history *history);

/* The parameters of the best evaluation are kept on the host, where load_best_model_at_end asks for that:
 * after an evaluation (copies the policy's parameters if this one is the best), and at the end (puts them
 * back; the history then says so). */
enum mf_status mf_best_keep(const struct mf_job *job, struct mf_history *history, struct mf_error *error);
void mf_best_restore(const struct mf_job *job, struct mf_history *history);

/* Bytes of that copy; 0 where none is kept. After the job's graph was built. */
size_t mf_best_bytes(const struct mf_job *job);

#endif
