#include "kernels/cpu/fast_backend.h"
#include "kernels/cpu/backend.h"
#include "kernels/cpu/threads.h"
#include "kernels/registered_ops.h"
#include <stdio.h>
#include <stdlib.h>

static const struct mf_kernel *fast_find(const struct mf_backend *backend, enum mf_op op,
                                         enum mf_dtype dtype) {
    const struct mf_fast_backend *own = (const struct mf_fast_backend *)backend;
    if (dtype != MF_F32 && dtype != MF_BF16)
        return NULL;
    if (op >= MF_OPS)
        return mf_registered_kernel(op);
    return own->instructions.kernels[op] ? own->instructions.kernels[op] : mf_reference_kernel(op);
}

/* Packed is what linear layers and the output layer multiply by; other weights are read as they lie. Fills
 * the forms in which the node wants its weight, in[1]; returns how many. */
static int wanted_forms(const struct mf_kernel_call *call, enum mf_weight_form form[MF_FORMS]) {
    const enum mf_op op = (enum mf_op)call->node->op;
    int forms = 0;
    if (op == MF_OP_LINEAR || op == MF_OP_HEAD || op == MF_OP_LOGITS)
        form[forms++] = MF_FORM_FORWARD;
    if (op == MF_OP_LINEAR_INPUT_GRADIENT || (op == MF_OP_HEAD && call->node->a.head.with_gradient))
        form[forms++] = MF_FORM_GRADIENT;
    return forms;
}

static enum mf_status fast_prepare(struct mf_backend *backend, const struct mf_kernel_call *call,
                                   size_t *bytes, struct mf_error *error) {
    enum mf_weight_form form[MF_FORMS];
    enum mf_status status = MF_OK;
    const int forms = wanted_forms(call, form);
    if (!call->in[1].data) /* trainable */
        return MF_OK;
    for (int i = 0; i < forms && status == MF_OK; i++)
        status = mf_packed_weight_prepare((struct mf_fast_backend *)backend, &call->in[1], form[i],
                                          call->in[0].dtype, bytes, error);
    return status;
}

static int fast_weight_copies(const struct mf_backend *backend, const struct mf_kernel_call *call,
                              struct mf_weight_copy copy[MF_WEIGHT_COPIES]) {
    const struct mf_fast_backend *own = (const struct mf_fast_backend *)backend;
    const struct mf_array *weight = &call->in[1];
    const bool bf16 = call->in[0].dtype == MF_BF16;
    enum mf_weight_form form[MF_FORMS];
    const int forms = wanted_forms(call, form);
    for (int i = 0; i < forms; i++) {
        const bool forward = form[i] == MF_FORM_FORWARD;
        copy[i] = (struct mf_weight_copy){
            .tensor = weight->tensor,
            .form = 2 * (int32_t)form[i] + bf16,
            .bytes = mf_gemm_packed_bytes(own->gemm, weight->dim[forward], weight->dim[!forward], bf16)};
    }
    return forms;
}

static void fast_destroy(struct mf_backend *backend) {
    struct mf_fast_backend *own = (struct mf_fast_backend *)backend;
    mf_packed_weights_destroy(own);
    mf_gemm_destroy(own->gemm);
    free(own);
}

enum mf_status mf_cpu_create(const struct mf_cpu_options *options, struct mf_backend **backend,
                             struct mf_error *error) {
    *backend = NULL;
    struct mf_fast_backend *own = calloc(1, sizeof *own);
    if (!own)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the CPU backend");
    if (options && options->threads > 0)
        mf_threads_set(options->threads);
    const char *wanted = options ? options->instruction_set : NULL;
    own->instructions = wanted ? mf_instruction_set_find(wanted) : mf_instruction_set_choose();
    enum mf_status status = MF_OK;
    if (!own->instructions.kernels)
        status = mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                              "this processor has no instruction set '%s'", wanted);
    if (status == MF_OK)
        status = mf_gemm_create(&own->gemm, error);
    if (status != MF_OK) {
        fast_destroy(&own->base);
        return status;
    }
    (void)snprintf(own->instruction_name, sizeof own->instruction_name, "%s%s", own->instructions.name,
                   mf_gemm_bf16_is_fast() ? "_bf16" : "");
    own->base = (struct mf_backend){.name = "cpu",
                                    .instruction_set = own->instruction_name,
                                    .threads = mf_threads(),
                                    .library = mf_gemm_library(),
                                    .find = fast_find,
                                    .prepare = fast_prepare,
                                    .weight_copies = fast_weight_copies,
                                    .flop_per_byte = 10,
                                    .rows_alone = true,
                                    .dequantizes = mf_gemm_plain_is_as_packed(),
                                    .destroy = fast_destroy};
    *backend = &own->base;
    return MF_OK;
}

enum mf_dtype mf_cpu_preferred_dtype(void) {
    return mf_gemm_bf16_is_fast() ? MF_BF16 : MF_F32;
}
