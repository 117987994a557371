/* The S3 client against a real server, straight and through a proxy that breaks things.
 * MF_TEST_S3_ENDPOINT, MF_TEST_S3_BUCKET (which exists and is empty of "test/") and AWS_* name it. */
#include "common/s3.h"

#include "common/text.h"
#include "tests/common/fault_proxy.h"
#include "tests/common/unit.h"

#include <fcntl.h>
#include <unistd.h>

static struct mf_error error;
static char sha256[MF_SHA256_TEXT_BYTES];
static const char *endpoint, *bucket;
static char key_id[128], secret[128];
static struct fault_proxy proxy;
static char folder[SCRATCH_BYTES];

/* A file of bytes that no part repeats. */
static int make_file(int64_t size) {
    char path[SCRATCH_BYTES + 16];
    snprintf(path, sizeof path, "%s/made", folder);
    int descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(descriptor >= 0);
    uint64_t word = (uint64_t)size + 88172645463325252ULL;
    static uint64_t block[8192];
    for (int64_t left = size; left > 0; left -= (int64_t)sizeof block) {
        for (size_t i = 0; i < sizeof block / sizeof *block; i++) {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            block[i] = word;
        }
        size_t n = left < (int64_t)sizeof block ? (size_t)left : sizeof block;
        assert_int_equal(write(descriptor, block, n), n);
    }
    return descriptor;
}

static int empty_file(void) {
    char path[SCRATCH_BYTES + 16];
    snprintf(path, sizeof path, "%s/got", folder);
    return open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static void assert_same(int a, int b) {
    static char left[65536], right[65536];
    off_t offset = 0;
    ssize_t n;
    do {
        n = pread(a, left, sizeof left, offset);
        assert_int_equal(pread(b, right, sizeof right, offset), n);
        assert_memory_equal(left, right, (size_t)n);
        offset += n;
    } while (n > 0);
}

static struct mf_s3 *session(const char *url) {
    struct mf_s3 *s3;
    const struct mf_s3_options options = {.endpoint = url, .part_bytes = 5 << 20, .attempts = 4};
    assert_status(mf_s3_open(&options, &s3, &error), MF_OK);
    return s3;
}

/* Puts and gets back by `url`. */
static void round_trip(const char *url, const char *key, int64_t size) {
    struct mf_s3 *s3 = session(url);
    struct mf_s3_object object;
    int from = make_file(size), to = empty_file();
    bool found;
    assert_status(mf_s3_put(s3, bucket, key, from, size, sha256, &error), MF_OK);
    assert_status(mf_s3_head(s3, bucket, key, &found, &object, &error), MF_OK);
    assert_true(found);
    assert_int_equal(object.size_bytes, size);
    assert_status(mf_s3_get(s3, bucket, key, to, size, &found, &error), MF_OK);
    assert_true(found);
    assert_same(from, to);
    char path[SCRATCH_BYTES + 16], own[MF_SHA256_TEXT_BYTES];
    snprintf(path, sizeof path, "%s/got", folder);
    assert_status(mf_file_sha256(path, own, NULL, &error), MF_OK);
    assert_string_equal(sha256, own);
    close(from);
    close(to);
    mf_s3_close(s3);
}

static void objects_come_back_as_they_were_put(void **state) {
    (void)state;
    round_trip(endpoint, "test/small", 1000);
    round_trip(endpoint, "test/empty", 0);
    round_trip(endpoint, "test/parts", (11 << 20) + 17); /* three parts */
    round_trip(endpoint, "test/odd/a b+c=d&e~f(g)'h!*,;:@$/\xC3\xA4.bin", 33);
}

static enum mf_status collect(void *context, const char *key, int64_t size, struct mf_error *failed) {
    (void)failed;
    struct mf_text *text = context;
    mf_text_printf(text, "%s=%lld\n", key, (long long)size);
    return MF_OK;
}

static void listing_and_removing(void **state) {
    (void)state;
    struct mf_s3 *s3 = session(endpoint);
    struct mf_s3_object object;
    struct mf_text listed = {0};
    bool found;
    assert_status(mf_s3_list(s3, bucket, "test/", collect, &listed, &error), MF_OK);
    assert_string_equal(mf_text_string(&listed),
                        "test/empty=0\ntest/odd/a b+c=d&e~f(g)'h!*,;:@$/\xC3\xA4.bin=33\n"
                        "test/parts=11534353\ntest/small=1000\n");
    mf_text_free(&listed);
    assert_status(mf_s3_delete(s3, bucket, "test/parts", &error), MF_OK);
    assert_status(mf_s3_delete(s3, bucket, "test/never", &error), MF_OK);
    assert_status(mf_s3_head(s3, bucket, "test/parts", &found, &object, &error), MF_OK);
    assert_false(found);
    int to = empty_file();
    assert_status(mf_s3_get(s3, bucket, "test/parts", to, 1, &found, &error), MF_OK);
    assert_false(found);
    assert_status(mf_s3_get(s3, bucket, "test/small", to, 999, &found, &error), MF_ERROR_IO);
    assert_contains(error.message, "holds 1000 bytes, at most 999");
    close(to);
    mf_s3_close(s3);
}

static void a_long_list_comes_in_pages(void **state) {
    (void)state;
    struct mf_s3 *s3 = session(endpoint);
    struct mf_text listed = {0};
    char key[64];
    int lines = 0, from = make_file(3);
    const int count = 1003; /* a page holds 1,000 */
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof key, "pages/%04d", i);
        assert_status(mf_s3_put(s3, bucket, key, from, 3, sha256, &error), MF_OK);
    }
    assert_status(mf_s3_list(s3, bucket, "pages/", collect, &listed, &error), MF_OK);
    for (const char *at = mf_text_string(&listed); (at = strchr(at, '\n')); at++)
        lines++;
    assert_int_equal(lines, count);
    assert_contains(mf_text_string(&listed), "pages/1002=3");
    mf_text_free(&listed);
    close(from);
    mf_s3_close(s3);
}

