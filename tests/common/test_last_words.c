/* The end of what a program wrote, as one line. */
#include "tests/common/unit.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/last_words.h"

static void add(struct mf_last_words *words, const char *text) {
    mf_last_words_add(words, text, strlen(text));
}

static void it_is_one_line_of_printable_characters(void **state) {
    (void)state;
    struct mf_last_words words = {0};
    assert_string_equal(mf_last_words_line(&words), "");
    add(&words, "Traceback:\n  na\xC3\xAF");
    add(&words, "ve\tvalue\n\n \n");
    assert_string_equal(mf_last_words_line(&words), "Traceback:|  na  ve value");
    add(&words, "!");
    assert_string_equal(mf_last_words_line(&words), "Traceback:|  na  ve value!");
}

static void the_end_is_kept(void **state) {
    (void)state;
    struct mf_last_words words = {0};
    char block[3 * MF_LAST_WORDS_BYTES];
    memset(block, 'a', sizeof block);
    block[sizeof block - 1] = 'z';
    mf_last_words_add(&words, block, sizeof block);
    assert_int_equal(words.length, MF_LAST_WORDS_BYTES - 1);
    assert_int_equal(words.text[MF_LAST_WORDS_BYTES - 2], 'z');
    add(&words, "end");
    assert_int_equal(words.length, MF_LAST_WORDS_BYTES - 1);
    assert_string_equal(words.text + MF_LAST_WORDS_BYTES - 5, "zend");
    assert_int_equal(words.text[0], 'a');
}

static void what_is_there_is_read_and_the_end_is_told(void **state) {
    (void)state;
    struct mf_last_words words = {0};
    int ends[2], copy[2];
    char text[16] = "";
    assert_int_equal(pipe2(ends, O_NONBLOCK) | pipe(copy), 0);
    assert_true(mf_last_words_read(&words, ends[0], -1)); /* nothing yet */
    assert_int_equal(write(ends[1], "on\nfire", 7), 7);
    assert_true(mf_last_words_read(&words, ends[0], copy[1]));
    assert_string_equal(mf_last_words_line(&words), "on|fire");
    assert_int_equal(read(copy[0], text, sizeof text), 7);
    assert_string_equal(text, "on\nfire"); /* as it was */
    close(ends[1]);
    assert_false(mf_last_words_read(&words, ends[0], -1));
    assert_string_equal(mf_last_words_line(&words), "on|fire");
    close(ends[0]);
    close(copy[0]);
    close(copy[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_one_line_of_printable_characters),
        cmocka_unit_test(the_end_is_kept),
        cmocka_unit_test(what_is_there_is_read_and_the_end_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
