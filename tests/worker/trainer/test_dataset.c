/* Datasets: every form that is read, and the exact error for every way a row can be wrong. */
#include "worker/trainer/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static char folder[] = "/tmp/modelforge-dataset-XXXXXX", path[128];

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void write_file(const char *name, const void *text, size_t bytes) {
    if (*path)
        unlink(path);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    fclose(file);
}

static void write_text(const char *text) {
    write_file("rows.jsonl", text, strlen(text));
}

/* Loads `text` as a dataset and expects exactly one row, whose messages are `messages`, or whose text it is.
 */
static void expect_row(const char *text, const char *messages) {
    struct mf_dataset dataset;
    struct mf_error error;
    write_text(text);
    if (mf_dataset_load(path, 1, &dataset, &error) != MF_OK)
        fail_msg("%s: %s", text, error.message);
    assert_int_equal(dataset.rows, 1);
    if (*messages == '[') {
        char *made = json_dumps(dataset.row[0].messages, JSON_COMPACT);
        assert_string_equal(made, messages);
        free(made);
        assert_null(dataset.row[0].text);
    } else {
        assert_string_equal(dataset.row[0].text, messages);
        assert_null(dataset.row[0].messages);
    }
    mf_dataset_destroy(&dataset);
}

static void expect_error(const char *text, enum mf_status status, const char *message) {
    struct mf_dataset dataset;
    struct mf_error error;
    char whole[1024];
    write_text(text);
    assert_int_equal(mf_dataset_load(path, 1, &dataset, &error), status);
    snprintf(whole, sizeof whole, "%s%s", path, message);
    if (status != MF_ERROR_DATASET_SYNTAX)
        assert_string_equal(error.message, whole);
    else if (strncmp(error.message, whole, strlen(whole)) != 0) /* the rest is the JSON parser's own text */
        fail_msg("%s does not begin with %s", error.message, whole);
}

#define PAIR "[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}]"

static void test_forms(void **state) {
    (void)state;
    expect_row("{\"input\":\"q\",\"output\":\"a\"}\n", PAIR);
    expect_row("\xEF\xBB\xBF{\"prompt\":\"q\",\"completion\":\"a\"}\r\n\r\n", PAIR);
    expect_row("[\n{\"input\":\"q\",\"output\":\"a\"}]", PAIR);
    expect_row("{\"instruction\":\"q\",\"input\":\"\",\"output\":\"a\"}", PAIR);
    expect_row("{\"instruction\":\"q\",\"output\":\"a\"}", PAIR);
    expect_row("{\"instruction\":\"q\",\"input\":\"more\",\"output\":\"a\"}",
               "[{\"role\":\"user\",\"content\":\"q\\nmore\"},{\"role\":\"assistant\",\"content\":\"a\"}]");
    expect_row("{\"messages\":" PAIR "}", PAIR);
    expect_row("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
               "{\"type\":\"text\",\"text\":\"b\"}]}]}",
               "[{\"role\":\"user\",\"content\":\"ab\"}]");
    expect_row(
        "{\"conversations\":[{\"from\":\"system\",\"value\":\"s\"},{\"from\":\"human\",\"value\":\"q\"},"
        "{\"from\":\"gpt\",\"value\":\"a\"}]}",
        "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"q\"},"
        "{\"role\":\"assistant\",\"content\":\"a\"}]");
    expect_row("{\"text\":\"Gr\xC3\xBC\xC3\x9F\x65\"}", "Gr\xC3\xBC\xC3\x9F\x65");
}

static void test_errors_name_line_and_field(void **state) {
    (void)state;
    const char *good = "{\"input\":\"q\",\"output\":\"a\"}\n";
    char text[512];
    expect_error("{\"input\":\"q\"}", MF_ERROR_DATASET_ROW, ", line 1: field 'output' is missing");
    snprintf(text, sizeof text, "%s\n%s{\"input\":3,\"output\":\"a\"}", good, good);
    expect_error(text, MF_ERROR_DATASET_ROW, ", line 4: field 'input' is a number, not a string");
    expect_error("{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}", MF_ERROR_DATASET_ROW,
                 ", line 1: field 'completion' is missing");
    expect_error("{\"instruction\":\"q\",\"input\":{},\"output\":\"a\"}", MF_ERROR_DATASET_ROW,
                 ", line 1: field 'input' is an object, not a string");
    expect_error("{\"text\":null}", MF_ERROR_DATASET_ROW, ", line 1: field 'text' is null, not a string");
    expect_error("{\"messages\":[]}", MF_ERROR_DATASET_ROW,
                 ", line 1: field 'messages' is not a list of messages");
    expect_error("{\"messages\":[{\"role\":\"user\"}]}", MF_ERROR_DATASET_ROW,
                 ", line 1: field 'messages[0].content' is missing");
    expect_error(
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}", MF_ERROR_DATASET_ROW,
        ", line 1: field 'messages[0].content' has a part that is not text; only text can be trained on");
    expect_error("{\"conversations\":[{\"from\":\"tool\",\"value\":\"x\"}]}", MF_ERROR_DATASET_ROW,
                 ", line 1: field 'conversations[0].from' is not one of human, gpt, system");
    expect_error(
        "{\"question\":\"q\"}", MF_ERROR_DATASET_ROW,
        ", line 1: no field 'input' and 'output', 'prompt' and 'completion', 'messages', 'conversations', "
        "'instruction' and 'output', or 'text'");
    expect_error("3\n", MF_ERROR_DATASET_ROW, ", line 1: the row is not a JSON object");
    expect_error("[{\"text\":\"a\"},7]", MF_ERROR_DATASET_ROW, ", row 2: the row is not a JSON object");
}

