/* What a backend implements: kernels over arrays, and the table that finds them.
 *
 * A kernel gets one call struct, computes, and returns. It allocates nothing (its scratch is workspace[1],
 * asked for through workspace_bytes), keeps nothing, and never looks at the graph: shapes of this step are in
 * the arrays, all else that changes is in `step`. Kernels of one executor run one after another; a kernel may
 * use the backend's own threads, and its result must not depend on their number unless it is declared
 * MF_KERNEL_NONDETERMINISTIC. */
#ifndef MF_KERNELS_KERNEL_H
#define MF_KERNELS_KERNEL_H

#include "kernels/graph.h"

/* A tensor of this step. data NULL: the optional input or output is absent. Row-major with strides in
 * elements: the last dimension is contiguous, the others may be wider (column views). Data of owners is
 * 64-byte aligned. */
struct mf_array {
    void *data;
    int64_t dim[MF_RANK]; /* beyond rank: 1 */
    int64_t stride[MF_RANK];
    uint8_t dtype, rank;
    int32_t tensor; /* id, for messages and for the backend's own tables; -1 when absent */
};

/* Rows of a token stream that are multiplied at a time, counted from its first row: matrix products of LINEAR
 * and its gradients are made block by block, and sums over tokens add the blocks in order, each rounded to
 * f32. So a product over rows from a multiple of MF_ROW_BLOCK on gives the bits that it has within the whole.
 */
enum { MF_ROW_BLOCK = 256 };

/* Elements of the whole array: the product of dim. */
static inline int64_t mf_array_elements(const struct mf_array *array) {
    return array->dim[0] * array->dim[1] * array->dim[2] * array->dim[3];
}

struct mf_backend;

struct mf_kernel_call {
    const struct mf_backend *backend;
    const struct mf_node *node; /* attributes: node->a */
    const struct mf_step *step;
    const int32_t *bound; /* [MF_SYMBOLS] greatest sizes of any step of the program; NULL: this step's */
    struct mf_array in[MF_NODE_INPUTS], out[MF_NODE_OUTPUTS], workspace[MF_NODE_WORKSPACES];
};

/* out[0] may be the same storage as the op's in_place input. State outputs (MF_OP_WRITES_STATE) always are
 * the same storage as the input that they are the next version of. A bad value in the data (token out of
 * range) is MF_ERROR_INTERNAL naming op and value: the host checks data before it comes here. */
typedef enum mf_status (*mf_kernel_function)(const struct mf_kernel_call *call, struct mf_error *error);

enum mf_kernel_flag { MF_KERNEL_NONDETERMINISTIC = 1 };

struct mf_kernel {
    mf_kernel_function function;
    /* Bytes of workspace[1] (u8, 64-byte aligned) at the plan's bounds; call has arrays without data and
     * step->value at the bounds. NULL: none. */
    size_t (*workspace_bytes)(const struct mf_kernel_call *call);
    uint32_t flags; /* enum mf_kernel_flag */
};

/* A copy of a weight in a layout of the backend's own. One tensor and form is one copy, however many nodes
 * ask. */
struct mf_weight_copy {
    int32_t tensor, form;
    size_t bytes;
};
enum { MF_WEIGHT_COPIES = 2 };

/* What this process has of a device's memory: the plan's, and what the device's context, kernels and
 * libraries take.
 */
struct mf_memory_use {
    size_t bytes;    /* 0: nobody knows */
    bool of_process; /* else what the whole device's use has grown since the backend was made: of all
                        processes */
};

/* Where a backend computes when that is not host memory. Addresses are the device's: kernels alone follow
 * them. What `write`, `fill` and kernels do happens in the order of the calls; the host waits only where it
 * is said. Errors: MF_ERROR_OUT_OF_MEMORY, and MF_ERROR_DEVICE for what the device reports, naming the call.
 */
