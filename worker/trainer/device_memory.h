/* The plan's promise, looked at: what the driver says that this process has of its GPU, beside what was
 * planned. */
#ifndef MF_WORKER_TRAINER_DEVICE_MEMORY_H
#define MF_WORKER_TRAINER_DEVICE_MEMORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct mf_job;

/* All 0 where programs compute in host memory or nobody says. */
struct mf_device_memory {
    int64_t planned_bytes;
    int64_t
        beside_bytes;   /* context, kernels and libraries: measured when the first step had warmed them up */
    int64_t used_bytes; /* at the end; nothing is given back before, so it is the most that there was */
    bool of_process;    /* else the growth of the whole GPU's use */
    bool as_planned;    /* at the end: within 1% or 64 MiB of the sum of the first two */
};

/* After the first step of a run, again: nothing; and after its last. The second logs one line, a warning
 * where what is used is not as planned. */
void mf_device_memory_warm(struct mf_job *job);
void mf_device_memory_finish(struct mf_job *job);

/* For training.json; null where nothing is known. */
json_t *mf_device_memory_json(const struct mf_device_memory *memory);

#endif
