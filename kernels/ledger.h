/* Where the time of a step goes: for each op and phase its work, the time that the machine's rates give for
 * it, and the time that it took. Fed by the executor's trace. */
#ifndef MF_KERNELS_LEDGER_H
#define MF_KERNELS_LEDGER_H

#include <jansson.h>
#include <stdio.h>

#include "kernels/cost.h"
#include "kernels/executor.h"

/* What a machine gives, as measured. */
struct mf_rates {
    double flop_per_second;  /* of a large matrix product in the program's dtype */
    double bytes_per_second; /* of a copy larger than the caches: read and written */
};

struct mf_ledger_row {
    int64_t calls;
    double flop, bytes;
    double predicted; /* seconds: the longer of products and traffic, node by node */
    double measured;  /* seconds, of the step in which they were fewest: the machine may do other things */
    double running;   /* seconds of the step that is under way */
};

struct mf_ledger {
    struct mf_rates rates;
    int64_t steps; /* ended so far */
    struct mf_ledger_row row[MF_ALL_OPS][MF_NODE_PHASES];
};

/* For mf_executor_set_trace, `user` being a ledger whose rates are set. */
void mf_ledger_note(void *user, const struct mf_graph *graph, int32_t program, int32_t node,
                    const int32_t *value, double seconds);

/* A step is over. */
void mf_ledger_end_step(struct mf_ledger *ledger);

/* A table a step, the longest first, with the sum below. */
void mf_ledger_print(const struct mf_ledger *ledger, FILE *file);
/* [{"op", "phase", "calls", "flop", "bytes", "predicted_seconds", "measured_seconds"}], a step; a new
 * reference, NULL when memory is short. */
json_t *mf_ledger_json(const struct mf_ledger *ledger);

#endif
