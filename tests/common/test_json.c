#include "tests/common/unit.h"

#include <math.h>

#include "common/json.h"

static json_t *parse(const char *text) {
    struct mf_error error;
    json_t *value;
    assert_status(mf_json_parse(text, strlen(text), "test", &value, &error), MF_OK);
    return value;
}

static void bad_text_is_refused_with_its_place(void **state) {
    (void)state;
    struct mf_error error;
    json_t *value;
    static const char *const wrong[] = {
        "",     "{",   "{\"a\":1,\"a\":2}",   "{\"a\":\"\\u0000\"}", "\"\xFF\"", "{\"a\":1}x", "1e999",
        "[1,]", "nul", "99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_status(mf_json_parse(wrong[i], strlen(wrong[i]), "test", &value, &error),
                      MF_ERROR_INVALID_JSON);
        assert_null(value);
    }
    assert_status(mf_json_parse("{\n  \"a\": tru\n}", 14, "request.json", &value, &error),
                  MF_ERROR_INVALID_JSON);
    assert_contains(error.message, "request.json: line 2, column");
}

static void nesting_is_bounded(void **state) {
    (void)state;
    struct mf_error error;
    json_t *value;
    char deep[4 * MF_JSON_DEPTH + 1];
    memset(deep, '[', MF_JSON_DEPTH);
    memset(deep + MF_JSON_DEPTH, ']', MF_JSON_DEPTH);
    assert_status(mf_json_parse(deep, 2 * MF_JSON_DEPTH, "test", &value, &error), MF_OK);
    json_decref(value);
    memset(deep, '[', MF_JSON_DEPTH + 1);
    memset(deep + MF_JSON_DEPTH + 1, ']', MF_JSON_DEPTH + 1);
    assert_status(mf_json_parse(deep, 2 * MF_JSON_DEPTH + 2, "test", &value, &error), MF_ERROR_INVALID_JSON);
    assert_contains(error.message, "deeper than 64");
    /* brackets in strings do not count */
    value = parse("\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[\"");
    json_decref(value);
}

static void members_are_typed_and_bounded(void **state) {
    (void)state;
    struct mf_error error;
    json_t *object = parse(
               "{\"s\":\"text\",\"i\":3,\"r\":2.5,\"w\":4.0,\"b\":true,\"n\":null,\"o\":{},\"a\":[1,2]}"),
           *inner;
    const char *string;
    int64_t integer = 7;
    double number = 7;
    bool boolean = false;
    assert_status(mf_json_string(object, "f", "s", 4, &string, &error), MF_OK);
    assert_string_equal(string, "text");
    assert_status(mf_json_string(object, "f", "s", 3, &string, &error), MF_ERROR_INVALID_FIELD);
    assert_string_equal(error.message, "f: s: 4 bytes long, at most 3 are allowed");
    assert_status(mf_json_integer(object, "f", "i", 1, 3, &integer, &error), MF_OK);
    assert_int_equal(integer, 3);
    assert_status(mf_json_integer(object, "f", "w", 1, 5, &integer, &error), MF_OK);
    assert_int_equal(integer, 4);
    assert_status(mf_json_integer(object, "f", "i", 4, 9, &integer, &error), MF_ERROR_INVALID_FIELD);
    assert_string_equal(error.message, "f: i: 3 is not in [4, 9]");
    assert_status(mf_json_integer(object, "f", "r", 1, 5, &integer, &error), MF_ERROR_INVALID_FIELD);
    assert_string_equal(error.message, "f: r: expected an integer, found a number (2.5)");
    assert_status(mf_json_number(object, "f", "i", 0, 10, &number, &error), MF_OK);
    assert_true(number == 3);
    assert_status(mf_json_number(object, "f", "r", 0, 2, &number, &error), MF_ERROR_INVALID_FIELD);
    assert_status(mf_json_boolean(object, "f", "b", &boolean, &error), MF_OK);
    assert_true(boolean);
    assert_status(mf_json_boolean(object, "f", "i", &boolean, &error), MF_ERROR_INVALID_FIELD);
    assert_status(mf_json_object(object, "f", "o", &inner, &error), MF_OK);
    assert_status(mf_json_object(object, "f", "a", &inner, &error), MF_ERROR_INVALID_FIELD);
    assert_status(mf_json_array(object, "f", "a", 2, &inner, &error), MF_OK);
    assert_status(mf_json_array(object, "f", "a", 1, &inner, &error), MF_ERROR_INVALID_FIELD);
    assert_status(mf_json_string(object, "f", "missing", 9, &string, &error), MF_ERROR_MISSING_FIELD);
    assert_string_equal(error.message, "f: \"missing\" is missing");
    assert_status(mf_json_string(object, "f", "n", 9, &string, &error), MF_ERROR_MISSING_FIELD);
    json_decref(object);
}

