/* Private to kernels/: the numeric plan's record. */
#ifndef MF_KERNELS_PASSES_PLAN_RECORD_H
#define MF_KERNELS_PASSES_PLAN_RECORD_H

#include "kernels/passes/plan.h"

/* Fills plan->record and plan->record_sha256: everything that the numbers of a job depend on beside the
 * request and the data, and nothing else. So no offset, no byte count and no free memory is in it: two memory
 * plans of one numeric plan compute the same bits.
 *     {"backend":"cpu","instruction_set":"...","library":"...","programs":[{"bounds":{...},"dtype":"bf16",
 *      "fingerprint":"...","head_chunk_rows":128,"nodes":1234,"purpose":"train","slot":0}],
 *      "quantized_weights":{"nf4, nested":210},"threads":2,"version":"0.1.0"}
 * The weights by the form whose values they have; without a quantised one the member is not there.
 */
enum mf_status mf_plan_write_record(struct mf_plan *plan, const struct mf_backend *backend,
                                    struct mf_error *error);

#endif
