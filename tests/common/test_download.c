/* Downloads: what is followed, what is refused, what is tried again. Broken connections and ranges are tested
 * against real servers: test_s3.c, tests/integration/hub.sh. */
#include "common/download.h"

#include "tests/common/http_server.h"
#include "tests/common/unit.h"

#include <fcntl.h>
#include <unistd.h>

static struct http_server *server;
static struct mf_error error;
static char folder[SCRATCH_BYTES], elsewhere[256];
static int busy, authorized;

static void answer(void *context, struct http_exchange *exchange) {
    (void)context;
    authorized += exchange->authorization != NULL;
    exchange->status = 200;
    snprintf(exchange->answer, sizeof exchange->answer, "0123456789");
    if (!strcmp(exchange->path, "/gone"))
        exchange->status = 404;
    if (!strcmp(exchange->path, "/busy") && busy-- > 0)
        exchange->status = 503;
    if (!strcmp(exchange->path, "/loop") || !strcmp(exchange->path, "/moved") ||
        !strcmp(exchange->path, "/away")) {
        exchange->status = 302;
        exchange->header = "Location";
        exchange->header_value = exchange->path[1] == 'l'   ? "/loop"
                                 : exchange->path[1] == 'm' ? "/file"
                                                            : elsewhere;
    }
}

static enum mf_status allow_all(void *context, const char *url, struct mf_error *failed) {
    (void)failed;
    snprintf(context, 256, "%s", url);
    return MF_OK;
}

static enum mf_status forbid(void *context, const char *url, struct mf_error *failed) {
    (void)context;
    return mf_error_set(failed, MF_ERROR_DATASET_FORBIDDEN, "not %s", url);
}

/* Fetches `path` into a file that holds `before` already; *text is what it holds afterwards. */
static enum mf_status fetch(const char *path, struct mf_download *download, const char *before, int *status,
                            char text[64]) {
    char url[512], name[SCRATCH_BYTES + 16];
    struct mf_download_result result;
    const struct mf_http_options options = {.attempts = 3, .backoff_ms = 1, .bearer_token = "token"};
    snprintf(url, sizeof url, "%s%s", http_server_url(server), path);
    snprintf(name, sizeof name, "%s/file", folder);
    assert_status(mf_file_write_atomic(name, before, strlen(before), 0600, &error), MF_OK);
    download->url = url;
    download->descriptor = open(name, O_RDWR | O_CLOEXEC);
    download->limit_bytes = download->limit_bytes ? download->limit_bytes : 1000;
    download->redirects = 3;
    authorized = 0;
    enum mf_status outcome = mf_download(&options, download, &result, &error);
    *status = result.status;
    ssize_t n = pread(download->descriptor, text, 63, 0);
    text[n > 0 ? n : 0] = 0;
    close(download->descriptor);
    mf_text_free(&result.body);
    return outcome;
}

static void what_a_server_answers(void **state) {
    (void)state;
    struct mf_download download = {.expected_bytes = -1};
    char text[64];
    int status;
    assert_status(fetch("/file", &download, "", &status, text), MF_OK);
    assert_string_equal(text, "0123456789");
    assert_int_equal(authorized, 1);
    assert_status(fetch("/file", &download, "abc", &status, text), MF_OK); /* it knows no ranges */
    assert_string_equal(text, "0123456789");
    assert_status(fetch("/gone", &download, "", &status, text), MF_ERROR_HTTP);
    assert_int_equal(status, 404);
    assert_string_equal(text, "");
    busy = 2;
    assert_status(fetch("/busy", &download, "", &status, text), MF_OK);
    busy = 3;
    assert_status(fetch("/busy", &download, "", &status, text), MF_ERROR_HTTP);
    assert_int_equal(status, 503);
    download.limit_bytes = 9;
    assert_status(fetch("/file", &download, "", &status, text), MF_ERROR_HTTP);
    assert_contains(error.message, "longer than 9 bytes");
    download = (struct mf_download){.expected_bytes = 11};
    assert_status(fetch("/file", &download, "", &status, text), MF_ERROR_HTTP);
    assert_contains(error.message, "got 10 bytes of 11");
}

static void where_redirects_may_lead(void **state) {
    (void)state;
    struct mf_download download = {.expected_bytes = -1};
    char text[64], asked[256] = "";
    int status;
    assert_status(fetch("/moved", &download, "", &status, text), MF_OK);
    assert_string_equal(text, "0123456789");
    assert_int_equal(authorized, 2);
    assert_status(fetch("/loop", &download, "", &status, text), MF_ERROR_HTTP);
    assert_contains(error.message, "more than 3 redirects");
    snprintf(elsewhere, sizeof elsewhere, "http://localhost%s/file", strrchr(http_server_url(server), ':'));
    assert_status(fetch("/away", &download, "", &status, text),
                  MF_ERROR_HTTP); /* another host, a private address */
    assert_contains(error.message, "private address");
    download.allow = allow_all;
    download.context = asked;
    assert_status(fetch("/away", &download, "", &status, text), MF_OK);
    assert_string_equal(asked, elsewhere);
    assert_int_equal(authorized, 1); /* the token stayed with the first host */
    download.allow = forbid;
    assert_status(fetch("/moved", &download, "", &status, text), MF_ERROR_DATASET_FORBIDDEN);
    snprintf(elsewhere, sizeof elsewhere, "file:///etc/passwd");
    download.allow = NULL;
    assert_status(fetch("/away", &download, "", &status, text), MF_ERROR_HTTP);
    assert_contains(error.message, "is not followed");
}

static void origins(void **state) {
    (void)state;
    char origin[64];
    assert_true(mf_url_origin("HTTPS://Host.Example:8443/Path", origin, sizeof origin));
    assert_string_equal(origin, "https://host.example:8443");
    assert_true(mf_url_origin("http://h?x", origin, sizeof origin));
    assert_string_equal(origin, "http://h");
    assert_false(mf_url_origin("https://user@host/", origin, sizeof origin));
    assert_false(mf_url_origin("https:///path", origin, sizeof origin));
    assert_false(mf_url_origin("ftp://host/", origin, sizeof origin));
    assert_false(mf_url_origin("", origin, sizeof origin));
    char *url = mf_url_resolve("https://host/a/b?c", "../d");
    assert_string_equal(url, "https://host/d");
    free(url);
}

static int set_up(void **state) {
    (void)state;
    scratch_make(folder);
    server = http_server_start(answer, NULL);
    return server == NULL;
}

static int tear_down(void **state) {
    (void)state;
    http_server_stop(server);
    scratch_remove(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_server_answers),
        cmocka_unit_test(where_redirects_may_lead),
        cmocka_unit_test(origins),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
