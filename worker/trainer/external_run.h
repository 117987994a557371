/* A run by a provider's program instead of by this one. */
#ifndef MF_WORKER_TRAINER_EXTERNAL_RUN_H
#define MF_WORKER_TRAINER_EXTERNAL_RUN_H

#include "worker/trainer/external_input.h"

/* Prepares what the program needs (external_input.h), runs it, passes on what it reports and what it is told.
 * The plan line says of rows and base what this process read, whatever the program says of them. *last is the
 * program's terminal event, whose texts the caller frees by mf_event_destroy(); MF_OK with one of any type
 * when it kept to the protocol. */
enum mf_status mf_external_run(struct mf_job *job, struct mf_external *program, struct mf_event *last,
                               struct mf_error *error);

#endif
