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

/* What a sort needs to know of one pack: longer first, then as shuffled. */
struct mf_ranked {
    size_t pack, place;
    int32_t length;
};

static int by_length(const void *left, const void *right) {
    const struct mf_ranked *a = left, *b = right;
    if (a->length != b->length)
        return a->length > b->length ? -1 : 1;
    return a->place < b->place ? -1 : a->place > b->place;
}

/* ---- packs
 * ------------------------------------------------------------------------------------------------- */

/* Packs under construction, found by the room that they have left. */
struct packer {
    struct mf_pack *pack;
    size_t *pack_of;     /* of each ranked sample */
    size_t *head, *tail; /* (room + 1) queues of packs with so much room: the first and the last, NONE */
    size_t *next;        /* of each pack in its queue */
    uint64_t *some;      /* bit r: a pack has room r */
    size_t packs, room;
};
#define NONE SIZE_MAX

static void offer_room(struct packer *packer, size_t pack, size_t room) {
    packer->next[pack] = NONE;
    if (packer->head[room] == NONE)
        packer->head[room] = pack;
    else
        packer->next[packer->tail[room]] = pack;
    packer->tail[room] = pack;
    packer->some[room / 64] |= UINT64_C(1) << room % 64;
}

/* Takes the pack with the least room that is at least `length`; NONE: there is none. */
static size_t take_pack(struct packer *packer, size_t length) {
    size_t word = length / 64;
    uint64_t bits = packer->some[word] & (UINT64_MAX << length % 64);
    while (!bits && ++word <= packer->room / 64)
        bits = packer->some[word];
    if (!bits)
        return NONE;
    const size_t room = word * 64 + (size_t)__builtin_ctzll(bits), pack = packer->head[room];
    packer->head[room] = packer->next[pack];
    if (packer->head[room] == NONE)
        packer->some[word] &= ~(UINT64_C(1) << room % 64);
    return pack;
}

/* Best fit over the ranked samples; fills pack_of and the packs' rows and tokens. */
static void fit_packs(struct packer *packer, const struct mf_ranked *ranked, size_t rows) {
    for (size_t i = 0; i <= packer->room; i++)
        packer->head[i] = NONE;
    for (size_t i = 0; i < rows; i++) {
        size_t pack = take_pack(packer, (size_t)ranked[i].length);
        if (pack == NONE) {
            pack = packer->packs++;
            packer->pack[pack] = (struct mf_pack){0};
        }
        packer->pack_of[i] = pack;
        packer->pack[pack].rows++;
        packer->pack[pack].tokens += ranked[i].length;
        offer_room(packer, pack, packer->room - (size_t)packer->pack[pack].tokens);
    }
}

/* Every sample is as long as a pack at most. */
static enum mf_status make_packs(struct mf_sampler *sampler, const size_t *index, struct mf_error *error) {
    const size_t rows = sampler->rows, room = (size_t)sampler->options.pack_tokens;
    struct mf_ranked *ranked = sampler->ranked;
    struct packer packer = {.pack = sampler->pack,
                            .room = room,
                            .pack_of = malloc((rows + 1) * sizeof(size_t)),
                            .head = malloc((room + 1) * sizeof(size_t)),
                            .tail = malloc((room + 1) * sizeof(size_t)),
                            .next = malloc((rows + 1) * sizeof(size_t)),
                            .some = calloc(room / 64 + 1, sizeof(uint64_t))};
    enum mf_status status = MF_OK;
    if (!packer.pack_of || !packer.head || !packer.tail || !packer.next || !packer.some) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "sampler: out of memory");
    } else {
        for (size_t i = 0; i < rows; i++)
            ranked[i] = (struct mf_ranked){index[i], i, sampler->samples->sample[index[i]].length};
        qsort(ranked, rows, sizeof *ranked, by_length);
        fit_packs(&packer, ranked, rows);
        sampler->count = packer.packs;
        for (size_t i = 1; i < packer.packs; i++)
            sampler->pack[i].first = sampler->pack[i - 1].first + sampler->pack[i - 1].rows;
        for (size_t i = 0; i < packer.packs; i++)
            packer.next[i] = sampler->pack[i].first;
        for (size_t i = 0; i < rows; i++)
            sampler->packed[packer.next[packer.pack_of[i]]++] = ranked[i].pack;
    }
    free(packer.pack_of);
    free(packer.head);
    free(packer.tail);
    free(packer.next);
    free(packer.some);
    return status;
}

