/* How long a run will take, told by running a bit of it. */
#ifndef MF_WORKER_TRAINER_PROBE_H
#define MF_WORKER_TRAINER_PROBE_H

#include "kernels/ledger.h"
#include "worker/trainer/job.h"

struct mf_estimate {
    double train_tokens_per_second, evaluate_tokens_per_second; /* 0: nothing is evaluated */
    double update_seconds;                                      /* of one optimiser step */
    int64_t evaluations;
    double train_seconds,
        evaluate_seconds; /* of the whole run unless it stops early; without loading, saving */
    double probe_seconds; /* what measuring took */
    int64_t probe_tokens; /* of the pass that was timed */
};

/* Runs the first pass of a prepared job's first window, forward and backward, twice (once when that takes
 * long), the update, and one pass of the evaluation, and takes the faster of each for all of their kind. The
 * job's adapters and sampler are used up: it cannot be trained after this. `ledger` NULL: none; else gets
 * where the time of the timed pass and update went, and needs about a fifth of a second more. */
enum mf_status mf_probe(struct mf_job *job, struct mf_estimate *estimate, struct mf_ledger *ledger,
                        struct mf_error *error);

#endif
