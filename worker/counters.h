/* The worker's counters and gauges (worker/counters.def): written by every thread, read by /metrics. */
#ifndef MF_WORKER_COUNTERS_H
#define MF_WORKER_COUNTERS_H

#include "common/text.h"

#include <stdatomic.h>
#include <stdint.h>

enum mf_counter {
#define MF_COUNTER(name, family, labels, type, help) MF_COUNTER_##name,
#include "worker/counters.def"
#undef MF_COUNTER
    MF_COUNTER_COUNT
};

/* Zero-initialise. */
struct mf_counters {
    atomic_int_least64_t value[MF_COUNTER_COUNT];
};

void mf_counter_add(struct mf_counters *counters, enum mf_counter counter, int64_t amount);
void mf_counter_set(struct mf_counters *counters, enum mf_counter counter, int64_t value);
int64_t mf_counter_get(const struct mf_counters *counters, enum mf_counter counter);

/* Appends all of them in Prometheus' text format. */
void mf_counters_print(const struct mf_counters *counters, struct mf_text *text);

#endif
