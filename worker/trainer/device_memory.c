#include "worker/trainer/device_memory.h"

#include "worker/trainer/job.h"

#include <stdlib.h>

enum { TOLERANCE_BYTES = 64 << 20, TOLERANCE_SHARE = 100 };

static struct mf_memory_use use_of(const struct mf_job *job) {
    const struct mf_backend *backend = job->runtime.backend;
    return backend->memory && backend->memory->use ? backend->memory->use(backend)
                                                   : (struct mf_memory_use){.bytes = 0};
}

void mf_device_memory_warm(struct mf_job *job) {
    struct mf_device_memory *memory = &job->device_memory;
    const struct mf_memory_use use = memory->planned_bytes ? (struct mf_memory_use){.bytes = 0} : use_of(job);
    if (use.bytes == 0)
        return;
    memory->planned_bytes = mf_runtime_managed_bytes(&job->runtime);
    memory->beside_bytes = (int64_t)use.bytes - memory->planned_bytes;
    memory->of_process = use.of_process;
}

void mf_device_memory_finish(struct mf_job *job) {
    struct mf_device_memory *memory = &job->device_memory;
    const double mebibyte = 1 << 20;
    if (!memory->planned_bytes)
        return;
    memory->used_bytes = (int64_t)use_of(job).bytes;
    const int64_t sum = memory->planned_bytes + memory->beside_bytes;
    const int64_t off = llabs(memory->used_bytes - sum);
    memory->as_planned = off <= TOLERANCE_BYTES || off <= sum / TOLERANCE_SHARE;
    mf_report_log(
        job->report, memory->as_planned ? "info" : "warning",
        "GPU memory: planned %.1f MiB, and %.1f for context, kernels and libraries after the first step; the "
        "driver says %.1f at the end%s%s",
        (double)memory->planned_bytes / mebibyte, (double)memory->beside_bytes / mebibyte,
        (double)memory->used_bytes / mebibyte,
        memory->of_process ? "" : ", of all that was taken on this GPU meanwhile",
        memory->as_planned ? "" : ": more than 1% from the sum");
}

json_t *mf_device_memory_json(const struct mf_device_memory *memory) {
    return memory->planned_bytes
               ? json_pack("{s:I, s:I, s:I, s:b, s:s}", "planned_bytes", (json_int_t)memory->planned_bytes,
                           "beside_bytes", (json_int_t)memory->beside_bytes, "used_bytes",
                           (json_int_t)memory->used_bytes, "as_planned", memory->as_planned, "measured_of",
                           memory->of_process ? "process" : "gpu")
               : json_null();
}
