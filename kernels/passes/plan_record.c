#include "kernels/passes/plan_record.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"

static json_t *bounds_json(const struct mf_program *program) {
    json_t *bounds = json_object();
    for (int i = 0; i < MF_SYMBOLS; i++)
        if (program->bound[i] > 0 && i != MF_OFFSETS)
            json_object_set_new(bounds, mf_symbol_name((enum mf_symbol)i), json_integer(program->bound[i]));
    return bounds;
}

/* Rows of a chunk of the program's HEAD; 0: it has none. */
static int32_t head_chunk_rows(const struct mf_program *program) {
    for (int32_t n = 0; n < program->nodes; n++)
        if (program->node[n].op == MF_OP_HEAD)
            return program->node[n].a.head.chunk_rows;
    return 0;
}

static json_t *program_json(const struct mf_program *program) {
    char fingerprint[2 * sizeof program->fingerprint + 1];
    mf_hex(program->fingerprint, sizeof program->fingerprint, fingerprint);
    return json_pack("{s:o, s:s, s:s, s:i, s:i, s:s, s:i}", "bounds", bounds_json(program), "dtype",
                     mf_dtype_name((enum mf_dtype)program->dtype), "fingerprint", fingerprint,
                     "head_chunk_rows", (int)head_chunk_rows(program), "nodes", (int)program->numeric_nodes,
                     "purpose", mf_purpose_name((enum mf_purpose)program->purpose), "slot",
                     (int)program->slot);
}

/* How many weights have the values of each quantised form. */
static json_t *quantized_json(const struct mf_graph *graph) {
    json_t *forms = json_object();
    for (int32_t i = 0; i < graph->tensors; i++) {
        const struct mf_tensor *tensor = &graph->tensor[i];
        if (tensor->quantization == MF_QUANTIZATION_NONE || tensor->view_of >= 0)
            continue;
        char form[32];
        snprintf(form, sizeof form, "%s%s", mf_quantization_name((enum mf_quantization)tensor->quantization),
                 tensor->nested ? ", nested" : "");
        json_object_set_new(forms, form, json_integer(json_integer_value(json_object_get(forms, form)) + 1));
    }
    return forms;
}

enum mf_status mf_plan_write_record(struct mf_plan *plan, const struct mf_backend *backend,
                                    struct mf_error *error) {
    json_t *programs = json_array();
    json_t *record;
    for (int32_t p = 0; p < plan->graph->programs; p++)
        json_array_append_new(programs, program_json(plan->graph->program[p]));
    record = json_pack("{s:s, s:s, s:s, s:o, s:i, s:s}", "backend", backend->name, "instruction_set",
                       backend->instruction_set, "library", backend->library, "programs", programs, "threads",
                       (int)backend->threads, "version", MF_VERSION);
    json_t *quantized = quantized_json(plan->graph);
    if (record && json_object_size(quantized))
        json_object_set(record, "quantized_weights", quantized);
    json_decref(quantized);
    plan->record = record ? json_dumps(record, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(record);
    if (!plan->record)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the numeric plan");
    return mf_sha256_text(plan->record, strlen(plan->record), plan->record_sha256, error);
}
