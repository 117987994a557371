/* What a terminal is given: the slave of a pseudo-terminal stands for it. */
#include "tests/common/unit.h"

#include "common/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

enum { WAIT_MS = 10000 };

struct screen {
    int master;
    FILE *stream;
};

static void open_screen(struct screen *screen, unsigned short columns) {
    const struct winsize size = {.ws_row = 24, .ws_col = columns};
    struct termios raw;
    screen->master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(screen->master >= 0);
    assert_int_equal(grantpt(screen->master) | unlockpt(screen->master), 0);
    int slave = open(ptsname(screen->master), O_RDWR | O_NOCTTY); // NOLINT(concurrency-mt-unsafe)
    assert_true(slave >= 0);
    assert_int_equal(tcgetattr(slave, &raw), 0);
    cfmakeraw(&raw);
    assert_int_equal(tcsetattr(slave, TCSANOW, &raw) | ioctl(slave, TIOCSWINSZ, &size), 0);
    assert_non_null(screen->stream = fdopen(slave, "w"));
}

/* What was written comes out at the other end in as many pieces as the kernel likes. */
static void assert_shown(const struct screen *screen, const char *expected) {
    char text[1024];
    size_t length = 0;
    ssize_t n = 1;
    struct pollfd ready = {.fd = screen->master, .events = POLLIN};
    fflush(screen->stream);
    while (n > 0 && length < strlen(expected) && poll(&ready, 1, WAIT_MS) > 0) {
        n = read(screen->master, text + length, sizeof text - 1 - length);
        length += n > 0 ? (size_t)n : 0;
    }
    text[length] = 0;
    assert_string_equal(text, expected);
    assert_int_equal(poll(&ready, 1, 0), 0);
}

static void close_screen(const struct screen *screen) {
    fclose(screen->stream);
    close(screen->master);
}

static void test_wraps_at_words(void **state) {
    (void)state;
    struct screen screen;
    open_screen(&screen, 30);
    assert_int_equal(mf_terminal_columns(screen.stream), 30);
    mf_print_wrapped(screen.stream, "a word that ends on column ü30, then one", 4, 4);
    assert_shown(&screen, "a word that ends on column\n    ü30, then one\n");
    mf_print_wrapped(screen.stream, "exactly-twenty-six-cells-x and", 4, 4);
    assert_shown(&screen, "exactly-twenty-six-cells-x\n    and\n");
    mf_print_wrapped(screen.stream, "/a/path/that/is/longer/than/any/line/of/it", 4, 4);
    assert_shown(&screen, "/a/path/that/is/longer/than/any/line/of/it\n");
    mf_print_wrapped(screen.stream, "no room for an indent", 20, 20);
    assert_shown(&screen, "no room for an indent\n");
    close_screen(&screen);
}

static void test_a_line_stays_one(void **state) {
    (void)state;
    struct screen screen;
    char line[] = "ab\u00fcd\u2588fgh", same[] = "ab\u00fcd";
    open_screen(&screen, 6);
    mf_text_fit(screen.stream, line);
    assert_string_equal(line, "ab\u00fcd\u2588");
    mf_text_fit(screen.stream, same);
    assert_string_equal(same, "ab\u00fcd");
    close_screen(&screen);
}

static void test_help_is_laid_out(void **state) {
    (void)state;
    struct screen screen;
    open_screen(&screen, 40);
    mf_print_help(screen.stream,
                  "usage: program [--flag VALUE] [--another VALUE]\n\n"
                  "A line that somebody broke only since it had become longer than a line is,\n"
                  "which goes on.\n"
                  "Another paragraph.\n"
                  "  --flag VALUE  what it does, at some length\n"
                  "                and on\n"
                  "  --other       more\n");
    assert_shown(&screen, "usage: program [--flag VALUE] [--another\n"
                          "       VALUE]\n\n"
                          "A line that somebody broke only since it\n"
                          "had become longer than a line is, which\n"
                          "goes on.\n"
                          "Another paragraph.\n"
                          "  --flag VALUE  what it does, at some\n"
                          "                length and on\n"
                          "  --other       more\n");
    close_screen(&screen);
}

static void test_colours_are_for_terminals(void **state) {
    (void)state;
    struct screen screen;
    open_screen(&screen, 0);
    unsetenv("NO_COLOR");
    assert_int_equal(mf_terminal_columns(screen.stream), 80);
    assert_string_equal(mf_colour(screen.stream, MF_RED), MF_RED);
    setenv("NO_COLOR", "1", 1);
    assert_string_equal(mf_colour(screen.stream, MF_RED), "");
    unsetenv("NO_COLOR");
    close_screen(&screen);
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_int_equal(mf_terminal_columns(file), 0);
    assert_string_equal(mf_colour(file, MF_RED), "");
    mf_print_wrapped(file, "a line of a file stays one line, however long it is, since programs read it", 70,
                     10);
    assert_int_equal(ftell(file), 76);
    fclose(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wraps_at_words),
        cmocka_unit_test(test_a_line_stays_one),
        cmocka_unit_test(test_help_is_laid_out),
        cmocka_unit_test(test_colours_are_for_terminals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
