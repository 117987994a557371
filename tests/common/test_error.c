#include "tests/common/unit.h"

#include <errno.h>

#include "common/text.h"

static void codes_are_unique_and_come_back(void **state) {
    (void)state;
    for (int i = 0; i < MF_STATUS_COUNT; i++) {
        enum mf_status status = (enum mf_status)i;
        assert_int_equal(mf_status_from_code(mf_status_code(status)), i);
        assert_true(strlen(mf_status_meaning(status)) > 5);
        assert_true(i == MF_OK || *mf_error_class_name(mf_status_class(status)));
    }
    assert_int_equal(mf_status_from_code("invented"), MF_ERROR_INTERNAL);
    assert_true(mf_status_retriable(MF_ERROR_DATABASE));
    assert_false(mf_status_retriable(MF_ERROR_UNKNOWN_PROVIDER));
}

static void messages_are_set_prefixed_and_formatted(void **state) {
    (void)state;
    struct mf_error error;
    char text[128];
    assert_int_equal(mf_error_set(&error, MF_ERROR_UNKNOWN_PROVIDER, "Unknown provider '%s'.", "xyz"),
                     MF_ERROR_UNKNOWN_PROVIDER);
    assert_string_equal(mf_error_format(&error, text, sizeof text), "ProviderError: Unknown provider 'xyz'.");
    assert_int_equal(mf_error_prefix(&error, "line %d", 3), MF_ERROR_UNKNOWN_PROVIDER);
    assert_string_equal(error.message, "line 3: Unknown provider 'xyz'.");
    assert_int_equal(mf_error_set(NULL, MF_ERROR_IO, "nobody listens"), MF_ERROR_IO);
    assert_int_equal(mf_error_errno(&error, ENOSPC, "cannot write"), MF_ERROR_DISK_FULL);
    assert_int_equal(mf_error_errno(&error, ENOMEM, "x"), MF_ERROR_OUT_OF_MEMORY);
    assert_int_equal(mf_error_errno(&error, ENOENT, "cannot open"), MF_ERROR_IO);
    assert_string_equal(error.message, "cannot open: No such file or directory");
}

static void long_messages_are_cut_between_characters(void **state) {
    (void)state;
    struct mf_error error;
    char text[3 * MF_ERROR_TEXT_BYTES];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 3 < sizeof text; i += 3)
            memcpy(text + i, "\xE2\x82\xAC", 4);
        mf_error_set(&error, MF_ERROR_IO, "%s", text);
        assert_true(strlen(error.message) >= MF_ERROR_TEXT_BYTES - 4);
        assert_true(mf_utf8_valid(error.message, strlen(error.message)));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_unique_and_come_back),
        cmocka_unit_test(messages_are_set_prefixed_and_formatted),
        cmocka_unit_test(long_messages_are_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
