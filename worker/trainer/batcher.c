#include "worker/trainer/batcher.h"

#include "kernels/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STRETCH_BATCHES = 50 };

static size_t random_below(uint64_t key, uint32_t stream, uint32_t epoch, uint32_t draw, size_t bound) {
    uint32_t word[4];
    mf_random_words(key, stream, 0, epoch, draw, word);
    const uint64_t value = ((uint64_t)word[1] << 32) | word[0];
    return (size_t)(((unsigned __int128)value * bound) >> 64);
}

void mf_random_permutation(uint64_t seed, uint32_t stream, uint32_t epoch, size_t *order, size_t count) {
    const uint64_t key = mf_random_key(seed, MF_RANDOM_OUTSIDE_STEPS);
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t i = count; i > 1; i--) {
        size_t other = random_below(key, stream, epoch, (uint32_t)(i - 1), i);
        size_t kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
}

enum mf_status mf_split_make(size_t count, double ratio, uint64_t seed, struct mf_split *split,
                             struct mf_error *error) {
    size_t eval = (size_t)ceil(ratio * (double)count);
    if (eval >= count)
        eval = count ? count - 1 : 0;
    size_t *order = malloc((count + 1) * sizeof *order);
    bool *evaluates = calloc(count + 1, sizeof *evaluates);
    *split =
        (struct mf_split){malloc((count + 1) * sizeof(size_t)), malloc((eval + 1) * sizeof(size_t)), 0, 0};
    enum mf_status status = MF_OK;
    if (!order || !evaluates || !split->train || !split->eval) {
        mf_split_destroy(split);
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "split: out of memory");
    } else {
        mf_random_permutation(seed, MF_RANDOM_SPLIT, 0, order, count);
        for (size_t i = 0; i < eval; i++)
            evaluates[order[i]] = true;
        for (size_t i = 0; i < count; i++) {
            if (evaluates[i])
                split->eval[split->eval_count++] = i;
            else
                split->train[split->train_count++] = i;
        }
    }
    free(order);
    free(evaluates);
    return status;
}

enum mf_status mf_split_validation(size_t count, struct mf_split *split, struct mf_error *error) {
    size_t *index = malloc((count + 1) * sizeof *index);
    if (!index)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "split: out of memory");
    for (size_t i = 0; i < count; i++)
        index[i] = i;
    free(split->eval);
    split->eval = index;
    split->eval_count = count;
    return MF_OK;
}

void mf_split_destroy(struct mf_split *split) {
    free(split->train);
    free(split->eval);
    *split = (struct mf_split){0};
}

/* What a sort needs to know of one row: longer first, then as shuffled. */
struct mf_ranked {
    size_t sample, place;
    int32_t length;
};

static int by_length(const void *left, const void *right) {
    const struct mf_ranked *a = left, *b = right;
    if (a->length != b->length)
        return a->length > b->length ? -1 : 1;
    return a->place < b->place ? -1 : a->place > b->place;
}

static void group_by_length(struct mf_sampler *sampler) {
    struct mf_ranked *ranked = sampler->ranked;
    const size_t stretch = (size_t)sampler->options.batch_size * STRETCH_BATCHES;
    for (size_t i = 0; i < sampler->count; i++)
        ranked[i] =
            (struct mf_ranked){sampler->order[i], i, sampler->samples->sample[sampler->order[i]].length};
    size_t longest = 0;
    for (size_t first = 0; first < sampler->count; first += stretch) {
        size_t rows = sampler->count - first < stretch ? sampler->count - first : stretch;
        qsort(ranked + first, rows, sizeof *ranked, by_length);
        if (ranked[first].length > ranked[longest].length)
            longest = first;
    }
    struct mf_ranked front = ranked[0];
    ranked[0] = ranked[longest];
    ranked[longest] = front;
    for (size_t i = 0; i < sampler->count; i++)
        sampler->order[i] = ranked[i].sample;
}

static void start_epoch(struct mf_sampler *sampler) {
    mf_random_permutation(sampler->options.seed, MF_RANDOM_EPOCH, sampler->epoch, sampler->order,
                          sampler->count);
    for (size_t i = 0; i < sampler->count; i++)
        sampler->order[i] = sampler->index[sampler->order[i]];
    if (sampler->options.group_by_length)
        group_by_length(sampler);
    sampler->cursor = 0;
}

enum mf_status mf_sampler_init(struct mf_sampler *sampler, const struct mf_samples *samples,
                               const size_t *index, size_t count, const struct mf_sampler_options *options,
                               struct mf_error *error) {
    *sampler = (struct mf_sampler){.options = *options,
                                   .samples = samples,
                                   .index = index,
                                   .order = malloc((count + 1) * sizeof(size_t)),
                                   .ranked = malloc((count + 1) * sizeof(struct mf_ranked)),
                                   .count = count};
    if (sampler->order && sampler->ranked) {
        start_epoch(sampler);
        return MF_OK;
    }
    mf_sampler_destroy(sampler);
    return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "sampler: out of memory");
}

void mf_sampler_destroy(struct mf_sampler *sampler) {
    free(sampler->order);
    free(sampler->ranked);
    *sampler = (struct mf_sampler){0};
}

void mf_sampler_seek(struct mf_sampler *sampler, uint32_t epoch, size_t cursor) {
    sampler->epoch = epoch;
    start_epoch(sampler);
    sampler->cursor = cursor;
}

void mf_sampler_next(struct mf_sampler *sampler, struct mf_window *window) {
    if (sampler->cursor == sampler->count) {
        sampler->epoch++;
        start_epoch(sampler);
    }
    const size_t most = (size_t)sampler->options.batch_size * (size_t)sampler->options.accumulation;
    const size_t left = sampler->count - sampler->cursor;
    *window =
        (struct mf_window){.sample = sampler->order + sampler->cursor, .rows = left < most ? left : most};
    for (size_t i = 0; i < window->rows; i++) {
        window->tokens += sampler->samples->sample[window->sample[i]].length;
        window->labelled += sampler->samples->sample[window->sample[i]].labelled;
    }
    sampler->cursor += window->rows;
    window->epoch = sampler->epoch + (double)sampler->cursor / (double)sampler->count;
}

size_t mf_rows_that_fit(const struct mf_samples *samples, const size_t *sample, size_t first, size_t rows,
                        int64_t max_tokens) {
    int64_t tokens = 0;
    size_t taken = 0;
    while (first + taken < rows) {
        tokens += samples->sample[sample[first + taken]].length;
        if (taken && tokens > max_tokens)
            break;
        taken++;
    }
    return taken;
}
