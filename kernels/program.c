/* Programs: their nodes, the rules that a whole program keeps, and its fingerprint. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"
#include "kernels/graph.h"
#include "kernels/graph_rows.h"

const char *mf_purpose_name(enum mf_purpose purpose) {
    static const char *const name[MF_PURPOSES] = {
        [MF_TRAIN] = "train",     [MF_EVALUATE] = "evaluate", [MF_SCORE] = "score",
        [MF_PREFILL] = "prefill", [MF_DECODE] = "decode",     [MF_UPDATE_STEP] = "update"};
    assert(purpose < MF_PURPOSES);
    return name[purpose];
}

enum mf_status mf_program_create(struct mf_graph *graph, enum mf_purpose purpose, int16_t slot,
                                 enum mf_dtype dtype, int32_t *id, struct mf_error *error) {
    enum mf_status status;
    struct mf_program *program;
    *id = -1;
    if (graph->planned)
        return mf_error_set(error, MF_ERROR_INTERNAL, "the graph is planned: no program can be added");
    if (dtype != MF_F32 && dtype != MF_BF16)
        return mf_error_set(error, MF_ERROR_INTERNAL, "activations cannot be %s", mf_dtype_name(dtype));
    status = mf_rows_reserve((void **)&graph->program, graph->programs, &graph->program_capacity,
                             sizeof(struct mf_program *), error);
    if (status != MF_OK)
        return status;
    program = calloc(1, sizeof *program);
    if (!program)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a program");
    program->id = graph->programs;
    program->purpose = (uint8_t)purpose;
    program->slot = slot;
    program->dtype = (uint8_t)dtype;
    graph->program[graph->programs++] = program;
    *id = program->id;
    return MF_OK;
}

void mf_program_set_bound(struct mf_graph *graph, int32_t program, enum mf_symbol symbol, int32_t bound) {
    assert(program >= 0 && program < graph->programs && symbol < MF_SYMBOLS);
    graph->program[program]->bound[symbol] = bound;
    if (symbol == MF_SEQUENCES)
        graph->program[program]->bound[MF_OFFSETS] = bound + 1;
}

enum mf_status mf_program_append(struct mf_graph *graph, int32_t id, const struct mf_node *node,
                                 struct mf_error *error) {
    struct mf_program *program = graph->program[id];
    enum mf_status status = mf_rows_reserve((void **)&program->node, program->nodes, &program->capacity,
                                            sizeof *program->node, error);
    if (status == MF_OK)
        program->node[program->nodes++] = *node;
    return status;
}

/* What a check knows of each tensor while it walks through the nodes. */
struct check {
    const struct mf_graph *graph;
    const struct mf_program *program;
    bool *written;   /* [tensors] */
    int32_t *change; /* [changes] versions that the nodes so far wrote */
    int32_t changes;
};

static enum mf_status broken(const struct check *check, int32_t node, const char *what, int32_t tensor,
                             struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_INTERNAL, "%s program, node %d (%s): tensor %d %s",
                        mf_purpose_name((enum mf_purpose)check->program->purpose), (int)node,
                        mf_op_name((enum mf_op)check->program->node[node].op), (int)tensor, what);
}

static bool is_persistent(const struct mf_tensor *tensor) {
    return tensor->storage < MF_ACTIVATION;
}

/* Does `written` hold a later content of a part of the storage that `read` names? */
static bool is_older(const struct mf_tensor *read, const struct mf_tensor *written) {
    int64_t read_size = INT64_MAX / 2, written_size = INT64_MAX / 2;
    if ((read->view_of < 0 ? read->id : read->view_of) != written->view_of ||
        read->version >= written->version)
        return false;
    if (read->dim[0].symbol == MF_CONST && written->dim[0].symbol == MF_CONST) {
        read_size = mf_tensor_elements(read, NULL);
        written_size = mf_tensor_elements(written, NULL);
    }
    return read->view_offset < written->view_offset + written_size &&
           written->view_offset < read->view_offset + read_size;
}

/* Was the version that `read`, or what it is a view of, holds written by a node? */
static bool was_written(const struct check *check, const struct mf_tensor *read) {
    for (int32_t i = 0; i < check->changes; i++) {
        const struct mf_tensor *written = mf_graph_tensor(check->graph, check->change[i]);
        if (written->id == read->id ||
            (written->view_of == read->view_of && written->version == read->version &&
             written->view_offset <= read->view_offset))
            return true;
    }
    return false;
}

