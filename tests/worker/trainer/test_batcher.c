/* Splits, orders and windows: complete, repeatable, and a function of the seed alone. */
#include "worker/trainer/batcher.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 1003 };

static struct mf_sample sample[ROWS];
static struct mf_samples samples = {.sample = sample, .count = ROWS};
static size_t all[ROWS];

static int make_samples(void **state) {
    (void)state;
    for (size_t i = 0; i < ROWS; i++) {
        sample[i] =
            (struct mf_sample){.length = (int32_t)(5 + i * 7919 % 101), .labelled = (int32_t)(1 + i % 4)};
        all[i] = i;
    }
    sample[700].length = 500;
    return 0;
}

static void test_permutation(void **state) {
    (void)state;
    size_t order[ROWS], again[ROWS], other[ROWS], small[5];
    bool seen[ROWS] = {0};
    mf_random_permutation(42, MF_RANDOM_EPOCH, 0, order, ROWS);
    mf_random_permutation(42, MF_RANDOM_EPOCH, 0, again, ROWS);
    assert_memory_equal(order, again, sizeof order);
    for (size_t i = 0; i < ROWS; i++) {
        assert_false(seen[order[i]]);
        seen[order[i]] = true;
    }
    mf_random_permutation(43, MF_RANDOM_EPOCH, 0, other, ROWS);
    assert_memory_not_equal(order, other, sizeof order);
    mf_random_permutation(42, MF_RANDOM_EPOCH, 1, other, ROWS);
    assert_memory_not_equal(order, other, sizeof order);
    mf_random_permutation(42, MF_RANDOM_SPLIT, 0, other, ROWS);
    assert_memory_not_equal(order, other, sizeof order);
    /* The documented generator, worked out by an independent program (tests/golden/make_permutation.py). */
    const size_t expected[5] = {0, 1, 3, 4, 2};
    mf_random_permutation(42, MF_RANDOM_SPLIT, 0, small, 5);
    assert_memory_equal(small, expected, sizeof expected);
    unsigned first[5] = {0}; /* every element comes first about equally often */
    for (uint32_t epoch = 0; epoch < 5000; epoch++) {
        mf_random_permutation(1, MF_RANDOM_EPOCH, epoch, small, 5);
        first[small[0]]++;
    }
    for (int i = 0; i < 5; i++)
        assert_in_range(first[i], 880, 1120);
}

static void test_split(void **state) {
    (void)state;
    struct mf_split split, again;
    struct mf_error error;
    assert_int_equal(mf_split_make(ROWS, 0.2, 7, &split, &error), MF_OK);
    assert_int_equal(mf_split_make(ROWS, 0.2, 7, &again, &error), MF_OK);
    assert_int_equal(split.eval_count, 201); /* ceil(200.6) */
    assert_int_equal(split.train_count, ROWS - 201);
    assert_memory_equal(split.eval, again.eval, split.eval_count * sizeof *split.eval);
    size_t train = 0, eval = 0;
    for (size_t i = 0; i < ROWS; i++) {
        if (train < split.train_count && split.train[train] == i)
            train++;
        else if (eval < split.eval_count && split.eval[eval] == i)
            eval++;
        else
            fail_msg("row %zu is nowhere", i);
    }
    mf_split_destroy(&again);
    mf_split_destroy(&split);
    assert_int_equal(mf_split_make(10, 0, 7, &split, &error), MF_OK);
    assert_int_equal(split.eval_count, 0);
    assert_int_equal(split.train_count, 10);
    mf_split_destroy(&split);
    assert_int_equal(mf_split_make(2, 0.99, 7, &split, &error), MF_OK);
    assert_int_equal(split.train_count, 1);
    mf_split_destroy(&split);
}

static void test_windows_cover_every_epoch(void **state) {
    (void)state;
    struct mf_sampler sampler;
    struct mf_window window;
    struct mf_error error;
    const struct mf_sampler_options options = {.seed = 5, .batch_size = 2, .accumulation = 4};
    assert_int_equal(mf_sampler_init(&sampler, &samples, all, ROWS, &options, &error), MF_OK);
    size_t order[2][ROWS];
    for (int epoch = 0; epoch < 2; epoch++) {
        unsigned seen[ROWS] = {0};
        size_t at = 0;
        for (int step = 0; step < 126; step++) { /* ceil(ceil(1003 / 2) / 4) */
            mf_sampler_next(&sampler, &window);
            assert_int_equal(window.rows, step < 125 ? 8 : 3);
            int64_t tokens = 0, labelled = 0;
            for (size_t i = 0; i < window.rows; i++) {
                seen[window.sample[i]]++;
                order[epoch][at++] = window.sample[i];
                tokens += sample[window.sample[i]].length;
                labelled += sample[window.sample[i]].labelled;
            }
            assert_int_equal(window.tokens, tokens);
            assert_int_equal(window.labelled, labelled);
        }
        for (size_t i = 0; i < ROWS; i++)
            assert_int_equal(seen[i], 1);
        assert_true(window.epoch == epoch + 1);
    }
    assert_memory_not_equal(order[0], order[1], sizeof order[0]);
    mf_sampler_destroy(&sampler);
}

