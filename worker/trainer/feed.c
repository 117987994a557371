#include "worker/trainer/feed.h"

#include <string.h>

static int32_t *input(const struct mf_graph *graph, struct mf_executor *executor, enum mf_graph_input which) {
    return mf_executor_data(executor, graph->input[which]);
}

void mf_feed_samples(const struct mf_graph *graph, struct mf_executor *executor,
                     const struct mf_samples *samples, const size_t *sample, size_t rows, float coefficient,
                     struct mf_step *step) {
    int32_t *token = input(graph, executor, MF_INPUT_TOKENS);
    int32_t *position = input(graph, executor, MF_INPUT_POSITIONS);
    int32_t *row_id = input(graph, executor, MF_INPUT_ROWS);
    int32_t *offset = input(graph, executor, MF_INPUT_OFFSETS);
    int32_t *label_row = input(graph, executor, MF_INPUT_LABEL_ROWS);
    int32_t *label = input(graph, executor, MF_INPUT_LABELS);
    float *coefficients = mf_executor_data(executor, graph->input[MF_INPUT_COEFFICIENTS]);
    int32_t tokens = 0, labelled = 0, longest = 0;
    offset[0] = 0;
    for (size_t r = 0; r < rows; r++) {
        const struct mf_sample *row = &samples->sample[sample[r]];
        memcpy(token + tokens, row->token, (size_t)row->length * sizeof *token);
        for (int32_t i = 0; i < row->length; i++) {
            position[tokens + i] = i;
            row_id[tokens + i] = (int32_t)row->row;
            if (i + 1 < row->length && row->label[i + 1] != MF_LABEL_NONE) {
                label_row[labelled] = tokens + i;
                label[labelled] = row->label[i + 1];
                coefficients[labelled++] = coefficient;
            }
        }
        tokens += row->length;
        offset[r + 1] = tokens;
        longest = row->length > longest ? row->length : longest;
    }
    step->value[MF_TOKENS] = tokens;
    step->value[MF_SEQUENCES] = (int32_t)rows;
    step->value[MF_LABELLED] = labelled;
    step->value[MF_CACHE] = 0;
    step->value[MF_LONGEST] = longest;
}

void mf_feed_continuation(const struct mf_graph *graph, struct mf_executor *executor, const int32_t *token,
                          int32_t count, int32_t first, struct mf_step *step) {
    memcpy(input(graph, executor, MF_INPUT_TOKENS), token, (size_t)count * sizeof *token);
    int32_t *position = input(graph, executor, MF_INPUT_POSITIONS);
    int32_t *slot = input(graph, executor, MF_INPUT_CACHE_SLOTS);
    for (int32_t i = 0; i < count; i++)
        position[i] = slot[i] = first + i;
    int32_t *offset = input(graph, executor, MF_INPUT_OFFSETS);
    int32_t *cache_offset = input(graph, executor, MF_INPUT_CACHE_OFFSETS);
    offset[0] = cache_offset[0] = 0;
    offset[1] = count;
    cache_offset[1] = first + count;
    input(graph, executor, MF_INPUT_LAST_ROWS)[0] = count - 1;
    input(graph, executor, MF_INPUT_CACHE_LENGTHS)[0] = first + count;
    step->value[MF_TOKENS] = count;
    step->value[MF_SEQUENCES] = 1;
    step->value[MF_LABELLED] = 0;
    step->value[MF_CACHE] = first + count;
    step->value[MF_LONGEST] = count;
}
