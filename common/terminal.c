#include "common/terminal.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    DEFAULT_COLUMNS = 80,
    LEAST_COLUMNS = 20,
    HELP_COLUMNS = 100,
    MANUAL_COLUMNS = 72,
    DEEP_CELLS = 10,
    BROKEN_CELLS = 70,
    USAGE_CELLS = 7 /* "usage: " */
};

const char *mf_colour(FILE *stream, const char *sequence) {
    const char *no_colour = getenv("NO_COLOR");
    return (no_colour && *no_colour) || !isatty(fileno(stream)) ? "" : sequence;
}

int mf_terminal_columns(FILE *stream) {
    struct winsize size;
    if (!isatty(fileno(stream)))
        return 0;
    return ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : DEFAULT_COLUMNS;
}

int mf_text_cells(const char *text, size_t bytes) {
    int n = 0;
    for (size_t i = 0; i < bytes; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return n;
}

void mf_text_fit(FILE *stream, char *line) {
    const int columns = mf_terminal_columns(stream);
    int n = 0;
    for (char *c = line; columns && *c; c++)
        if (((unsigned char)*c & 0xC0) != 0x80 && ++n >= columns) {
            *c = 0;
            return;
        }
}

void mf_print_wrapped(FILE *stream, const char *text, int used, int indent) {
    const int columns = mf_terminal_columns(stream);
    if (columns < indent + LEAST_COLUMNS) { /* no terminal, or one that has no room beside the indent */
        fprintf(stream, "%s\n", text);
        return;
    }
    bool first = true; /* of the line: a word longer than it is left to the terminal */
    while (*text) {
        const size_t bytes = strcspn(text, " ");
        const int width = mf_text_cells(text, bytes);
        if (!first && used + 1 + width > columns) {
            fprintf(stream, "\n%*s", indent, "");
            used = indent;
            first = true;
        }
        used += fprintf(stream, "%s", first ? "" : " ") + width;
        fwrite(text, 1, bytes, stream);
        first = false;
        text += bytes;
        text += *text == ' ';
    }
    fputc('\n', stream);
}

/* ---- help ---- */

struct page {
    FILE *stream;
    int columns, used, indent; /* used: cells of the line so far */
    size_t lead;               /* spaces that the line before began with */
    bool open, goes_on;        /* a line was begun; the line before was broken for its length alone */
};

static void end_line(struct page *page) {
    if (page->open)
        fputc('\n', page->stream);
    page->open = false;
    page->used = 0;
}

static void put_words(struct page *page, const char *text, size_t bytes) {
    const char *end = text + bytes;
    while (text < end) {
        const size_t length = strcspn(text, " \n");
        const int width = mf_text_cells(text, length);
        if (length && page->used > page->indent && page->used + 1 + width > page->columns) {
            fprintf(page->stream, "\n%*s", page->indent, "");
            page->used = page->indent;
        } else if (length && page->used > page->indent) {
            fputc(' ', page->stream);
            page->used++;
        }
        fwrite(text, 1, length, page->stream);
        page->used += width;
        text += length + 1;
    }
}

/* Where the meaning begins in "  --flag   what it does": bytes; the leading spaces where there is no such
 * column. */
static size_t meaning_column(const char *line, size_t bytes) {
    const size_t lead = strspn(line, " ");
    for (size_t i = lead; lead && i + 2 < bytes; i++)
        if (line[i] == ' ' && line[i + 1] == ' ')
            return i + strspn(line + i, " ");
    return lead;
}

static void begin_line(struct page *page, const char *line, size_t bytes) {
    const bool usage = !strncmp(line, "usage: ", USAGE_CELLS);
    const size_t head = usage ? USAGE_CELLS : meaning_column(line, bytes);
    end_line(page);
    page->open = true;
    page->indent = (int)head;
    if (page->indent + LEAST_COLUMNS > page->columns)
        page->indent = 0;
    fwrite(line, 1, head, page->stream);
    page->used = mf_text_cells(line, head);
    put_words(page, line + head, bytes - head);
}

/* Whether this line is of the paragraph before it. */
static bool joins(const struct page *page, const char *line, size_t bytes) {
    const size_t lead = strspn(line, " ");
    return page->open && (lead >= DEEP_CELLS ||
                          (page->goes_on && lead == page->lead && meaning_column(line, bytes) == lead));
}

void mf_print_help(FILE *stream, const char *text) {
    const int columns = mf_terminal_columns(stream);
    struct page page = {.stream = stream,
                        .columns = !columns                 ? MANUAL_COLUMNS
                                   : columns < HELP_COLUMNS ? columns
                                                            : HELP_COLUMNS};
    while (*text) {
        const size_t bytes = strcspn(text, "\n"), lead = strspn(text, " ");
        if (!bytes) {
            end_line(&page);
            fputc('\n', stream);
        } else if (joins(&page, text, bytes)) {
            put_words(&page, text + lead, bytes - lead);
        } else {
            begin_line(&page, text, bytes);
        }
        page.lead = lead;
        page.goes_on = mf_text_cells(text, bytes) >= BROKEN_CELLS;
        text += bytes + (text[bytes] == '\n');
    }
    end_line(&page);
}
