/* Exact checkpoints: all that the next optimiser step depends on, so that a resumed run gives the same bits
 * as one that was never interrupted.
 *
 * A checkpoint is a folder step-NNNNNNNN between two optimiser steps:
 *     state.safetensors   parameters (elements) f32, flat, of the policy's bucket; what its optimiser keeps
 *                         (mf_optimizer_state_name says under which names); best_parameters, when a best
 * model is kept and there was an evaluation steps-NNNNNNNN.bin  what the steps so far came to, see
 * steps_file.h checkpoint.json     step, the sampler's position, what the evaluations so far came to; whose
 *                         it is (hash of the request, sha256 of the datasets, of every file of the
 *                         base model, of the numeric plan); sha256 of
 *                         state.safetensors, and of itself as canonical JSON without the member "sha256"
 * Rates and random numbers are functions of the step alone, so they need no state. */
#ifndef MF_WORKER_TRAINER_CHECKPOINT_H
#define MF_WORKER_TRAINER_CHECKPOINT_H

#include "worker/trainer/loop.h"

/* Writes the state after history->steps steps below job->checkpoint_dir: a folder of another name, fsync,
 * rename. A crash leaves the whole checkpoint or none under its name. *path (the folder) is freed by the
 * caller. */
enum mf_status mf_checkpoint_write(struct mf_job *job, struct mf_history *history, char **path,
                                   struct mf_error *error);

/* Removes all complete checkpoints of steps up to `newest` in a folder but the `limit` newest (at least 1);
 * what a crash left of an earlier removal goes, too. Those of later steps are another run's. The best model
 * lies in every checkpoint, so it never goes with one. */
enum mf_status mf_checkpoint_limit(const char *folder, int64_t newest, int64_t limit, struct mf_error *error);

/* Sets job->resumed_plan of a planned job from the checkpoint that it goes on from: "" where the run then
 * gives the bits of one that was never interrupted. MF_ERROR_CHECKPOINT_PLAN where it would not and the
 * request wants it to; MF_ERROR_BAD_CHECKPOINT when the checkpoint cannot be read. */
enum mf_status mf_checkpoint_compare_plan(struct mf_job *job, struct mf_error *error);

/* Brings a prepared job, its sampler and a new history (room for job->total_steps) to where the checkpoint
 * was. MF_ERROR_BAD_CHECKPOINT when it is missing, damaged, or of another request, dataset or base
 * model;
 * Nothing is resumed then. Call mf_checkpoint_compare_plan first.
 */
enum mf_status mf_checkpoint_read(const char *folder, struct mf_job *job, struct mf_history *history,
                                  struct mf_error *error);

#endif
