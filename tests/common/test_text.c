#include "tests/common/unit.h"

#include "common/text.h"

static void grows_and_stays_terminated(void **state) {
    (void)state;
    struct mf_text text = {0};
    struct mf_error error;
    assert_string_equal(mf_text_string(&text), "");
    for (int i = 0; i < 1000; i++) {
        mf_text_printf(&text, "%d,", i);
        assert_int_equal(text.data[text.length], 0);
    }
    mf_text_append(&text, "a\0b", 3);
    assert_int_equal(text.length, 10 + 90 * 2 + 900 * 3 + 1000 + 3);
    assert_memory_equal(text.data + text.length - 3, "a\0b", 4);
    assert_status(mf_text_status(&text, &error), MF_OK);
    char *taken = mf_text_take(&text);
    assert_memory_equal(taken, "0,1,2,3,", 8);
    assert_null(text.data);
    free(taken);
}

static void exact_capacity_keeps_room_for_the_nul(void **state) {
    (void)state;
    for (size_t length = 60; length < 70; length++) {
        struct mf_text text = {0};
        for (size_t i = 0; i < length; i++)
            mf_text_puts(&text, "x");
        assert_true(text.capacity > text.length);
        assert_int_equal(strlen(text.data), length);
        mf_text_free(&text);
    }
}

static void a_size_that_no_machine_has_fails_for_good(void **state) {
    (void)state;
    struct mf_text text = {0};
    struct mf_error error;
    mf_text_puts(&text, "kept");
    mf_text_append(&text, "", SIZE_MAX / 2);
    mf_text_puts(&text, " dropped");
    assert_string_equal(mf_text_string(&text), "kept");
    assert_status(mf_text_status(&text, &error), MF_ERROR_OUT_OF_MEMORY);
    mf_text_free(&text);
}

static void utf8_is_judged_as_the_standard_says(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        bool valid;
    } cases[] = {
        {"plain", 5, true},
        {"\xC3\xA9", 2, true},
        {"\xE2\x82\xAC", 3, true},
        {"\xF0\x9F\x98\x80", 4, true},
        {"", 0, true},
        {"a\0b", 3, false},             /* NUL */
        {"\xC0\xAF", 2, false},         /* overlong */
        {"\xE0\x80\xAF", 3, false},     /* overlong */
        {"\xF0\x80\x80\xAF", 4, false}, /* overlong */
        {"\xED\xA0\x80", 3, false},     /* surrogate */
        {"\xF4\x90\x80\x80", 4, false}, /* above U+10FFFF */
        {"\xC3", 1, false},             /* cut */
        {"\xE2\x82", 2, false},
        {"\x80", 1, false}, /* continuation alone */
        {"\xFF", 1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *copy = malloc(cases[i].length + 1); /* exact, so that reading further shows */
        memcpy(copy, cases[i].bytes, cases[i].length);
        if (mf_utf8_valid(copy, cases[i].length) != cases[i].valid)
            fail_msg("case %zu", i);
        free(copy);
    }
    assert_int_equal(mf_utf8_length((const unsigned char *)"\xE2\x82\xAC"), 3);
    assert_int_equal(mf_utf8_length((const unsigned char *)"\xE2\x82"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_stays_terminated),
        cmocka_unit_test(exact_capacity_keeps_room_for_the_nul),
        cmocka_unit_test(a_size_that_no_machine_has_fails_for_good),
        cmocka_unit_test(utf8_is_judged_as_the_standard_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
