/* How much of a GPU this process has: all of it, whoever in the process asked for it. By the driver's
 * management library (NVML), opened at run time; where that does not know the process (as in a container that
 * numbers processes by itself), by what the whole GPU's use has grown since the watch was made. Private to
 * kernels/cuda. */
#ifndef MF_KERNELS_CUDA_MEMORY_WATCH_H
#define MF_KERNELS_CUDA_MEMORY_WATCH_H

#include "kernels/kernel.h"

struct mf_cuda_memory_watch;

/* Before the process has a context on the GPU `uuid`. NULL without the library, or when it does not know that
 * GPU. */
struct mf_cuda_memory_watch *mf_cuda_memory_watch_create(const char *uuid);
void mf_cuda_memory_watch_destroy(struct mf_cuda_memory_watch *watch); /* NULL is allowed */

/* bytes 0: nobody knows. */
struct mf_memory_use mf_cuda_memory_watch_read(const struct mf_cuda_memory_watch *watch);

#endif