static enum mf_status check_input(const struct check *check, int32_t node, int32_t id,
                                  struct mf_error *error) {
    const struct mf_tensor *tensor = mf_graph_tensor(check->graph, id);
    int32_t owner = mf_graph_owner(check->graph, id);
    if (tensor->program >= 0 && tensor->program != check->program->id)
        return broken(check, node, "belongs to another program", id, error);
    if (!is_persistent(tensor) && !check->written[owner])
        return broken(check, node, "is read before it is made", id, error);
    if (is_persistent(tensor) && tensor->version > 0 && !was_written(check, tensor))
        return broken(check, node, "is read before it is made", id, error);
    for (int32_t i = 0; i < check->changes; i++)
        if (is_older(tensor, mf_graph_tensor(check->graph, check->change[i])))
            return broken(check, node, "is an old version", id, error);
    return MF_OK;
}

static enum mf_status check_output(struct check *check, int32_t node, int32_t id, struct mf_error *error) {
    const struct mf_tensor *tensor = mf_graph_tensor(check->graph, id);
    bool writes_state = mf_op_row((enum mf_op)check->program->node[node].op)->flags & MF_OP_WRITES_STATE;
    if (tensor->program != check->program->id)
        return broken(check, node, "belongs to another program", id, error);
    if (check->written[id])
        return broken(check, node, "has two writers", id, error);
    if (is_persistent(tensor) != writes_state)
        return broken(check, node, writes_state ? "is no state, but the op writes state" : "is state", id,
                      error);
    if (!writes_state && tensor->view_of >= 0 && mf_graph_tensor(check->graph, tensor->view_of)->program < 0)
        return broken(check, node, "is a view and cannot be written", id, error);
    check->written[id] = true;
    if (!writes_state)
        check->written[mf_graph_owner(check->graph, id)] = true;
    if (writes_state)
        check->change[check->changes++] = id;
    return MF_OK;
}

enum mf_status mf_program_check(const struct mf_graph *graph, int32_t id, struct mf_error *error) {
    struct check check = {.graph = graph, .program = graph->program[id]};
    size_t tensors = (size_t)graph->tensors + 1;
    enum mf_status status = MF_OK;
    check.written = calloc(tensors, sizeof *check.written);
    check.change = calloc(tensors, sizeof *check.change);
    if (!check.written || !check.change) {
        free(check.written);
        free(check.change);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to check a program");
    }
    for (int32_t n = 0; n < check.program->nodes && status == MF_OK; n++) {
        const struct mf_node *node = &check.program->node[n];
        for (int i = 0; i < MF_NODE_INPUTS && status == MF_OK; i++)
            if (node->in[i] >= 0)
                status = check_input(&check, n, node->in[i], error);
        for (int i = 0; i < MF_NODE_OUTPUTS && status == MF_OK; i++)
            if (node->out[i] >= 0)
                status = check_output(&check, n, node->out[i], error);
    }
    free(check.written);
    free(check.change);
    return status;
}

const char *mf_node_phase_name(enum mf_node_phase phase) {
    static const char *const name[MF_NODE_PHASES] = {[MF_FORWARD] = "forward",
                                                     [MF_RECOMPUTE] = "recompute",
                                                     [MF_OFFLOAD] = "offload",
                                                     [MF_BACKWARD] = "backward",
                                                     [MF_UPDATE] = "update"};
    assert(phase < MF_NODE_PHASES);
    return name[phase];
}

void mf_program_print(const struct mf_graph *graph, int32_t id, FILE *file) {
    const struct mf_program *program = graph->program[id];
    char text[96];
    for (int32_t n = 0; n < program->nodes; n++) {
        const struct mf_node *node = &program->node[n];
        fprintf(file, "%d %s", (int)n, mf_node_phase_name((enum mf_node_phase)node->phase));
        if (node->layer >= 0)
            fprintf(file, " layer %d", node->layer);
        fprintf(file, " %s", mf_op_name((enum mf_op)node->op));
        for (int i = 0; i < MF_NODE_OUTPUTS; i++)
            if (node->out[i] >= 0)
                fprintf(file, " %d %s", (int)node->out[i],
                        mf_tensor_describe(mf_graph_tensor(graph, node->out[i]), text, sizeof text));
        fputs(" <-", file);
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            if (node->in[i] >= 0)
                fprintf(file, " %d", (int)node->in[i]);
        fputc('\n', file);
    }
}