static void make_single_packs(struct mf_sampler *sampler, const size_t *index) {
    sampler->count = sampler->rows;
    for (size_t i = 0; i < sampler->rows; i++) {
        sampler->packed[i] = index[i];
        sampler->pack[i] = (struct mf_pack){i, 1, sampler->samples->sample[index[i]].length};
    }
}

/* ---- epochs
 * ------------------------------------------------------------------------------------------------ */

static void group_by_length(struct mf_sampler *sampler) {
    struct mf_ranked *ranked = sampler->ranked;
    const size_t stretch = (size_t)sampler->options.batch_size * STRETCH_BATCHES;
    for (size_t i = 0; i < sampler->count; i++)
        ranked[i] = (struct mf_ranked){sampler->place[i], i, sampler->pack[sampler->place[i]].tokens};
    size_t longest = 0;
    for (size_t first = 0; first < sampler->count; first += stretch) {
        size_t packs = sampler->count - first < stretch ? sampler->count - first : stretch;
        qsort(ranked + first, packs, sizeof *ranked, by_length);
        if (ranked[first].length > ranked[longest].length)
            longest = first;
    }
    struct mf_ranked front = ranked[0];
    ranked[0] = ranked[longest];
    ranked[longest] = front;
    for (size_t i = 0; i < sampler->count; i++)
        sampler->place[i] = ranked[i].pack;
}

static void start_epoch(struct mf_sampler *sampler) {
    size_t row = 0;
    mf_random_permutation(sampler->options.seed, MF_RANDOM_EPOCH, sampler->epoch, sampler->place,
                          sampler->count);
    if (sampler->options.group_by_length)
        group_by_length(sampler);
    for (size_t i = 0; i < sampler->count; i++) {
        const struct mf_pack *pack = &sampler->pack[sampler->place[i]];
        sampler->start[i] = row;
        for (size_t k = 0; k < pack->rows; k++)
            sampler->order[row++] = sampler->packed[pack->first + k];
    }
    sampler->start[sampler->count] = row;
    sampler->cursor = 0;
}

enum mf_status mf_sampler_init(struct mf_sampler *sampler, const struct mf_samples *samples,
                               const size_t *index, size_t count, const struct mf_sampler_options *options,
                               struct mf_error *error) {
    const size_t room = (count + 1) * sizeof(size_t);
    *sampler = (struct mf_sampler){.options = *options,
                                   .samples = samples,
                                   .pack = malloc((count + 1) * sizeof(struct mf_pack)),
                                   .packed = malloc(room),
                                   .place = malloc(room),
                                   .order = malloc(room),
                                   .start = malloc(room),
                                   .ranked = malloc((count + 1) * sizeof(struct mf_ranked)),
                                   .rows = count};
    enum mf_status status = MF_OK;
    if (!sampler->pack || !sampler->packed || !sampler->place || !sampler->order || !sampler->start ||
        !sampler->ranked)
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "sampler: out of memory");
    else if (options->pack_tokens)
        status = make_packs(sampler, index, error);
    else
        make_single_packs(sampler, index);
    if (status == MF_OK)
        start_epoch(sampler);
    else
        mf_sampler_destroy(sampler);
    return status;
}

void mf_sampler_destroy(struct mf_sampler *sampler) {
    free(sampler->pack);
    free(sampler->packed);
    free(sampler->place);
    free(sampler->order);
    free(sampler->start);
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
    const size_t left = sampler->count - sampler->cursor, packs = left < most ? left : most;
    const size_t first = sampler->start[sampler->cursor], end = sampler->start[sampler->cursor + packs];
    *window = (struct mf_window){.sample = sampler->order + first, .rows = end - first};
    for (size_t i = 0; i < window->rows; i++) {
        window->tokens += sampler->samples->sample[window->sample[i]].length;
        window->labelled += sampler->samples->sample[window->sample[i]].labelled;
    }
    sampler->cursor += packs;
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