static void test_syntax(void **state) {
    (void)state;
    expect_error("{\"text\":\"a\"}\n{\"text\":\n", MF_ERROR_DATASET_SYNTAX, ", line 2: invalid JSON: ");
    expect_error("{\"text\":\"a\"}\n{\"text\":\"\xFF\"}\n", MF_ERROR_DATASET_SYNTAX,
                 ", line 2: byte 10 (0xFF) is not UTF-8");
    expect_error("[{\"text\":\"a\"},\n{\"text\":\"b\"},\n{\"text\":\"\xC3\"}]", MF_ERROR_DATASET_SYNTAX,
                 ", line 3: byte 10 (0xC3) is not UTF-8; save the file as UTF-8");
    expect_error("{\"text\":\"a\"}\n{\"text\":\"\\u0000\"}\n", MF_ERROR_DATASET_SYNTAX,
                 ", line 2: invalid JSON: a text holds the character \\u0000, which cannot be trained on");
    expect_error("{\"text\":\"a\",\"text\":\"b\"}\n", MF_ERROR_DATASET_SYNTAX, ", line 1: invalid JSON: ");
    expect_error("[{\"text\":\"a\"},\n{\"text\" 1}]", MF_ERROR_DATASET_SYNTAX, ", line 2: invalid JSON: ");
    expect_error("{\"text\":\"\\u0000\"}\n", MF_ERROR_DATASET_SYNTAX, ", line 1: invalid JSON: ");
}

static void test_gzip_and_hash(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_error error;
    write_file("rows.jsonl.gz", "", 0);
    gzFile file = gzopen(path, "wb");
    for (int i = 0; i < 20000; i++)
        gzprintf(file, "{\"text\":\"row %d\"}\n", i);
    gzclose(file);
    file = gzopen(path, "ab"); /* a second member */
    gzprintf(file, "{\"text\":\"last\"}\n");
    gzclose(file);
    assert_int_equal(mf_dataset_load(path, 10, &dataset, &error), MF_OK);
    assert_int_equal(dataset.rows, 20001);
    assert_string_equal(dataset.row[19999].text, "row 19999");
    assert_string_equal(dataset.row[20000].text, "last");
    assert_int_equal(dataset.row[20000].number, 20001);
    mf_dataset_destroy(&dataset);

    assert_int_equal(truncate(path, 2000), 0);
    assert_int_equal(mf_dataset_load(path, 10, &dataset, &error), MF_ERROR_DATASET_SYNTAX);
    assert_non_null(strstr(error.message, "gzip"));

    write_text("{\"text\":\"a\"}\n"); /* printf '{"text":"a"}\n' | sha256sum */
    assert_int_equal(mf_dataset_load(path, 1, &dataset, &error), MF_OK);
    assert_string_equal(dataset.sha256, "314d3a971f6f7c623e7dceb546ddde0687e41e9df02b0edc52ddb4a7a77f57e3");
    mf_dataset_destroy(&dataset);
}

static void test_missing_and_small(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_error error;
    assert_int_equal(mf_dataset_load("/nowhere/rows.jsonl", 1, &dataset, &error), MF_ERROR_DATASET_NOT_FOUND);
    assert_non_null(strstr(error.message, "/nowhere/rows.jsonl"));
    assert_int_equal(mf_dataset_load(folder, 1, &dataset, &error), MF_ERROR_DATASET_NOT_FOUND);
    write_text("{\"text\":\"1\"}\n{\"text\":\"2\"}\n");
    assert_int_equal(mf_dataset_load(path, 10, &dataset, &error), MF_ERROR_DATASET_TOO_SMALL);
    assert_non_null(strstr(error.message, "2 rows"));
}

static bool second_time(void *argument) {
    return ++*(int *)argument == 2;
}

static void test_cancelled_while_loading(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_error error;
    int asked = 0;
    char text[20000] = "";
    for (size_t i = 0; i < 1000; i++)
        snprintf(text + 13 * i, sizeof text - 13 * i, "{\"text\":\"a\"}\n");
    write_text(text);
    const struct mf_dataset_source source = {
        .path = path, .name = path, .min_rows = 1, .cancelled = second_time, .cancelled_argument = &asked};
    assert_int_equal(mf_dataset_load_from(&source, &dataset, &error), MF_ERROR_CANCELLED);
    assert_int_equal(asked, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancelled_while_loading),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_errors_name_line_and_field),
        cmocka_unit_test(test_syntax),
        cmocka_unit_test(test_gzip_and_hash),
        cmocka_unit_test(test_missing_and_small),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
