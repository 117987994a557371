/* cuDNN, opened at run time with the NVRTC that its engines compile by. The functions that cudnn-frontend
 * calls are defined in cudnn_library.c under their own names and go to the opened library. Private to
 * kernels/cuda. */
#ifndef MF_KERNELS_CUDA_CUDNN_LIBRARY_H
#define MF_KERNELS_CUDA_CUDNN_LIBRARY_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>

/* Opens both once for the process and stays open. False: one of them, or a function of theirs, is missing;
 * `reason` then says which. Not to be called by two threads at once. */
bool mf_cudnn_open(char *reason, size_t bytes);
size_t mf_cudnn_version(void); /* 91900: 9.19.0; the library is open */
/* A cudnnHandle_t on `stream`; NULL when it cannot be made. */
void *mf_cudnn_handle_create(cudaStream_t stream);
void mf_cudnn_handle_destroy(void *handle); /* NULL is allowed */

#endif
