/* The steps of a long run in blocks: whole ones are written once, and come back whatever else is removed. */
#include "worker/trainer/steps_file.h"

#include "common/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

enum { MOST = 3 * MF_STEPS_BLOCK };

static char folder[] = "/tmp/modelforge-steps-XXXXXX";
static struct mf_error error;

static const char *at(const char *name) {
    static char path[4][256];
    static int next;
    snprintf(path[next %= 4], sizeof *path, "%s/%s", folder, name);
    return path[next++];
}

static int make_folder(void **state) {
    (void)state;
    return !mkdtemp(folder) || mf_directory_create(at("a"), 0755, &error) ||
           mf_directory_create(at("b"), 0755, &error);
}

static int remove_folder(void **state) {
    (void)state;
    return mf_tree_remove(folder, &error) != MF_OK;
}

static struct mf_history run(int64_t steps) {
    struct mf_history history = {.steps = steps, .step = calloc(MOST, sizeof *history.step)};
    assert_non_null(history.step);
    for (int64_t i = 0; i < steps; i++)
        history.step[i] =
            (struct mf_step_record){1.0 / (double)(i + 3), (double)i, 1e-300, -0.0, i * 1000000007};
    return history;
}

static ino_t inode(const char *name) {
    struct stat info;
    assert_int_equal(stat(at(name), &info), 0);
    return info.st_ino;
}

static void reads_back(const char *name, int64_t steps, const json_t *blocks) {
    struct mf_history wanted = run(steps), got = run(0);
    got.steps = steps;
    assert_int_equal(mf_steps_read(&got, at(name), blocks, "checkpoint.json", &error), MF_OK);
    assert_memory_equal(got.step, wanted.step, (size_t)steps * sizeof *got.step);
    mf_history_destroy(&got);
    mf_history_destroy(&wanted);
}

static void whole_blocks_are_written_once(void **state) {
    (void)state;
    struct mf_history history = run(2 * MF_STEPS_BLOCK + 5);
    json_t *early, *late;
    history.steps = MF_STEPS_BLOCK + 7;
    assert_int_equal(mf_steps_write(&history, at("once"), at("a"), &early, &error), MF_OK);
    history.steps = 2 * MF_STEPS_BLOCK + 5;
    assert_int_equal(mf_steps_write(&history, at("once"), at("b"), &late, &error), MF_OK);
    assert_int_equal(json_array_size(early), 2);
    assert_int_equal(json_array_size(late), 3);
    assert_int_equal(inode("a/steps-00000000.bin"), inode("b/steps-00000000.bin"));
    assert_int_not_equal(inode("a/steps-00000001.bin"), inode("b/steps-00000001.bin"));
    assert_int_equal(mf_tree_remove(at("once"), &error), MF_OK);
    reads_back("a", MF_STEPS_BLOCK + 7, early);
    assert_int_equal(mf_tree_remove(at("a"), &error), MF_OK);
    reads_back("b", 2 * MF_STEPS_BLOCK + 5, late);
    json_decref(early);

    /* where nothing can be linked each checkpoint has files of its own */
    assert_int_equal(mf_directory_create(at("c"), 0755, &error), MF_OK);
    json_t *again;
    assert_int_equal(mf_steps_write(&history, at("once"), at("c"), &again, &error), MF_OK);
    assert_true(json_equal(again, late));
    reads_back("c", 2 * MF_STEPS_BLOCK + 5, again);
    json_decref(again);
    json_decref(late);
    mf_history_destroy(&history);
}

static void damage_is_refused_by_name(void **state) {
    (void)state;
    struct mf_history history = run(MF_STEPS_BLOCK), got = run(0);
    json_t *blocks;
    assert_int_equal(mf_directory_create(at("d"), 0755, &error), MF_OK);
    assert_int_equal(mf_steps_write(&history, at("once"), at("d"), &blocks, &error), MF_OK);
    got.steps = MF_STEPS_BLOCK + 1;
    assert_int_equal(mf_steps_read(&got, at("d"), blocks, "x.json", &error), MF_ERROR_BAD_CHECKPOINT);
    assert_string_equal(error.message, "x.json: steps names 1 blocks, not 2");
    got.steps = MF_STEPS_BLOCK;
    history.step[17].loss = 4;
    assert_int_equal(mf_file_write_atomic(at("d/steps-00000000.bin"), history.step,
                                          MF_STEPS_BLOCK * sizeof *history.step, 0644, &error),
                     MF_OK);
    assert_int_equal(mf_steps_read(&got, at("d"), blocks, "x.json", &error), MF_ERROR_BAD_CHECKPOINT);
    assert_non_null(strstr(error.message, "d/steps-00000000.bin: the file is damaged"));
    assert_int_equal(mf_tree_remove(at("d/steps-00000000.bin"), &error), MF_OK);
    assert_int_not_equal(mf_steps_read(&got, at("d"), blocks, "x.json", &error), MF_OK);
    json_decref(blocks);
    mf_history_destroy(&got);
    mf_history_destroy(&history);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(whole_blocks_are_written_once),
                                       cmocka_unit_test(damage_is_refused_by_name)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