struct mf_backend_memory {
    enum mf_status (*allocate)(struct mf_backend *backend, size_t bytes, void **address,
                               struct mf_error *error);         /* not zeroed */
    void (*release)(struct mf_backend *backend, void *address); /* NULL is allowed */
    /* Host memory that the device itself copies from and to (pinned), for what is offloaded; not zeroed. Both
     * NULL: the backend offloads nothing. */
    enum mf_status (*allocate_host)(struct mf_backend *backend, size_t bytes, void **address,
                                    struct mf_error *error);
    void (*release_host)(struct mf_backend *backend, void *address); /* NULL is allowed */
    /* `from` may change as soon as it returns. */
    enum mf_status (*write)(struct mf_backend *backend, void *to, const void *from, size_t bytes,
                            struct mf_error *error);
    /* `rows` rows of `bytes` bytes, one behind the other at `from`, `to_row` bytes apart at `to`. */
    enum mf_status (*write_rows)(struct mf_backend *backend, void *to, size_t to_row, const void *from,
                                 size_t bytes, size_t rows, struct mf_error *error);
    /* Waits for all that was begun before. */
    enum mf_status (*read)(struct mf_backend *backend, void *to, const void *from, size_t bytes,
                           struct mf_error *error);
    enum mf_status (*fill)(struct mf_backend *backend, void *to, uint8_t byte, size_t bytes,
                           struct mf_error *error);
    /* Before the first kernel of a run: what changes from step to step goes to the device. */
    enum mf_status (*begin)(struct mf_backend *backend, const struct mf_step *step, struct mf_error *error);
    /* As the driver sees it now. */
    struct mf_memory_use (*use)(const struct mf_backend *backend);
    /* Waits for all kernels; a bad value that one of them met (token out of range) is MF_ERROR_INTERNAL. */
    enum mf_status (*finish)(struct mf_backend *backend, struct mf_error *error);
};

/* The first member of a backend's own struct. Made by the backend's create function (kernels/cpu/backend.h).
 */
struct mf_backend {
    const char *name;            /* "reference", "cpu" */
    const char *instruction_set; /* "avx512_bf16": part of the numeric plan */
    int32_t threads;             /* part of the numeric plan */
    const char *library;         /* name and version of what computes ("onednn 2.6.3"); "": none */
    /* The kernel of `op` for a program whose activations are `dtype`; NULL: none, and the executor refuses by
     * name. */
    const struct mf_kernel *(*find)(const struct mf_backend *backend, enum mf_op op, enum mf_dtype dtype);
    /* Called once for each node that reads a weight, after all weights are bound and before the first run;
     * `call` has data only for weights. The backend may repack and keep the copy under array.tensor (several
     * nodes and programs share a weight: it must do the work once). May be NULL. The bytes of what it keeps
     * are added to *bytes. */
    enum mf_status (*prepare)(struct mf_backend *backend, const struct mf_kernel_call *call, size_t *bytes,
                              struct mf_error *error);
    /* The copies that prepare will keep for this node, told by its shapes alone, so that the plan counts
     * them; returns how many. Those of tensors that are no weights are not made. NULL: prepare keeps none. */
    int (*weight_copies)(const struct mf_backend *backend, const struct mf_kernel_call *call,
                         struct mf_weight_copy copy[MF_WEIGHT_COPIES]);
    /* The machine's nominal balance, by which the memory plan weighs what costs less; never measured, so that
     * the same job gets the same plan. FLOP of a matrix product in the time that a byte takes from memory,
     * and bytes from memory in the time that a byte takes from host memory; 0: programs compute in host
     * memory and offloading gives nothing back. */
    double flop_per_byte, bytes_per_host_byte;
    /* Ops that are MF_OP_BY_ROWS give a stretch of rows the bits that it has within the whole: else no pass
     * may compute by stretches. */
    bool rows_alone;
    bool dequantizes; /* products with a weight that DEQUANTIZE made have the bits that they have with one
                         that was bound: else quantised weights are kept dequantised */
    bool converts_adapters; /* at each product that reads them: passes/cast.h does it once a run */
    int32_t fold_granule;   /* sizes in multiples of which one product of a weight and its adapters takes less
                               time than three (passes/fold.h); 0: none */
    int32_t head_chunk_rows; /* labelled rows whose products with the output layer fill this device; 0: the
                                usual */
    const struct mf_backend_memory *memory; /* NULL: kernels compute in host memory */
    size_t memory_bytes;                    /* of the device, all of it; 0: the machine's own */
    void (*destroy)(struct mf_backend *backend);
};

static inline void mf_backend_destroy(struct mf_backend *backend) {
    if (backend)
        backend->destroy(backend);
}

#endif
