/* What the steps so far came to, in files of equal numbers of steps beside a checkpoint's state.
 *
 * A whole block never changes again, so it is written once in a run and linked into every later checkpoint: a
 * save writes at most one block, however long the run is. A checkpoint's folder still holds all of them, and
 * lives on when the others go. steps-NNNNNNNN.bin: up to MF_STEPS_BLOCK struct mf_step_record as they lie in
 * memory (little-endian). */
#ifndef MF_WORKER_TRAINER_STEPS_FILE_H
#define MF_WORKER_TRAINER_STEPS_FILE_H

#include "worker/trainer/loop.h"

enum { MF_STEPS_BLOCK = 1024 };

/* Puts the blocks of history->steps steps into the folder of a checkpoint. `once` is the folder of the run's
 * whole blocks, made when there is one. *blocks, an array with the sha256 of each, is released by the caller.
 */
enum mf_status mf_steps_write(struct mf_history *history, const char *once, const char *folder,
                              json_t **blocks, struct mf_error *error);

/* Reads history->steps steps back, into history->step. MF_ERROR_BAD_CHECKPOINT when a block is missing or not
 * the one of its sha256; `where` names the file that `blocks` comes from. */
enum mf_status mf_steps_read(struct mf_history *history, const char *folder, const json_t *blocks,
                             const char *where, struct mf_error *error);

#endif
