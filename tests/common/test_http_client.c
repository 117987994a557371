#include "tests/common/unit.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/http_client.h"
#include "tests/common/http_server.h"

/* One path, one behaviour. */
static void behave(void *context, struct http_exchange *exchange) {
    (void)context;
    if (!strcmp(exchange->path, "/echo"))
        snprintf(exchange->answer, sizeof exchange->answer, "%s %s %s", exchange->method,
                 exchange->content_type ? exchange->content_type : "-", exchange->body);
    else if (!strcmp(exchange->path, "/who"))
        snprintf(exchange->answer, sizeof exchange->answer, "%s",
                 exchange->authorization ? exchange->authorization : "-");
    else if (!strcmp(exchange->path, "/missing"))
        exchange->status = 404;
    else if (!strcmp(exchange->path, "/broken"))
        exchange->status = 503;
    else if (!strcmp(exchange->path, "/heals"))
        exchange->status = exchange->number < 3 ? 500 : 200;
    else if (!strcmp(exchange->path, "/busy-once")) {
        exchange->status = exchange->number < 2 ? 429 : 200;
        exchange->header = "Retry-After";
        exchange->header_value = "1";
    } else if (!strcmp(exchange->path, "/large"))
        memset(exchange->answer, 'x', 10000);
    else if (!strcmp(exchange->path, "/moved")) {
        exchange->status = 302;
        exchange->header = "Location";
        exchange->header_value = "/echo";
    } else if (!strcmp(exchange->path, "/file")) {
        exchange->status = 302;
        exchange->header = "Location";
        exchange->header_value = "file:///etc/passwd";
    }
}

struct fixture {
    struct http_server *server;
    struct mf_http_client *client;
    struct mf_http_response response;
    struct mf_error error;
};

static int set_up(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    fixture->server = http_server_start(behave, NULL);
    *state = fixture;
    return fixture->server ? 0 : -1;
}

static int tear_down(void **state) {
    struct fixture *fixture = *state;
    mf_http_client_free(fixture->client);
    mf_http_response_free(&fixture->response);
    http_server_stop(fixture->server);
    free(fixture);
    return 0;
}

static enum mf_status get(struct fixture *fixture, const struct mf_http_options *options, const char *path) {
    char url[256];
    struct mf_error error;
    mf_http_client_free(fixture->client);
    assert_status(mf_http_client_new(options, &fixture->client, &error), MF_OK);
    snprintf(url, sizeof url, "%s%s", strstr(path, "://") ? "" : http_server_url(fixture->server), path);
    const struct mf_http_request request = {.method = "GET", .url = url};
    return mf_http_perform(fixture->client, &request, &fixture->response, &fixture->error);
}

static const struct mf_http_options quick = {.backoff_ms = 1, .attempts = 3, .timeout_ms = 10000};

static void bodies_go_both_ways(void **state) {
    struct fixture *fixture = *state;
    char url[128];
    struct mf_error error;
    snprintf(url, sizeof url, "%s/echo", http_server_url(fixture->server));
    assert_status(mf_http_client_new(&quick, &fixture->client, &error), MF_OK);
    const struct mf_http_request put = {
        .method = "PUT", .url = url, .content_type = "text/x", .body = "hello", .body_bytes = 5};
    assert_status(mf_http_perform(fixture->client, &put, &fixture->response, &error), MF_OK);
    assert_int_equal(fixture->response.status, 200);
    assert_string_equal(fixture->response.body.data, "PUT text/x hello");
    /* nothing of one request stays for the next */
    const struct mf_http_request after = {.method = "GET", .url = url};
    assert_status(mf_http_perform(fixture->client, &after, &fixture->response, &error), MF_OK);
    assert_string_equal(fixture->response.body.data, "GET - ");
}

static void answers_and_outages_are_told_apart(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(get(fixture, &quick, "/missing"), MF_OK);
    assert_int_equal(fixture->response.status, 404);
    assert_int_equal(fixture->response.attempts, 1);
    assert_int_equal(get(fixture, &quick, "/broken"), MF_ERROR_HTTP);
    assert_int_equal(fixture->response.status, 503);
    assert_int_equal(fixture->response.attempts, 3);
    assert_contains(fixture->error.message, "the server answered 503 (3 attempts)");
}

static void what_heals_is_asked_again(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(get(fixture, &quick, "/heals"), MF_OK);
    assert_int_equal(fixture->response.attempts, 3);
}

static void the_server_may_say_how_long_to_wait(void **state) {
    struct fixture *fixture = *state;
    int64_t begin_ms = mf_clock_monotonic_ms();
    assert_int_equal(get(fixture, &quick, "/busy-once"), MF_OK);
    assert_int_equal(fixture->response.attempts, 2);
    assert_true(mf_clock_monotonic_ms() - begin_ms >= 1000);
}

