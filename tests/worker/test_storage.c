/* Artifacts: whole or not at all, hashed from the bytes that are kept, never from outside of the attempt's
 * folder. */
#include "worker/storage.h"

#include "common/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[] = "/tmp/modelforge-storage-XXXXXX";
static char attempt[128], url[128];
static struct mf_storage *storage;
static struct mf_error error;

static void put(const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", attempt, name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    assert_int_equal(mf_directory_create(path, 0700, &error), MF_OK);
    *slash = '/';
    assert_int_equal(mf_file_write_atomic(path, text, strlen(text), 0600, &error), MF_OK);
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(root))
        return 1;
    snprintf(attempt, sizeof attempt, "%s/attempt", root);
    snprintf(url, sizeof url, "file://%s/storage", root);
    return mf_storage_open(&(struct mf_storage_options){.url = url}, &storage, &error) != MF_OK;
}

static int tear_down(void **state) {
    (void)state;
    mf_storage_close(storage);
    enum mf_status status = mf_tree_remove(root, &error);
    snprintf(strrchr(root, '-') + 1, 7, "XXXXXX");
    return status != MF_OK;
}

static void a_folder_is_stored_whole_with_the_digest_of_its_files(void **state) {
    (void)state;
    put("out/b.txt", "two\n");
    put("out/a/z.txt", "one\n");
    put("out/a-b.txt", ""); /* sorts before a/z.txt as a whole path */
    struct mf_stored_artifact stored;
    assert_int_equal(
        mf_storage_publish(storage, attempt, "out", "tenant/job/attempt/adapter", NULL, &stored, &error),
        MF_OK);
    char command[1024], line[128] = "", uri[256];
    snprintf(uri, sizeof uri, "%s/tenant/job/attempt/adapter", url);
    assert_string_equal(stored.uri, uri);
    assert_int_equal(stored.size_bytes, 8);
    assert_int_equal(stored.files, 3);
    snprintf(command, sizeof command,
             "cd %s && find . -type f -printf '%%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum",
             stored.uri + strlen("file://"));
    FILE *pipe = popen(command, "r"); /* the outside witness */
    assert_non_null(pipe);
    assert_non_null(fgets(line, sizeof line, pipe));
    pclose(pipe);
    line[64] = 0;
    assert_string_equal(stored.sha256, line);
    mf_stored_artifact_free(&stored);
}

static void a_file_has_the_digest_of_its_bytes(void **state) {
    (void)state;
    char sha256[MF_SHA256_TEXT_BYTES], absolute[256];
    put("training.json", "{}\n");
    struct mf_stored_artifact stored;
    snprintf(absolute, sizeof absolute, "%s/training.json", attempt);
    assert_int_equal(
        mf_storage_publish(storage, attempt, absolute, "t/j/a/training.json", NULL, &stored, &error), MF_OK);
    assert_int_equal(mf_sha256_text("{}\n", 3, sha256, &error), MF_OK);
    assert_string_equal(stored.sha256, sha256);
    mf_stored_artifact_free(&stored);
}

static void refuse(const char *path, const char *message) {
    struct mf_stored_artifact stored;
    char expected[512];
    assert_int_equal(mf_storage_publish(storage, attempt, path, "t/j/a/adapter", NULL, &stored, &error),
                     MF_ERROR_PROVIDER_PROTOCOL);
    snprintf(expected, sizeof expected, "the trainer named the artifact '%s', which %s", path, message);
    assert_string_equal(error.message, expected);
    char target[256];
    snprintf(target, sizeof target, "%s/t/j/a/adapter", url + strlen("file://"));
    assert_int_not_equal(access(target, F_OK), 0);
}

static void nothing_from_outside_and_nothing_but_files(void **state) {
    (void)state;
    char path[256];
    put("out/a.txt", "one\n");
    refuse("/etc", "leads out of the attempt's folder");
    refuse("../storage", "leads out of the attempt's folder");
    refuse("out/none", "cannot be opened");
    snprintf(path, sizeof path, "%s/escape", attempt);
    assert_int_equal(symlink("/etc", path), 0);
    refuse("escape", "leads out of the attempt's folder");
    snprintf(path, sizeof path, "%s/out/link", attempt);
    assert_int_equal(symlink("a.txt", path), 0);
    refuse("out", "holds a symbolic link");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* opening one must not wait */
    refuse("out", "is or holds something that is neither a file nor a folder");
    unlink(path);
    put("out/two\nlines", "");
    refuse("out", "holds a file whose name has a line break or backslash");
}

static void depth_is_bounded(void **state) {
    (void)state;
    put("out/1/2/3/4/5/6/7/8/9/deep.txt", "x");
    refuse("out", "is nested too deep");
}

static void a_key_is_written_once(void **state) {
    (void)state;
    struct mf_stored_artifact stored;
    put("out/a.txt", "one\n");
    assert_int_equal(mf_storage_publish(storage, attempt, "out", "t/j/a/adapter", NULL, &stored, &error),
                     MF_OK);
    mf_stored_artifact_free(&stored);
    put("out/a.txt", "two\n");
    assert_int_equal(mf_storage_publish(storage, attempt, "out", "t/j/a/adapter", NULL, &stored, &error),
                     MF_ERROR_PROVIDER_PROTOCOL);
    char path[256], *text;
    snprintf(path, sizeof path, "%s/t/j/a/adapter/a.txt", url + strlen("file://"));
    assert_int_equal(mf_file_read(path, 100, &text, NULL, &error), MF_OK);
    assert_string_equal(text, "one\n");
    free(text);
}

