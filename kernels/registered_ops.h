/* Ops beside those of the table: what plug-ins bring. A registered op is known by its name; its number
 * depends on who registered first and goes into no file. It computes in host memory; a backend with memory of
 * its own has no kernel for it and runs its expansion, where it has one (passes/expand.h).
 *
 * Registering is for one thread; what was registered stays for the life of the process and is read by any. */
#ifndef MF_KERNELS_REGISTERED_OPS_H
#define MF_KERNELS_REGISTERED_OPS_H

#include "kernels/kernel.h"

struct mf_registered_op {
    /* name is copied; gradient NULL: it has none. Functions find `state` by node->op: mf_registered_state().
     * No flags, in_place -1, and attribute_bytes are sizeof(struct mf_registered_attributes). */
    struct mf_op_row row;
    struct mf_kernel kernel; /* function NULL: it has none, and always runs as its expansion */
    void *state;             /* the caller's, for the life of the process */
};

/* Names are "owner.op", each of [a-z0-9_]. *op is its number, the old one where the same name was registered
 * before by the same `state`. MF_ERROR_PROVIDER_UNAVAILABLE: a name that is not so, that another has, or
 * MF_REGISTERED_OPS there already. */
enum mf_status mf_register_op(const struct mf_registered_op *registered, int32_t *op, struct mf_error *error);

const struct mf_op_row *mf_registered_row(enum mf_op op); /* asserted */
void *mf_registered_state(uint16_t op);                   /* asserted */
/* The kernel in host memory; NULL: none, or an op of the table. */
const struct mf_kernel *mf_registered_kernel(enum mf_op op);
int32_t mf_registered_find(const char *name); /* -1: none */

#endif
