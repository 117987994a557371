#include "tests/common/unit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[SCRATCH_BYTES];

static int set_up(void **state) {
    (void)state;
    scratch_make(root);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    scratch_remove(root);
    return 0;
}

/* Path of a name in the scratch folder, valid until the fourth call after. */
static const char *in_root(const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

static void write_file(const char *name, const char *text) {
    struct mf_error error;
    assert_status(mf_file_write_atomic(in_root(name), text, strlen(text), 0640, &error), MF_OK);
}

static void files_are_read_whole_and_bounded(void **state) {
    (void)state;
    struct mf_error error;
    char *data;
    size_t size;
    write_file("a", "hello");
    assert_status(mf_file_read(in_root("a"), 5, &data, &size, &error), MF_OK);
    assert_int_equal(size, 5);
    assert_string_equal(data, "hello");
    free(data);
    assert_status(mf_file_read(in_root("a"), 4, &data, &size, &error), MF_ERROR_IO);
    assert_contains(error.message, "holds 5 bytes, at most 4 are read");
    assert_null(data);
    assert_status(mf_file_read(in_root("missing"), 9, &data, &size, &error), MF_ERROR_IO);
    assert_contains(error.message, "No such file");
    assert_status(mf_file_read(root, 9, &data, &size, &error), MF_ERROR_IO);
    assert_int_equal(mkfifo(in_root("pipe"), 0600), 0);
    assert_status(mf_file_read(in_root("pipe"), 9, &data, &size, &error),
                  MF_ERROR_IO); /* and does not hang */
    assert_contains(error.message, "not a regular file");
}

static void writing_replaces_and_leaves_nothing_behind(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_atomic_file file;
    struct stat information;
    char *data;
    uint64_t size;
    write_file("a", "old");
    assert_status(mf_atomic_file_open(in_root("a"), 0600, &file, &error), MF_OK);
    assert_status(mf_descriptor_write(file.descriptor, "new!", 4, "a", &error), MF_OK);
    assert_status(mf_file_read(in_root("a"), 9, &data, NULL, &error), MF_OK);
    assert_string_equal(data, "old"); /* until commit */
    free(data);
    assert_status(mf_atomic_file_commit(&file, &error), MF_OK);
    assert_status(mf_file_read(in_root("a"), 9, &data, NULL, &error), MF_OK);
    assert_string_equal(data, "new!");
    free(data);
    assert_int_equal(stat(in_root("a"), &information), 0);
    assert_int_equal(information.st_mode & 0777, 0600);
    assert_status(mf_atomic_file_open(in_root("a"), 0600, &file, &error), MF_OK);
    assert_status(mf_descriptor_write(file.descriptor, "lost", 4, "a", &error), MF_OK);
    mf_atomic_file_abandon(&file);
    assert_status(mf_atomic_file_commit(&file, &error), MF_ERROR_IO);
    assert_status(mf_tree_size(root, &size, &error), MF_OK);
    assert_int_equal(size, 4); /* no temporary file is left */
    assert_status(mf_file_write_atomic(in_root("no/such/folder"), "x", 1, 0600, &error), MF_ERROR_IO);
}

static void a_full_disk_is_told_as_such(void **state) {
    (void)state;
    struct mf_error error;
    int full = open("/dev/full", O_WRONLY);
    assert_true(full >= 0);
    assert_status(mf_descriptor_write(full, "x", 1, "/dev/full", &error), MF_ERROR_DISK_FULL);
    close(full);
}

static void folders_are_made_with_their_parents(void **state) {
    (void)state;
    struct mf_error error;
    assert_status(mf_directory_create(in_root("a/b//c/"), 0755, &error), MF_OK);
    assert_status(mf_directory_create(in_root("a/b/c"), 0755, &error), MF_OK);
    assert_true(mf_path_exists(in_root("a/b/c")));
    assert_false(mf_path_exists(in_root("a/b/d")));
    assert_status(mf_directory_sync(in_root("a/b"), &error), MF_OK);
    write_file("file", "x");
    assert_status(mf_directory_create(in_root("file/d"), 0755, &error), MF_ERROR_IO);
    assert_status(mf_directory_create(in_root("file"), 0755, &error), MF_ERROR_IO);
    char *joined = mf_path_join("a//", "/b");
    assert_string_equal(joined, "a/b");
    free(joined);
    joined = mf_path_join("/", "b");
    assert_string_equal(joined, "/b");
    free(joined);
}

static void opens(const char *path, enum mf_status expected) {
    struct mf_error error;
    int descriptor;
    enum mf_status status = mf_path_open_beneath(in_root("jail"), path, O_RDONLY, 0, &descriptor, &error);
    if (status != expected)
        fail_msg("opening %s gave %s: %s", path, mf_status_code(status), error.message);
    if (!status)
        close(descriptor);
    else
        assert_int_equal(descriptor, -1);
}

static void no_path_leads_out_of_its_root(void **state) {
    (void)state;
    struct mf_error error;
    int descriptor;
    assert_status(mf_directory_create(in_root("jail/in"), 0755, &error), MF_OK);
    assert_status(mf_directory_create(in_root("jail2"), 0755, &error), MF_OK);
    write_file("jail/in/file", "x");
    write_file("jail2/file", "x");
    write_file("outside", "x");
    assert_int_equal(symlink("/etc", in_root("jail/absolute")), 0);
    assert_int_equal(symlink("../outside", in_root("jail/relative")), 0);
    assert_int_equal(symlink("in/file", in_root("jail/inner")), 0);
    opens("in/file", MF_OK);
    opens("./in/../in/file", MF_OK);
    opens("inner", MF_OK);
    opens(in_root("jail/in/file"), MF_OK);
    opens(in_root("jail"), MF_OK);
    opens("in", MF_OK);
    opens("../outside", MF_ERROR_INVALID_FIELD);
    opens("in/../../outside", MF_ERROR_INVALID_FIELD);
    opens("absolute/passwd", MF_ERROR_INVALID_FIELD);
    opens("relative", MF_ERROR_INVALID_FIELD);
    opens("/etc/passwd", MF_ERROR_INVALID_FIELD);
    opens(in_root("jail2/file"), MF_ERROR_INVALID_FIELD);
    opens("missing", MF_ERROR_IO);
    assert_status(mf_path_open_beneath(in_root("jail"), "in/new", O_WRONLY | O_CREAT | O_EXCL, 0600,
                                       &descriptor, &error),
                  MF_OK);
    close(descriptor);
    assert_true(mf_path_exists(in_root("jail/in/new")));
}

static void resolved_paths_are_real_and_inside(void **state) {
    (void)state;
    struct mf_error error;
    char *resolved;
    assert_status(mf_directory_create(in_root("jail/in"), 0755, &error), MF_OK);
    assert_status(mf_directory_create(in_root("jailbreak"), 0755, &error), MF_OK);
    write_file("jail/in/file", "x");
    assert_int_equal(symlink("in", in_root("jail/link")), 0);
    assert_int_equal(symlink("/etc/passwd", in_root("jail/out")), 0);
    assert_status(mf_path_resolve_beneath(in_root("jail"), "link/../in/./file", &resolved, &error), MF_OK);
    assert_contains(resolved, "/jail/in/file");
    free(resolved);
    assert_status(mf_path_resolve_beneath(in_root("jail"), "out", &resolved, &error), MF_ERROR_INVALID_FIELD);
    assert_null(resolved);
    assert_status(mf_path_resolve_beneath(in_root("jail"), in_root("jailbreak"), &resolved, &error),
                  MF_ERROR_INVALID_FIELD);
    assert_status(mf_path_resolve_beneath(in_root("jail"), "missing", &resolved, &error), MF_ERROR_IO);
    assert_status(mf_path_resolve_beneath("/", "/etc", &resolved, &error), MF_OK);
    free(resolved);
}

static void trees_are_measured_and_removed(void **state) {
    (void)state;
    struct mf_error error;
    uint64_t size;
    assert_status(mf_directory_create(in_root("tree/a/b"), 0755, &error), MF_OK);
    write_file("tree/one", "12345");
    write_file("tree/a/b/two", "123");
    write_file("kept", "1234567");
    assert_int_equal(symlink("../kept", in_root("tree/link")), 0);
    assert_int_equal(symlink(root, in_root("tree/a/loop")), 0);
    assert_status(mf_tree_size(in_root("tree"), &size, &error), MF_OK);
    assert_int_equal(size, 8);
    assert_status(mf_tree_size(in_root("kept"), &size, &error), MF_OK);
    assert_int_equal(size, 7);
    assert_status(mf_tree_size(in_root("missing"), &size, &error), MF_ERROR_IO);
    assert_status(mf_tree_remove(in_root("tree"), &error), MF_OK);
    assert_false(mf_path_exists(in_root("tree")));
    assert_true(mf_path_exists(in_root("kept")));
    assert_status(mf_tree_remove(in_root("tree"), &error), MF_OK);
}

static void files_have_a_digest(void **state) {
    (void)state;
    struct mf_error error;
    char text[MF_SHA256_TEXT_BYTES];
    uint64_t size;
    write_file("abc", "abc");
    assert_status(mf_file_sha256(in_root("abc"), text, &size, &error), MF_OK);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(size, 3);
    /* longer than one chunk: a million times "a", a published value */
    char *million = malloc(1000001);
    memset(million, 'a', 1000000);
    million[1000000] = 0;
    write_file("million", million);
    free(million);
    assert_status(mf_file_sha256(in_root("million"), text, NULL, &error), MF_OK);
    assert_string_equal(text, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_status(mf_file_sha256(in_root("missing"), text, &size, &error), MF_ERROR_IO);
    /* A pipe that nobody writes to is refused at once: waiting for it never ends. */
    assert_int_equal(mkfifo(in_root("silent"), 0600), 0);
    alarm(10);
    assert_status(mf_file_sha256(in_root("silent"), text, &size, &error), MF_ERROR_IO);
    alarm(0);
    assert_non_null(strstr(error.message, "not a regular file"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
        TEST(files_are_read_whole_and_bounded), TEST(writing_replaces_and_leaves_nothing_behind),
        TEST(a_full_disk_is_told_as_such),      TEST(folders_are_made_with_their_parents),
        TEST(no_path_leads_out_of_its_root),    TEST(resolved_paths_are_real_and_inside),
        TEST(trees_are_measured_and_removed),   TEST(files_have_a_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