static char *locate(const char *uri) {
    char *path;
    assert_int_equal(mf_storage_fetch(storage, uri, "", "", NULL, &path, &error), MF_OK);
    return path;
}

static void what_is_there_is_found_and_nothing_else(void **state) {
    (void)state;
    char *path, far[6000] = "file:///";
    struct mf_stored_artifact stored;
    put("step/state", "one\n");
    assert_int_equal(mf_storage_publish(storage, attempt, "step", "t/j/a/step", NULL, &stored, &error),
                     MF_OK);
    path = locate(stored.uri);
    assert_non_null(path);
    assert_string_equal(path, stored.uri + strlen("file://"));
    free(path);
    assert_null(locate("s3://bucket/t/j/a/step"));
    assert_null(locate("file:///etc")); /* there, but not of this storage */
    assert_int_equal(mf_tree_remove(stored.uri + strlen("file://"), &error), MF_OK);
    assert_null(locate(stored.uri));
    memset(far + strlen(far), 'x', 5000); /* no answer is not "gone" */
    assert_int_equal(mf_storage_fetch(storage, far, "", "", NULL, &path, &error), MF_ERROR_IO);
    assert_int_equal(mf_tree_remove(url + strlen("file://"), &error), MF_OK);
    assert_int_equal(mf_storage_fetch(storage, stored.uri, "", "", NULL, &path, &error),
                     MF_ERROR_IO); /* away as a whole */
    mf_stored_artifact_free(&stored);
}

static void other_schemes_are_refused_by_name(void **state) {
    (void)state;
    struct mf_storage *other;
    assert_int_equal(mf_storage_open(&(struct mf_storage_options){.url = "ftp://host/x"}, &other, &error),
                     MF_ERROR_CONFIGURATION);
    assert_string_equal(error.message, "storage.url: 'ftp://host/x' is neither file:///folder nor "
                                       "s3://bucket/prefix, the kinds that there are");
    assert_int_equal(mf_storage_open(&(struct mf_storage_options){.url = "s3://B/x"}, &other, &error),
                     MF_ERROR_CONFIGURATION);
    assert_string_equal(error.message, "storage.url: 's3://B/x' is not s3://bucket/prefix");
    unsetenv("AWS_ACCESS_KEY_ID");
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
    setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
    assert_int_equal(mf_storage_open(&(struct mf_storage_options){.url = "s3://bucket"}, &other, &error),
                     MF_ERROR_CONFIGURATION);
    assert_non_null(strstr(error.message, "storage.url: s3: no credentials: set AWS_ACCESS_KEY_ID"));
}

enum { LISTED_BYTES = 4096 };

static enum mf_status collect(void *context, const struct mf_storage_entry *entry, struct mf_error *failed) {
    (void)failed;
    char *text = context;
    size_t used = strlen(text);
    snprintf(text + used, LISTED_BYTES - used, "%.8s %s %lld\n", entry->attempt_id,
             entry->uri + strlen(url) + 1, (long long)entry->size_bytes);
    return MF_OK;
}

static void objects_are_listed_and_removed_whole(void **state) {
    (void)state;
#define ATTEMPT "01234567-89ab-4def-8123-456789abcdef"
    static const char *const keys[] = {"t/j/" ATTEMPT "/adapter", "t/j/" ATTEMPT "/checkpoints/step-2",
                                       "t/j/" ATTEMPT "/checkpoints/step-3", "elsewhere/file"};
    char listed[LISTED_BYTES] = "", first[512];
    struct mf_stored_artifact stored;
    put("out/a.txt", "one\n");
    put("out/b/c.txt", "seven\n");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        assert_int_equal(mf_storage_publish(storage, attempt, "out", keys[i], NULL, &stored, &error), MF_OK);
        if (i == 1)
            snprintf(first, sizeof first, "%s", stored.uri);
        mf_stored_artifact_free(&stored);
    }
    assert_int_equal(mf_storage_each(storage, collect, listed, &error), MF_OK);
    assert_string_equal(listed, "01234567 t/j/" ATTEMPT "/adapter 10\n"
                                "01234567 t/j/" ATTEMPT "/checkpoints/step-2 10\n"
                                "01234567 t/j/" ATTEMPT "/checkpoints/step-3 10\n");
    assert_int_equal(mf_storage_remove(storage, first, &error), MF_OK);
    assert_int_equal(mf_storage_remove(storage, first, &error), MF_OK);
    assert_int_equal(mf_storage_remove(storage, url, &error), MF_OK); /* never the whole */
    assert_int_equal(mf_storage_remove(storage, "file:///etc/passwd", &error), MF_OK);
    *listed = 0;
    assert_int_equal(mf_storage_each(storage, collect, listed, &error), MF_OK);
    assert_string_equal(listed, "01234567 t/j/" ATTEMPT "/adapter 10\n"
                                "01234567 t/j/" ATTEMPT "/checkpoints/step-3 10\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_folder_is_stored_whole_with_the_digest_of_its_files, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_file_has_the_digest_of_its_bytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_from_outside_and_nothing_but_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(depth_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_key_is_written_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_there_is_found_and_nothing_else, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_schemes_are_refused_by_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(objects_are_listed_and_removed_whole, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