static void test_grouping(void **state) {
    (void)state;
    struct mf_sampler sampler;
    struct mf_window window;
    struct mf_error error;
    const struct mf_sampler_options options = {
        .seed = 5, .batch_size = 4, .accumulation = 1, .group_by_length = true};
    assert_int_equal(mf_sampler_init(&sampler, &samples, all, ROWS, &options, &error), MF_OK);
    unsigned seen[ROWS] = {0};
    int spread = 0;
    for (int step = 0; step < 251; step++) {
        mf_sampler_next(&sampler, &window);
        if (!step)
            assert_int_equal(window.sample[0], 700); /* the longest of all */
        for (size_t i = 0; i < window.rows; i++) {
            seen[window.sample[i]]++;
            if (step && i)
                spread += sample[window.sample[i - 1]].length - sample[window.sample[i]].length;
        }
    }
    for (size_t i = 0; i < ROWS; i++)
        assert_int_equal(seen[i], 1);
    assert_true(spread < 3 * 1003); /* shuffled rows would differ by about 34 a neighbour */
    mf_sampler_destroy(&sampler);
}

static int ascending(const void *left, const void *right) {
    return *(const int32_t *)left - *(const int32_t *)right;
}

/* Packs are as full as TRL's (tests/golden/packs.json), hold every sample once, and come in another order in
 * the next epoch. */
static void test_packs_are_those_of_trl(void **state) {
    (void)state;
    json_t *cases = json_load_file("tests/golden/packs.json", 0, NULL), *one;
    size_t index;
    assert_non_null(cases);
    json_array_foreach(cases, index, one) {
        const json_t *lengths = json_object_get(one, "lengths"), *wanted = json_object_get(one, "packs");
        const size_t count = json_array_size(lengths), packs = json_array_size(wanted);
        struct mf_sample own[512];
        size_t order[512];
        int32_t full[512] = {0};
        unsigned seen[2][512] = {{0}};
        struct mf_samples list = {.sample = own, .count = count};
        struct mf_sampler sampler;
        struct mf_window window;
        struct mf_error error;
        for (size_t i = 0; i < count; i++) {
            own[i] = (struct mf_sample){.length = (int32_t)json_integer_value(json_array_get(lengths, i))};
            order[i] = i;
        }
        const struct mf_sampler_options options = {
            .seed = 5,
            .batch_size = 1,
            .accumulation = 1,
            .group_by_length = index % 2 == 1,
            .pack_tokens = (int32_t)json_integer_value(json_object_get(one, "room"))};
        assert_int_equal(mf_sampler_init(&sampler, &list, order, count, &options, &error), MF_OK);
        assert_int_equal(sampler.count, packs);
        for (size_t step = 0; step < 2 * packs; step++) {
            mf_sampler_next(&sampler, &window);
            assert_true(window.tokens <= options.pack_tokens);
            for (size_t i = 0; i < window.rows; i++)
                seen[step < packs ? 0 : 1][window.sample[i]]++;
            if (step < packs)
                full[step] = (int32_t)window.tokens;
        }
        for (size_t i = 0; i < count; i++)
            assert_true(seen[0][i] == 1 && seen[1][i] == 1);
        qsort(full, packs, sizeof *full, ascending);
        for (size_t i = 0; i < packs; i++)
            assert_int_equal(full[i], json_integer_value(json_array_get(wanted, i)));
        mf_sampler_destroy(&sampler);
    }
    json_decref(cases);
}

static void test_rows_that_fit(void **state) {
    (void)state;
    const size_t rows[] = {700, 0, 1, 2}; /* 500, 5, 46, 87 tokens */
    assert_int_equal(sample[1].length, 46);
    assert_int_equal(sample[2].length, 87);
    assert_int_equal(mf_rows_that_fit(&samples, rows, 0, 4, 100), 1);
    assert_int_equal(mf_rows_that_fit(&samples, rows, 1, 4, 51), 2);
    assert_int_equal(mf_rows_that_fit(&samples, rows, 1, 4, 50), 1);
    assert_int_equal(mf_rows_that_fit(&samples, rows, 1, 4, 1000), 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutation),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_windows_cover_every_epoch),
        cmocka_unit_test(test_grouping),
        cmocka_unit_test(test_packs_are_those_of_trl),
        cmocka_unit_test(test_rows_that_fit),
    };
    return cmocka_run_group_tests(tests, make_samples, NULL);
}
