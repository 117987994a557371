#include "tests/common/unit.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "common/text.h"

static const struct mf_option options[] = {
    {"database.url", MF_OPTION_STRING, NULL, 0, 0, NULL, true, true, "Where the database is."},
    {"lease.seconds", MF_OPTION_INTEGER, "30", 5, 3600, NULL, false, false, "How long a lease lasts."},
    {"poll.factor", MF_OPTION_NUMBER, "1.5", 0, 10, NULL, false, false, "Some factor."},
    {"drain", MF_OPTION_BOOLEAN, "true", 0, 0, NULL, false, false, "Drains on SIGTERM."},
    {"log.level", MF_OPTION_CHOICE, "info", 0, 0, "debug|info|warning", false, false, "How much is logged."},
    {"worker.id", MF_OPTION_STRING, NULL, 0, 0, NULL, false, false, "Its name."},
    {"pin", MF_OPTION_INTEGER, NULL, 0, 0, NULL, false, true, "A secret number."},
    {"kafka.*", MF_OPTION_PREFIX, NULL, 0, 0, NULL, false, false, "Goes to librdkafka."},
    {"gateway.*", MF_OPTION_ELSEWHERE, NULL, 0, 0, NULL, false, false, "Another program's."},
};
static const struct mf_config_table table = {"test-program", options, sizeof options / sizeof *options};

static char folder[SCRATCH_BYTES];
static char *file_path;

/* Takes every MODELFORGE_ variable away: whoever runs the tests may have some. */
static void clear_environment(void) {
    for (char **variable = environ; *variable;) {
        char name[256];
        size_t length = strcspn(*variable, "=");
        bool ours = !strncmp(*variable, "MODELFORGE_", 11) && length < sizeof name;
        memcpy(name, *variable, ours ? length : 0);
        name[ours ? length : 0] = 0;
        if (ours && !unsetenv(name))
            variable = environ;
        else
            variable++;
    }
}

static int set_up(void **state) {
    (void)state;
    file_path = mf_path_join(scratch_make(folder), "test.properties");
    clear_environment();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    clear_environment();
    free(file_path);
    scratch_remove(folder);
    return 0;
}

static enum mf_status load(const char *text, const struct mf_config_override *overrides, size_t count,
                           struct mf_config **config, struct mf_error *error) {
    struct mf_error ignored;
    mf_file_write_atomic(file_path, text, strlen(text), 0600, &ignored);
    return mf_config_load(&table, file_path, overrides, count, config, error);
}

static void file_environment_and_command_line_override_in_turn(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_config *config;
    const struct mf_config_override override = {"log.level", "debug"};
    setenv("MODELFORGE_LEASE_SECONDS", "60", 1);
    assert_status(load("# comment\n! another\n\n database.url = postgresql://a=b "
                       "\r\nlease.seconds=40\nlog.level=warning\n"
                       "worker.id=\ngateway.port=80",
                       &override, 1, &config, &error),
                  MF_OK);
    assert_string_equal(mf_config_string(config, "database.url"), "postgresql://a=b");
    assert_int_equal(mf_config_integer(config, "lease.seconds"), 60);
    assert_string_equal(mf_config_string(config, "log.level"), "debug");
    assert_string_equal(mf_config_string(config, "worker.id"), "");
    assert_true(mf_config_number(config, "poll.factor") == 1.5);
    assert_true(mf_config_boolean(config, "drain"));
    assert_true(mf_config_given(config, "log.level"));
    assert_false(mf_config_given(config, "poll.factor"));
    mf_config_free(config);
}

static void wrong_files_are_refused_with_line_and_name(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"database.url=x\nlease.second=3\n",
         ":2: unknown option lease.second, did you mean lease.seconds; test-program "
         "--help lists the options"},
        {"database.url=x\ndatabase.url=y\n", "was given at"},
        {"database.url=x\nlease.seconds=abc\n", ":2: lease.seconds: \"abc\" is not an integer"},
        {"database.url=x\nlease.seconds=4\n", ":2: lease.seconds: 4 is not in [5, 3600]"},
        {"database.url=x\nlease.seconds=99999999999999999999\n", "is not an integer"},
        {"database.url=x\npin=geheim\n", "pin: \"***\" is not an integer"},
        {"database.url=x\npoll.factor=nan\n", "is not a number"},
        {"database.url=x\ndrain=yes\n", "\"yes\" is neither true nor false"},
        {"database.url=x\nlog.level=inf\n", "\"inf\" is not one of debug|info|warning"},
        {"database.url=x\njust words\n", ":2: expected name = value"},
        {"=x\n", ":1: expected name = value"},
        {"lease.seconds=30\n",
         "test-program needs the option database.url: Where the database is. (in the properties "
         "file, or as MODELFORGE_DATABASE_URL)"},
        {"database.url=x\nkafka.=1\n", ":2: unknown option kafka."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mf_error error = {0};
        struct mf_config *config;
        assert_status(load(cases[i].text, NULL, 0, &config, &error), MF_ERROR_CONFIGURATION);
        assert_null(config);
        assert_contains(error.message, cases[i].expected);
    }
}