/* Tensors are numbered by first appearance, so that the same program gives the same fingerprint whatever else
 * its graph holds. Everything is hashed as little 4-byte words in host order (little endian on all supported
 * hosts). */
struct fingerprint {
    const struct mf_graph *graph;
    struct mf_digest *digest;
    int32_t *number; /* [tensors] 0: not seen */
    int32_t seen;
};

static enum mf_status hash_words(struct fingerprint *fingerprint, const int32_t *word, size_t words,
                                 struct mf_error *error) {
    return mf_digest_update(fingerprint->digest, word, words * sizeof *word, error);
}

static enum mf_status hash_tensor(struct fingerprint *fingerprint, int32_t id, struct mf_error *error) {
    int32_t word[6 + 2 * MF_RANK] = {-1};
    const struct mf_tensor *tensor;
    if (id < 0)
        return hash_words(fingerprint, word, 1, error);
    if (fingerprint->number[id])
        return hash_words(fingerprint, &fingerprint->number[id], 1, error);
    tensor = mf_graph_tensor(fingerprint->graph, id);
    fingerprint->number[id] = ++fingerprint->seen;
    word[0] = fingerprint->number[id];
    word[1] = tensor->dtype | tensor->rank << 8 | tensor->storage << 16 | tensor->flags << 24;
    word[2] = tensor->version;
    word[3] = (int32_t)tensor->view_offset;
    word[4] = (int32_t)(tensor->view_offset >> 32);
    word[5] = (int32_t)tensor->stride[0];
    for (int i = 0; i < tensor->rank; i++) {
        word[6 + 2 * i] = tensor->dim[i].multiplier;
        word[7 + 2 * i] = tensor->dim[i].symbol;
    }
    return hash_words(fingerprint, word, sizeof word / sizeof *word, error);
}

static enum mf_status hash_node(struct fingerprint *fingerprint, const struct mf_node *node,
                                struct mf_error *error) {
    const struct mf_op_row *row = mf_op_row((enum mf_op)node->op);
    enum mf_status status = mf_digest_update(fingerprint->digest, row->name, strlen(row->name) + 1, error);
    if (status == MF_OK)
        status = mf_digest_update(fingerprint->digest, &node->a, row->attribute_bytes, error);
    for (int i = 0; i < MF_NODE_INPUTS && status == MF_OK; i++)
        status = hash_tensor(fingerprint, node->in[i], error);
    for (int i = 0; i < MF_NODE_OUTPUTS && status == MF_OK; i++)
        status = hash_tensor(fingerprint, node->out[i], error);
    return status;
}

enum mf_status mf_program_fingerprint(const struct mf_graph *graph, int32_t id, uint8_t result[32],
                                      struct mf_error *error) {
    struct fingerprint fingerprint = {.graph = graph};
    const struct mf_program *program = graph->program[id];
    const int32_t head[3] = {program->purpose, program->dtype, program->slot};
    enum mf_status status;
    fingerprint.number = calloc((size_t)graph->tensors + 1, sizeof *fingerprint.number);
    if (!fingerprint.number)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a fingerprint");
    status = mf_digest_begin(MF_DIGEST_SHA256, &fingerprint.digest, error);
    if (status == MF_OK)
        status = hash_words(&fingerprint, head, 3, error);
    for (int32_t n = 0; n < program->nodes && status == MF_OK; n++)
        status = hash_node(&fingerprint, &program->node[n], error);
    if (status == MF_OK)
        status = mf_digest_finish(fingerprint.digest, result, error);
    else
        mf_digest_cancel(fingerprint.digest);
    free(fingerprint.number);
    return status;
}

enum mf_status mf_program_seal(struct mf_graph *graph, int32_t id, struct mf_error *error) {
    struct mf_program *program = graph->program[id];
    if (program->sealed)
        return MF_OK;
    program->sealed = true;
    program->numeric_nodes = program->nodes;
    return mf_program_fingerprint(graph, id, program->fingerprint, error);
}
