/* What GPUs this machine has and how they are: from the driver (NVML), or from a file that says so, for tests
 * on machines without GPUs. */
#ifndef MF_WORKER_GPU_SOURCE_H
#define MF_WORKER_GPU_SOURCE_H

#include "common/error.h"
#include "sql/store.h" /* MF_MAX_GPUS */

#include <stddef.h>
#include <stdint.h>

enum { MF_GPU_UUID_BYTES = 96, MF_GPU_NAME_BYTES = 96, MF_GPU_FAULT_BYTES = 160 };

struct mf_gpu {
    char uuid[MF_GPU_UUID_BYTES]; /* "GPU-...", as CUDA_VISIBLE_DEVICES takes it; [A-Za-z0-9-] */
    char name[MF_GPU_NAME_BYTES]; /* "NVIDIA H100 80GB HBM3" */
    int64_t memory_bytes, used_bytes;
    char fault[MF_GPU_FAULT_BYTES]; /* why no job may have it, "" for none */
};

struct mf_gpu_source;

/* `file` NULL: the driver. Without a driver, or without its libnvidia-ml.so.1, there are no GPUs: MF_OK with
 * *source NULL, and `why` says so. A file is a JSON object:
 *     {"gpus": [{"uuid": "GPU-...", "name": "...", "memory_bytes": 1, "used_bytes": 0, "fault": "..."}]}
 * (used_bytes and fault may be left out), read again at every look; MF_ERROR_CONFIGURATION when it cannot be
 * read or the machine has real GPUs. One thread at a time. */
enum mf_status mf_gpu_source_open(const char *file, struct mf_gpu_source **source,
                                  char why[MF_GPU_FAULT_BYTES], struct mf_error *error);
void mf_gpu_source_close(struct mf_gpu_source *source); /* NULL is allowed */

/* Looks at all GPUs, in the order of their bus. A call of the driver may hang where a GPU is dying. A fault
 * that the driver told once (an Xid) stays until the source is opened again. */
enum mf_status mf_gpu_source_read(struct mf_gpu_source *source, struct mf_gpu gpus[MF_MAX_GPUS],
                                  size_t *count, struct mf_error *error);

#endif