static void optional_members_leave_the_default(void **state) {
    (void)state;
    struct mf_error error;
    json_t *object = parse("{\"n\":null,\"wrong\":\"x\"}"), *inner = NULL;
    const char *string = "default";
    int64_t integer = 7;
    double number = 7.5;
    bool boolean = true;
    assert_status(mf_json_optional_string(object, "f", "n", 9, &string, &error), MF_OK);
    assert_status(mf_json_optional_integer(object, "f", "n", 0, 1, &integer, &error), MF_OK);
    assert_status(mf_json_optional_number(object, "f", "absent", 0, 1, &number, &error), MF_OK);
    assert_status(mf_json_optional_boolean(object, "f", "absent", &boolean, &error), MF_OK);
    assert_status(mf_json_optional_object(object, "f", "absent", &inner, &error), MF_OK);
    assert_status(mf_json_optional_array(object, "f", "absent", 1, &inner, &error), MF_OK);
    assert_string_equal(string, "default");
    assert_int_equal(integer, 7);
    assert_true(number == 7.5 && boolean && !inner);
    assert_status(mf_json_optional_integer(object, "f", "wrong", 0, 1, &integer, &error),
                  MF_ERROR_INVALID_FIELD);
    assert_status(mf_json_optional_integer(json_array_get(NULL, 0), "f", "x", 0, 1, &integer, &error),
                  MF_ERROR_INVALID_FIELD);
    json_decref(object);
}

static void equal_values_give_equal_bytes(void **state) {
    (void)state;
    struct mf_error error;
    char *text;
    json_t *a =
        parse("{\"b\": [1, 2.50, true, null], \"a\": {\"y\": 2e-4, \"x\": \"q\\\"\\u00e9\"}, \"c\": 1e-8}");
    json_t *b =
        parse("{\"c\":0.00000001,\"a\":{\"x\":\"q\\\"\xC3\xA9\",\"y\":0.0002},\"b\":[1,2.5,true,null]}");
    assert_status(mf_json_canonical(a, &text, &error), MF_OK);
    assert_string_equal(text,
                        "{\"a\":{\"x\":\"q\\\"\xC3\xA9\",\"y\":0.0002},\"b\":[1,2.5,true,null],\"c\":1e-8}");
    char *other;
    assert_status(mf_json_canonical(b, &other, &error), MF_OK);
    assert_string_equal(text, other);
    free(text);
    free(other);
    json_decref(a);
    json_decref(b);
}

static void numbers_are_short_and_exact(void **state) {
    (void)state;
    static const double numbers[] = {0,       1,     0.1,    0.3,           2e-4, 1e-8,
                                     1.0 / 3, 1e300, 5e-324, 123456789.123, -2.5, 4294967295.0};
    char text[MF_NUMBER_TEXT_BYTES];
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        assert_true(strtod(mf_number_format(numbers[i], text), NULL) == numbers[i]);
    assert_string_equal(mf_number_format(0.1, text), "0.1");
    assert_string_equal(mf_number_format(2e-4, text), "0.0002");
    assert_string_equal(mf_number_format(1e-8, text), "1e-8");
    assert_string_equal(mf_number_format(32, text), "32");
}

static void excerpts_are_cut_between_characters(void **state) {
    (void)state;
    char text[16];
    json_t *value = json_string("\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9");
    for (size_t bytes = 5; bytes <= sizeof text; bytes++) {
        mf_json_excerpt(value, text, bytes);
        json_t *readable = json_string(text);
        assert_non_null(readable); /* NULL when not UTF-8 */
        json_decref(readable);
        assert_true(strlen(text) < bytes);
    }
    json_decref(value);
    assert_string_equal(mf_json_excerpt(NULL, text, sizeof text), "nothing");
}

static void files_are_read_within_their_limit(void **state) {
    (void)state;
    struct mf_error error;
    char folder[SCRATCH_BYTES];
    json_t *value;
    char *path = mf_path_join(scratch_make(folder), "a.json");
    assert_status(mf_file_write_atomic(path, "{\"a\": 1}", 8, 0600, &error), MF_OK);
    assert_status(mf_json_read_file(path, 0, &value, &error), MF_OK);
    assert_int_equal(json_integer_value(json_object_get(value, "a")), 1);
    json_decref(value);
    assert_status(mf_json_read_file(path, 7, &value, &error), MF_ERROR_IO);
    free(path);
    scratch_remove(folder);
}

static void what_a_terminal_would_obey_is_cleaned(void **state) {
    (void)state;
    json_t *value = json_loads(
        "[{\"a\": \"\\u001b[2J\\u0007x\\u007fy\\u009bz\", \"b\": [\"\\t\u00fcber\\nit\", 7]}]", 0, NULL);
    assert_non_null(value);
    mf_json_clean_text(value);
    const json_t *object = json_array_get(value, 0), *list = json_object_get(object, "b");
    assert_string_equal(json_string_value(json_object_get(object, "a")), "?[2J?x?y?z");
    assert_string_equal(json_string_value(json_array_get(list, 0)), "\t\u00fcber\nit");
    assert_int_equal(json_integer_value(json_array_get(list, 1)), 7);
    json_decref(value);
    mf_json_clean_text(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_terminal_would_obey_is_cleaned),
        cmocka_unit_test(bad_text_is_refused_with_its_place),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(members_are_typed_and_bounded),
        cmocka_unit_test(optional_members_leave_the_default),
        cmocka_unit_test(equal_values_give_equal_bytes),
        cmocka_unit_test(numbers_are_short_and_exact),
        cmocka_unit_test(excerpts_are_cut_between_characters),
        cmocka_unit_test(files_are_read_within_their_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
