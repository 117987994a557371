/* The kernel table of one instruction set, from the op table's last column; compiled once for each. */
#include "kernels/cpu/fast.h"
#include "kernels/cpu/instruction_set.h"

const struct mf_kernel *const MF_ISA(mf_fast_kernels)[MF_OPS] = {
#define MF_OP(NAME, name, required, optional, outputs, attributes, shape, gradient, workspace, expansion, \
              in_place, flags, reference, fast, cuda)                                                     \
    [MF_OP_##NAME] = fast,
#include "kernels/ops.def"
#undef MF_OP
};
