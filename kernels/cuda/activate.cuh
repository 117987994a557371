/* The activations, on the device. Private to kernels/cuda. */
#ifndef MF_KERNELS_CUDA_ACTIVATE_CUH
#define MF_KERNELS_CUDA_ACTIVATE_CUH

extern "C" {
#include "kernels/ops.h"
}

namespace mf {

/* Value and slope of the activation at g. */
__device__ inline float activate(mf_activation activation, float g, float *slope) {
    if (activation == MF_ACTIVATION_SILU) {
        const float sigmoid = 1.0f / (1.0f + expf(-g));
        *slope = sigmoid * (1.0f + g * (1.0f - sigmoid));
        return g * sigmoid;
    }
    const float root = 0.7978845608028654f; /* sqrt(2 / pi) */
    const float t = tanhf(root * (g + 0.044715f * g * g * g));
    *slope = 0.5f * (1.0f + t) + 0.5f * g * (1.0f - t * t) * root * (1.0f + 3.0f * 0.044715f * g * g);
    return 0.5f * g * (1.0f + t);
}

} // namespace mf

#endif
