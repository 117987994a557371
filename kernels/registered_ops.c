#include "kernels/registered_ops.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "kernels/op_rules.h"

enum { NAME_BYTES = 64 };

static struct {
    struct mf_registered_op op[MF_REGISTERED_OPS];
    char name[MF_REGISTERED_OPS][NAME_BYTES];
    _Atomic int32_t count; /* rows below it never change */
} table;

static const struct mf_registered_op *at(int32_t op) {
    assert(op >= MF_OPS && op - MF_OPS < table.count);
    return &table.op[op - MF_OPS];
}

static bool name_valid(const char *name) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
    const size_t owner = strspn(name, letters), length = strlen(name);
    return owner && name[owner] == '.' && length > owner + 1 && length < NAME_BYTES &&
           strspn(name + owner + 1, letters) == length - owner - 1;
}

enum mf_status mf_register_op(const struct mf_registered_op *registered, int32_t *op,
                              struct mf_error *error) {
    const char *name = registered->row.name;
    const int32_t count = table.count;
    if (!name_valid(name))
        return mf_error_set(
            error, MF_ERROR_PROVIDER_UNAVAILABLE,
            "the op '%.64s' cannot be registered: its name is to be OWNER.OP, of a-z, 0-9 and _, "
            "of less than %d bytes",
            name, NAME_BYTES);
    *op = mf_registered_find(name);
    if (*op >= 0)
        return at(*op)->state == registered->state
                   ? MF_OK
                   : mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                                  "the op '%s' cannot be registered: another one has this name", name);
    if (count == MF_REGISTERED_OPS)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                            "the op '%s' cannot be registered: there are %d already", name,
                            MF_REGISTERED_OPS);
    memcpy(table.name[count], name, strlen(name) + 1);
    table.op[count] = *registered;
    table.op[count].row.name = table.name[count];
    if (!registered->row.gradient)
        table.op[count].row.gradient = mf_gradient_refuse;
    *op = MF_OPS + count;
    table.count = count + 1;
    return MF_OK;
}

const struct mf_op_row *mf_registered_row(enum mf_op op) {
    return &at((int32_t)op)->row;
}

void *mf_registered_state(uint16_t op) {
    return at(op)->state;
}

const struct mf_kernel *mf_registered_kernel(enum mf_op op) {
    if ((int32_t)op < MF_OPS || !at((int32_t)op)->kernel.function)
        return NULL;
    return &at((int32_t)op)->kernel;
}

int32_t mf_registered_find(const char *name) {
    for (int32_t i = 0; i < table.count; i++)
        if (!strcmp(table.name[i], name))
            return MF_OPS + i;
    return -1;
}
