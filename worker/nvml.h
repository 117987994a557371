/* NVIDIA's management library, opened at run time: a worker needs no driver to be built or to start. */
#ifndef MF_WORKER_NVML_H
#define MF_WORKER_NVML_H

#include "worker/gpu_source.h"

struct mf_nvml;

/* MF_ERROR_PROVIDER_UNAVAILABLE when there is no library, no driver or no GPU; says which. */
enum mf_status mf_nvml_open(struct mf_nvml **nvml, struct mf_error *error);
void mf_nvml_close(struct mf_nvml *nvml); /* NULL is allowed */

/* As mf_gpu_source_read(). A GPU has a fault when
 *     the driver lost it, or does not answer for it;
 *     rows of its memory wait for a reset to be remapped, or could not be (older ones: pages wait to be
 * retired); it had memory errors that could not be corrected since the driver was loaded; an Xid came that
 * means the GPU, not a program on it: 48 62 64 74 79 92 95 119 120 140 143 154; it is split by MIG, which is
 * not supported. */
enum mf_status mf_nvml_read(struct mf_nvml *nvml, struct mf_gpu gpus[MF_MAX_GPUS], size_t *count,
                            struct mf_error *error);

#endif