static void nobody_there_is_an_outage(void **state) {
    struct fixture *fixture = *state;
    /* a port that was free a moment ago */
    struct http_server *other = http_server_start(behave, NULL);
    char url[64];
    snprintf(url, sizeof url, "%s", http_server_url(other));
    http_server_stop(other);
    assert_int_equal(get(fixture, &quick, url), MF_ERROR_HTTP);
    assert_int_equal(fixture->response.attempts, 3);
    assert_int_equal(fixture->response.status, 0);
}

static void long_answers_are_cut_short(void **state) {
    struct fixture *fixture = *state;
    struct mf_http_options options = quick;
    options.response_limit_bytes = 9999;
    assert_int_equal(get(fixture, &options, "/large"), MF_ERROR_HTTP);
    assert_contains(fixture->error.message, "longer than 9999 bytes");
    assert_int_equal(fixture->response.attempts, 1);
    options.response_limit_bytes = 10000;
    assert_int_equal(get(fixture, &options, "/large"), MF_OK);
    assert_int_equal(fixture->response.body.length, 10000);
}

static void only_http_and_https_are_spoken(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(get(fixture, &quick, "file:///etc/passwd"), MF_ERROR_HTTP);
    assert_int_equal(get(fixture, &quick, "ftp://127.0.0.1/x"), MF_ERROR_HTTP);
    struct mf_http_options options = quick;
    options.redirects = 2;
    assert_int_equal(get(fixture, &options, "/file"), MF_ERROR_HTTP);
}

static void redirects_are_followed_only_when_asked(void **state) {
    struct fixture *fixture = *state;
    struct mf_http_options options = quick;
    assert_int_equal(get(fixture, &options, "/moved"), MF_OK);
    assert_int_equal(fixture->response.status, 302);
    options.redirects = 1;
    assert_int_equal(get(fixture, &options, "/moved"), MF_OK);
    assert_int_equal(fixture->response.status, 200);
}

static void credentials_are_sent_and_not_told(void **state) {
    struct fixture *fixture = *state;
    struct mf_http_options options = quick;
    options.username = "user";
    options.password = "geheim";
    assert_int_equal(get(fixture, &options, "/who"), MF_OK);
    assert_string_equal(fixture->response.body.data, "Basic dXNlcjpnZWhlaW0=");
    options = quick;
    options.bearer_token = "abc";
    assert_int_equal(get(fixture, &options, "/who"), MF_OK);
    assert_string_equal(fixture->response.body.data, "Bearer abc");
    assert_int_equal(get(fixture, &quick, "ftp://user:geheim@127.0.0.1/x"), MF_ERROR_HTTP);
    assert_null(strstr(fixture->error.message, "geheim"));
}

/* A listener that never answers. */
static int silent_listener(char url[64]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size) | listen(listener, 4), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    snprintf(url, 64, "http://127.0.0.1:%d/", ntohs(address.sin_port));
    return listener;
}

static void silence_ends_by_time_or_by_stop(void **state) {
    struct fixture *fixture = *state;
    char url[64];
    int listener = silent_listener(url);
    struct mf_http_options options = {.timeout_ms = 50, .attempts = 2, .backoff_ms = 1};
    assert_int_equal(get(fixture, &options, url), MF_ERROR_HTTP);
    assert_int_equal(fixture->response.attempts, 2);
    atomic_bool stop = true;
    options = (struct mf_http_options){.timeout_ms = 60000, .attempts = 5, .stop = &stop};
    int64_t begin_ms = mf_clock_monotonic_ms();
    assert_int_equal(get(fixture, &options, url), MF_ERROR_HTTP);
    assert_true(mf_clock_monotonic_ms() - begin_ms < 10000);
    assert_contains(fixture->error.message, "stopped");
    mf_http_client_free(fixture->client);
    fixture->client = NULL;
    close(listener);
}

static void segments_are_escaped(void **state) {
    (void)state;
    struct mf_text url = {0};
    mf_url_escape(&url, "a-B_1.~/?#%& \xC3\xA9");
    assert_string_equal(url.data, "a-B_1.~%2F%3F%23%25%26%20%C3%A9");
    mf_text_free(&url);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
        TEST(bodies_go_both_ways),
        TEST(answers_and_outages_are_told_apart),
        TEST(what_heals_is_asked_again),
        TEST(the_server_may_say_how_long_to_wait),
        TEST(nobody_there_is_an_outage),
        TEST(long_answers_are_cut_short),
        TEST(only_http_and_https_are_spoken),
        TEST(redirects_are_followed_only_when_asked),
        TEST(credentials_are_sent_and_not_told),
        TEST(silence_ends_by_time_or_by_stop),
        cmocka_unit_test(segments_are_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