static void refusals_say_what_the_server_says(void **state) {
    (void)state;
    struct mf_s3 *s3 = session(endpoint);
    int from = make_file(10);
    assert_status(mf_s3_put(s3, "modelforge-no-such-bucket", "test/x", from, 10, sha256, &error),
                  MF_ERROR_IO);
    assert_contains(error.message, "NoSuchBucket");
    mf_s3_close(s3);
    setenv("AWS_SECRET_ACCESS_KEY", "another-secret", 1);
    s3 = session(endpoint);
    assert_status(mf_s3_put(s3, bucket, "test/x", from, 10, sha256, &error), MF_ERROR_IO);
    assert_contains(error.message, "SignatureDoesNotMatch");
    assert_contains(error.message, "credentials of the environment");
    assert_null(strstr(error.message, "another-secret"));
    mf_s3_close(s3);
    setenv("AWS_SECRET_ACCESS_KEY", secret, 1);
    close(from);
}

static void broken_connections_cost_nothing_but_time(void **state) {
    (void)state;
    atomic_store(&proxy.cut_bytes, 700000);
    atomic_store(&proxy.cut_requests, 2);
    round_trip(proxy.url, "test/cut", 6 << 20); /* the second request of the two sends a part */
    assert_int_equal(atomic_load(&proxy.cut_requests), 0);
    struct mf_s3 *s3 = session(proxy.url);
    int from = make_file(6 << 20), to = empty_file();
    bool found;
    atomic_store(&proxy.cut_bytes, 1000000);
    atomic_store(&proxy.cut_answers, 4); /* the look before, then three times the rest of it */
    assert_status(mf_s3_get(s3, bucket, "test/cut", to, 6 << 20, &found, &error), MF_OK);
    assert_int_equal(atomic_load(&proxy.cut_answers), 0);
    assert_same(from, to);
    close(from);
    close(to);
    mf_s3_close(s3);
}

static void a_busy_server_is_asked_again(void **state) {
    (void)state;
    atomic_store(&proxy.answer_503, 3);
    round_trip(proxy.url, "test/busy", 5000);
    assert_int_equal(atomic_load(&proxy.answer_503), 0);
    atomic_store(&proxy.answer_503, 100);
    struct mf_s3 *s3 = session(proxy.url);
    int from = make_file(10);
    assert_status(mf_s3_put(s3, bucket, "test/busy", from, 10, sha256, &error), MF_ERROR_IO);
    assert_contains(error.message, "503 SlowDown: the proxy says so");
    assert_int_equal(atomic_load(&proxy.answer_503), 92); /* four attempts, twice */
    atomic_store(&proxy.answer_503, 0);
    close(from);
    mf_s3_close(s3);
}

