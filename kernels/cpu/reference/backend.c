#include "kernels/cpu/backend.h"
#include "kernels/cpu/reference/reference.h"
#include "kernels/registered_ops.h"

static const struct mf_kernel *const reference_kernels[MF_OPS] = {
#define MF_OP(NAME, name, required, optional, outputs, attributes, shape, gradient, workspace, expansion, \
              in_place, flags, reference, fast, cuda)                                                     \
    [MF_OP_##NAME] = reference,
#include "kernels/ops.def"
#undef MF_OP
};

const struct mf_kernel *mf_reference_kernel(enum mf_op op) {
    return reference_kernels[op];
}

static const struct mf_kernel *reference_find(const struct mf_backend *backend, enum mf_op op,
                                              enum mf_dtype dtype) {
    (void)backend;
    if (op >= MF_OPS)
        return mf_registered_kernel(op);
    return dtype == MF_F32 || dtype == MF_BF16 ? reference_kernels[op] : NULL;
}

/* The oracle has no state: one constant backend serves all. */
static void reference_destroy(struct mf_backend *backend) {
    (void)backend;
}

enum mf_status mf_cpu_reference_create(struct mf_backend **backend, struct mf_error *error) {
    static struct mf_backend reference = {.name = "reference",
                                          .instruction_set = "any",
                                          .threads = 1,
                                          .library = "",
                                          .find = reference_find,
                                          .flop_per_byte = 1,
                                          .rows_alone = true,
                                          .dequantizes = true,
                                          .destroy = reference_destroy};
    (void)error;
    *backend = &reference;
    return MF_OK;
}