static enum mf_status note(void *context, const char *rest, const char *value, struct mf_error *error) {
    (void)error;
    mf_text_printf(context, "%s=%s;", rest, value);
    return MF_OK;
}

static enum mf_status refuse(void *context, const char *rest, const char *value, struct mf_error *error) {
    (void)context, (void)value;
    return mf_error_set(error, MF_ERROR_KAFKA, "%s", rest);
}

static void prefixed_names_are_handed_on(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_config *config;
    struct mf_text seen = {0};
    setenv("MODELFORGE_KAFKA_BOOTSTRAP_SERVERS", "h:9092", 1);
    assert_status(
        load("database.url=x\nkafka.socket.nagle.disable=true\nkafka.acks=all\n", NULL, 0, &config, &error),
        MF_OK);
    assert_status(mf_config_each(config, "kafka.*", note, &seen, &error), MF_OK);
    assert_string_equal(seen.data, "acks=all;bootstrap.servers=h:9092;socket.nagle.disable=true;");
    assert_status(mf_config_each(config, "kafka.*", refuse, NULL, &error), MF_ERROR_KAFKA);
    assert_string_equal(error.message, "acks");
    mf_text_free(&seen);
    mf_config_free(config);
}

static void secrets_are_never_printed(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_config *config;
    char *text = NULL;
    size_t size;
    assert_status(load("database.url=postgresql://u:geheim@h\nkafka.sasl.password=geheim\nworker.id=w1\n",
                       NULL, 0, &config, &error),
                  MF_OK);
    FILE *out = open_memstream(&text, &size);
    mf_config_print_values(config, out);
    fclose(out);
    assert_null(strstr(text, "geheim"));
    assert_contains(text, "database.url=***");
    assert_contains(text, "worker.id=w1");
    assert_contains(text, "lease.seconds = 30  # default");
    free(text);
    mf_config_free(config);
}

static void the_table_prints_its_documentation(void **state) {
    (void)state;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    mf_config_print_options(&table, out);
    fclose(out);
    assert_contains(text,
                    "database.url (text, required) [MODELFORGE_DATABASE_URL]\n      Where the database is.");
    assert_contains(text, "lease.seconds (integer in [5, 3600], default 30) [MODELFORGE_LEASE_SECONDS]");
    assert_contains(text, "log.level (debug|info|warning, default info)");
    assert_contains(text, "[MODELFORGE_KAFKA_*]");
    assert_null(strstr(text, "gateway"));
    free(text);
}

/* Runs `load` with the log in a pipe and returns what was logged. */
static char *load_and_read_log(const char *text, mode_t mode) {
    static char log[8192];
    int ends[2];
    struct mf_error error;
    struct mf_config *config;
    assert_int_equal(pipe(ends), 0);
    mf_log_set_descriptor(ends[1]);
    assert_int_equal(mf_file_write_atomic(file_path, text, strlen(text), 0600, &error), MF_OK);
    assert_int_equal(chmod(file_path, mode), 0);
    assert_status(mf_config_load(&table, file_path, NULL, 0, &config, &error), MF_OK);
    mf_config_free(config);
    mf_log_set_descriptor(STDERR_FILENO);
    close(ends[1]);
    ssize_t n = read(ends[0], log, sizeof log - 1);
    close(ends[0]);
    log[n < 0 ? 0 : n] = 0;
    return log;
}

static void doubtful_things_are_warned_of(void **state) {
    (void)state;
    assert_contains(load_and_read_log("database.url=x\n", 0644), "chmod 600");
    assert_string_equal(load_and_read_log("database.url=x\n", 0600), "");
    assert_string_equal(load_and_read_log("database.url=x\nlease.seconds=9\n", 0600), "");
    setenv("MODELFORGE_SPELLED_WRONG", "1", 1);
    assert_contains(load_and_read_log("database.url=x\n", 0600), "MODELFORGE_SPELLED_WRONG");
}

static void the_environment_names_the_file(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_config *config;
    assert_status(mf_file_write_atomic(file_path, "database.url=from-file\n", 23, 0600, &error), MF_OK);
    setenv("MODELFORGE_CONFIG", file_path, 1);
    assert_status(mf_config_load(&table, NULL, NULL, 0, &config, &error), MF_OK);
    assert_string_equal(mf_config_string(config, "database.url"), "from-file");
    mf_config_free(config);
    setenv("MODELFORGE_CONFIG", "/nonexistent/file", 1);
    assert_status(mf_config_load(&table, NULL, NULL, 0, &config, &error), MF_ERROR_CONFIGURATION);
    assert_contains(error.message, "/nonexistent/file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
        TEST(file_environment_and_command_line_override_in_turn),
        TEST(wrong_files_are_refused_with_line_and_name),
        TEST(prefixed_names_are_handed_on),
        TEST(secrets_are_never_printed),
        TEST(the_table_prints_its_documentation),
        TEST(doubtful_things_are_warned_of),
        TEST(the_environment_names_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
