/* A folder put in another's place is there at every moment. */
#include "providers/folder.h"

#include "common/files.h"
#include "tests/providers/scratch.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

enum { TURNS = 500 };

struct watch {
    char path[256];
    atomic_bool over;
    long looks, missing;
};

static void *look(void *argument) {
    struct watch *watch = argument;
    struct stat info;
    while (!atomic_load(&watch->over)) {
        watch->missing += stat(watch->path, &info) != 0;
        watch->looks++;
    }
    return NULL;
}

static void put(const char *folder, const char *text) {
    char name[64];
    struct mf_error error;
    assert_int_equal(mf_directory_create(scratch_path(folder), 0755, &error), MF_OK);
    snprintf(name, sizeof name, "%s/file", folder);
    scratch_puts(name, text);
}

static void is_there_at_every_moment(void **state) {
    (void)state;
    struct watch watch = {.over = false};
    char made[256], text[16];
    struct mf_error error;
    pthread_t thread;
    put("folder", "first");
    snprintf(watch.path, sizeof watch.path, "%s/folder/file", scratch_folder());
    snprintf(made, sizeof made, "%s/made", scratch_folder());
    assert_int_equal(pthread_create(&thread, NULL, look, &watch), 0);
    for (int turn = 0; turn < TURNS; turn++) {
        snprintf(text, sizeof text, "%d", turn);
        put("made", text);
        char folder[256];
        snprintf(folder, sizeof folder, "%s/folder", scratch_folder());
        assert_int_equal(mf_folder_replace(made, folder, &error), MF_OK);
        assert_false(mf_path_exists(made));
        char *read = NULL;
        assert_int_equal(mf_file_read(watch.path, 64, &read, NULL, &error), MF_OK);
        assert_string_equal(read, text);
        free(read);
    }
    atomic_store(&watch.over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(watch.looks > 0);
    assert_int_equal(watch.missing, 0);
}

static void takes_a_name_that_is_free(void **state) {
    (void)state;
    char made[256], folder[256];
    struct mf_error error;
    put("made", "new");
    snprintf(made, sizeof made, "%s/made", scratch_folder());
    snprintf(folder, sizeof folder, "%s/folder", scratch_folder());
    assert_int_equal(mf_folder_replace(made, folder, &error), MF_OK);
    assert_true(mf_path_exists(folder));
    assert_false(mf_path_exists(made));
    assert_int_equal(mf_folder_replace(made, folder, &error), MF_ERROR_IO);
    assert_true(mf_path_exists(folder));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(is_there_at_every_moment, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(takes_a_name_that_is_free, scratch_make, scratch_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
