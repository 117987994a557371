#include "tests/common/unit.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <unistd.h>

#include "common/log.h"

static int pipe_ends[2];

static int open_pipe(void **state) {
    (void)state;
    if (pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK))
        return -1;
    mf_log_set_descriptor(pipe_ends[1]);
    return 0;
}

static int close_pipe(void **state) {
    (void)state;
    mf_log_set_descriptor(STDERR_FILENO);
    mf_log_set_level(MF_LOG_INFO);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return 0;
}

/* What was logged, one line, as JSON; NULL when nothing was. */
static json_t *logged(void) {
    static char text[4 * MF_LOG_LINE_BYTES];
    ssize_t n = read(pipe_ends[0], text, sizeof text);
    if (n <= 0)
        return NULL;
    assert_true(n <= MF_LOG_LINE_BYTES);
    assert_int_equal(text[n - 1], '\n');
    assert_ptr_equal(memchr(text, '\n', (size_t)n), text + n - 1);
    json_error_t reason;
    json_t *line = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &reason);
    if (!line)
        fail_msg("not JSON: %s: %.*s", reason.text, (int)n, text);
    return line;
}

static const char *member(json_t *line, const char *name) {
    return json_string_value(json_object_get(line, name));
}

static void a_line_is_one_json_object(void **state) {
    (void)state;
    struct mf_error error;
    mf_error_set(&error, MF_ERROR_DATABASE, "gone \"away\"\n");
    mf_log_info("claimed a job", MF_LOG_TEXT("job_id", "a\tb"), MF_LOG_INTEGER("epoch", -3),
                MF_LOG_NUMBER("loss", 0.5), MF_LOG_NUMBER("bad", NAN), MF_LOG_BOOLEAN("exact", true),
                MF_LOG_TEXT("none", NULL), MF_LOG_FAILURE(&error));
    json_t *line = logged();
    assert_string_equal(member(line, "level"), "info");
    assert_string_equal(member(line, "message"), "claimed a job");
    assert_string_equal(member(line, "job_id"), "a\tb");
    assert_int_equal(json_integer_value(json_object_get(line, "epoch")), -3);
    assert_true(json_real_value(json_object_get(line, "loss")) == 0.5);
    assert_true(json_is_null(json_object_get(line, "bad")) && json_is_null(json_object_get(line, "none")));
    assert_true(json_is_true(json_object_get(line, "exact")));
    assert_string_equal(member(line, "code"), "database");
    assert_string_equal(member(line, "error"), "gone \"away\"\n");
    assert_non_null(member(line, "time"));
    json_decref(line);
}

static void levels_are_obeyed(void **state) {
    (void)state;
    enum mf_log_level level;
    mf_log_debug("hidden");
    assert_null(logged());
    assert_true(mf_log_level_parse("debug", &level));
    mf_log_set_level(level);
    mf_log_debug("shown");
    json_t *line = logged();
    assert_string_equal(member(line, "level"), "debug");
    json_decref(line);
    mf_log_set_level(MF_LOG_ERROR);
    mf_log_warning("hidden");
    assert_null(logged());
    assert_false(mf_log_level_parse("loud", &level));
    assert_string_equal(mf_log_level_name(MF_LOG_WARNING), "warning");
}

static void long_and_broken_text_still_gives_json(void **state) {
    (void)state;
    enum { BYTES = 40000 };
    char *text = malloc(BYTES + 1);
    static const char *const patterns[] = {"x", "\"", "\x01", "\xC3\xA9", "\xFF", "\xF0\x9F\x98\x80"};
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        size_t length = strlen(patterns[p]);
        for (size_t i = 0; i < BYTES; i++)
            text[i] = patterns[p][i % length];
        text[BYTES] = 0;
        /* the second and third fields may find no room, at any length of the first */
        for (size_t cut = 0; cut < 64; cut++) {
            text[16200 + cut] = 0;
            mf_log_info("long", MF_LOG_TEXT("text", text), MF_LOG_TEXT("more", text),
                        MF_LOG_INTEGER("n", INT64_MIN));
            text[16200 + cut] = patterns[p][(16200 + cut) % length];
            json_t *line = logged();
            assert_non_null(line);
            json_decref(line);
        }
    }
    free(text);
}

static void secrets_do_not_reach_the_log(void **state) {
    (void)state;
    mf_log_info("connecting to postgresql://worker:hunter2@db:5432/x",
                MF_LOG_TEXT("uri", "http://user:p%40ss@registry:8081/"));
    json_t *line = logged();
    assert_string_equal(member(line, "message"), "connecting to postgresql://worker:***@db:5432/x");
    assert_string_equal(member(line, "uri"), "http://user:***@registry:8081/");
    json_decref(line);
}

static void secrets_are_found_and_the_rest_stays(void **state) {
    (void)state;
    static const struct {
        const char *text, *redacted;
    } cases[] = {
        {"password=abc host=x", "password=*** host=x"},
        {"host=x password='a b' port=1", "host=x password='***' port=1"},
        {"kafka.sasl.password = geheim", "kafka.sasl.password = ***"},
        {"sslpassword=q;next", "sslpassword=***;next"},
        {"{\"hf_token\": \"abc\\\"def\", \"x\": 1}", "{\"hf_token\": \"***\", \"x\": 1}"},
        {"API_KEY=abc&x=1", "API_KEY=***&x=1"},
        {"Authorization: Bearer abcdefghijklmnopqrstuvwx", "Authorization: Bearer ***"},
        {"Authorization: Basic dXNlcjpwYXNzd29yZDEyMw==", "Authorization: Basic ***"},
        {"found hf_abcdefghijklmnopqrstuvwxyz in it", "found hf_*** in it"},
        {"a://u:p@h b://v:q@i", "a://u:***@h b://v:***@i"},
        {"postgresql://u:pa@ss@h/d", "postgresql://u:***@h/d"},
        /* these hold none */
        {"secret://name", "secret://name"},
        {"password=secret://db", "password=secret://db"},
        {"http://host:8080/a@b", "http://host:8080/a@b"},
        {"user@host", "user@host"},
        {"eos_token=</s>", "eos_token=</s>"},
        {"Basic authentication", "Basic authentication"},
        {"trained tokens=5", "trained tokens=5"},
        {"the token ends here", "the token ends here"},
        {"hf_model", "hf_model"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char redacted[256];
        assert_string_equal(mf_redact(cases[i].text, redacted, sizeof redacted), cases[i].redacted);
    }
}

static void redacted_text_fits_any_size(void **state) {
    (void)state;
    const char *text = "x://u:p@h \xC3\xA9\xC3\xA9 token=\xE2\x82\xAC end";
    for (size_t bytes = 1; bytes < 64; bytes++) {
        char *exact = malloc(bytes);
        mf_redact(text, exact, bytes);
        assert_true(strlen(exact) < bytes);
        json_t *readable = json_string(exact);
        assert_non_null(readable);
        json_decref(readable);
        free(exact);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_line_is_one_json_object, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(levels_are_obeyed, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(long_and_broken_text_still_gives_json, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(secrets_do_not_reach_the_log, open_pipe, close_pipe),
        cmocka_unit_test(secrets_are_found_and_the_rest_stays),
        cmocka_unit_test(redacted_text_fits_any_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
