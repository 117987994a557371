/* Batching: which rows are trained and evaluated, in which order, and how they lie in a token stream.
 *
 * Everything here is a pure function of the seed and the rows' lengths. Random numbers are kernels/random.h
 * with key mf_random_key(seed, MF_RANDOM_OUTSIDE_STEPS) and counter (draw, epoch, 0, stream): a draw is the
 * first two words as 64 bits, a number below n the high 64 bits of draw * n. Permutations are Fisher-Yates
 * from the last element down. */
#ifndef MF_WORKER_TRAINER_BATCHER_H
#define MF_WORKER_TRAINER_BATCHER_H

#include "common/error.h"
#include "worker/trainer/template.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The step that keys draws which belong to no step: no run has so many. */
#define MF_RANDOM_OUTSIDE_STEPS UINT32_MAX
/* Their streams. */
enum { MF_RANDOM_SPLIT = 1, MF_RANDOM_EPOCH = 2 };

/* Fills order[count] with a permutation of 0 .. count - 1. */
void mf_random_permutation(uint64_t seed, uint32_t stream, uint32_t epoch, size_t *order, size_t count);

/* Which samples train and which evaluate, as indices in mf_samples. Freed with mf_split_destroy(). */
struct mf_split {
    size_t *train, *eval; /* ascending */
    size_t train_count, eval_count;
};

/* ceil(ratio * count) samples evaluate, chosen by a permutation; at least one sample trains. */
enum mf_status mf_split_make(size_t count, double ratio, uint64_t seed, struct mf_split *split,
                             struct mf_error *error);
/* Evaluates all of `count` other samples, in order, beside a split that evaluates none of its own. */
enum mf_status mf_split_validation(size_t count, struct mf_split *split, struct mf_error *error);
void mf_split_destroy(struct mf_split *split);

struct mf_ranked;

struct mf_sampler_options {
    uint64_t seed;
    int32_t batch_size, accumulation; /* packs a batch, batches a window */
    bool group_by_length;
    int32_t pack_tokens; /* 0: every sample is a pack of its own */
};

/* Samples that count as one row of a batch, because together they are no longer than a row may be. They stay
 * sequences of their own: nothing looks from one into another, positions begin anew. */
struct mf_pack {
    size_t first, rows; /* in mf_sampler's `packed` */
    int32_t tokens;
};

/* Walks over the training samples, epoch after epoch, one accumulation window at a time.
 * Packs are made once, by best fit in order of falling length (TRL's "bfd"): equal lengths in the order of
 * the samples, a sample into the pack with the least room that takes it, of these the one that was begun
 * first. An epoch's order is a permutation of the packs. group_by_length cuts it into stretches of 50 batches
 * and sorts each by length, longest first (equal lengths keep their order); the longest pack of all comes
 * first. Windows do not reach over the end of an epoch, so an epoch's last window (and batch) may be smaller.
 */
struct mf_sampler {
    struct mf_sampler_options options;
    const struct mf_samples *samples; /* borrowed */
    struct mf_pack *pack;             /* (count) */
    size_t *packed;                   /* pack after pack, as indices in mf_samples */
    size_t *place;                    /* this epoch's order of the packs */
    size_t *order, *start;      /* its samples; where in `order` the pack at each place begins (count + 1) */
    struct mf_ranked *ranked;   /* scratch of the grouping */
    size_t rows, count, cursor; /* samples; packs; packs that this epoch has had */
    uint32_t epoch;
};

/* The rows of one optimiser step. `sample` is borrowed from the sampler until its next call. */
struct mf_window {
    const size_t *sample;
    size_t rows;
    int64_t tokens, labelled; /* summed over the rows; the loss is divided by `labelled` */
    double epoch;             /* epochs done after this window */
};

enum mf_status mf_sampler_init(struct mf_sampler *sampler, const struct mf_samples *samples,
                               const size_t *index, size_t count, const struct mf_sampler_options *options,
                               struct mf_error *error);
void mf_sampler_destroy(struct mf_sampler *sampler);
/* To where a sampler stood whose `epoch` and `cursor` (at most count) were these. */
void mf_sampler_seek(struct mf_sampler *sampler, uint32_t epoch, size_t cursor);
void mf_sampler_next(struct mf_sampler *sampler, struct mf_window *window);

/* Rows first .. first + result - 1 of a list of samples fit into `max_tokens` together, in order; at least 1.
 */
size_t mf_rows_that_fit(const struct mf_samples *samples, const size_t *sample, size_t first, size_t rows,
                        int64_t max_tokens);

#endif