static void another_etag_is_noticed(void **state) {
    (void)state;
    struct mf_s3 *s3 = session(proxy.url);
    int from = make_file(6 << 20);
    atomic_store(&proxy.wrong_etags, 100);
    assert_status(mf_s3_put(s3, bucket, "test/etag", from, 6 << 20, sha256, &error), MF_ERROR_IO);
    assert_contains(error.message, "InvalidPart"); /* the server knows no such part */
    atomic_store(&proxy.wrong_etags, 1);
    assert_status(mf_s3_put(s3, bucket, "test/etag", from, 1000, sha256, &error), MF_OK); /* sent once more */
    assert_int_equal(atomic_load(&proxy.wrong_etags), 0);
    atomic_store(&proxy.wrong_etags, 1);
    assert_status(mf_s3_put(s3, bucket, "test/etag", from, 6 << 20, sha256, &error), MF_OK);
    close(from);
    mf_s3_close(s3);
}

static void renewed_credentials_are_read_again(void **state) {
    (void)state;
    struct mf_s3 *s3 = session(proxy.url);
    int from = make_file(10);
    atomic_store(&proxy.expired, 2);
    assert_status(mf_s3_put(s3, bucket, "test/expired", from, 10, sha256, &error), MF_ERROR_IO);
    assert_contains(error.message, "ExpiredToken");
    assert_int_equal(atomic_load(&proxy.expired), 0);
    mf_s3_close(s3);
    /* keys that were wrong when the session opened, and right when the server refused them */
    char path[SCRATCH_BYTES + 32], text[1024];
    unsetenv("AWS_ACCESS_KEY_ID");
    snprintf(path, sizeof path, "%s/credentials", folder);
    setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
    static const char old[] = "[default]\naws_access_key_id = OLDKEY\naws_secret_access_key = old\n";
    assert_status(mf_file_write_atomic(path, old, strlen(old), 0600, &error), MF_OK);
    s3 = session(endpoint);
    snprintf(text, sizeof text,
             "[other]\naws_access_key_id = x\n\n[default]\n# renewed\naws_access_key_id = %s\n"
             "aws_secret_access_key=%s\n",
             key_id, secret);
    assert_status(mf_file_write_atomic(path, text, strlen(text), 0600, &error), MF_OK);
    assert_status(mf_s3_put(s3, bucket, "test/expired", from, 10, sha256, &error), MF_OK);
    mf_s3_close(s3);
    setenv("AWS_ACCESS_KEY_ID", key_id, 1);
    setenv("AWS_SECRET_ACCESS_KEY", secret, 1);
    unsetenv("AWS_SHARED_CREDENTIALS_FILE");
    close(from);
}

static void a_full_server_is_a_full_disk(void **state) {
    (void)state;
    struct mf_s3 *s3 = session(proxy.url);
    int from = make_file(10);
    atomic_store(&proxy.full, 100);
    assert_status(mf_s3_put(s3, bucket, "test/full", from, 10, sha256, &error), MF_ERROR_DISK_FULL);
    atomic_store(&proxy.full, 0);
    close(from);
    bool found;
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC); /* this machine's own */
    assert_status(mf_s3_get(s3, bucket, "test/small", full, 1000, &found, &error), MF_ERROR_DISK_FULL);
    close(full);
    mf_s3_close(s3);
}

static int set_up(void **state) {
    (void)state;
    scratch_make(folder);
    fault_proxy_start(&proxy, endpoint);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    scratch_remove(folder);
    return 0;
}

int main(void) {
    endpoint = getenv("MF_TEST_S3_ENDPOINT");
    bucket = getenv("MF_TEST_S3_BUCKET");
    const char *id = getenv("AWS_ACCESS_KEY_ID"), *key = getenv("AWS_SECRET_ACCESS_KEY");
    if (!endpoint || !bucket || !id || !key)
        return 77;
    snprintf(key_id, sizeof key_id, "%s", id);
    snprintf(secret, sizeof secret, "%s", key);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_come_back_as_they_were_put),
        cmocka_unit_test(listing_and_removing),
        cmocka_unit_test(a_long_list_comes_in_pages),
        cmocka_unit_test(refusals_say_what_the_server_says),
        cmocka_unit_test(broken_connections_cost_nothing_but_time),
        cmocka_unit_test(a_busy_server_is_asked_again),
        cmocka_unit_test(another_etag_is_noticed),
        cmocka_unit_test(renewed_credentials_are_read_again),
        cmocka_unit_test(a_full_server_is_a_full_disk),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
