#include "common/terminal.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { DEFAULT_COLUMNS = 80, LEAST_COLUMNS = 20 };

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
