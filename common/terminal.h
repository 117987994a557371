/* What a stream's terminal can show. Any thread. */
#ifndef MF_COMMON_TERMINAL_H
#define MF_COMMON_TERMINAL_H

#include <stddef.h>
#include <stdio.h>

/* Colours only on a terminal without NO_COLOR: the escape sequence, or "". */
const char *mf_colour(FILE *stream, const char *sequence);
#define MF_BOLD   "\033[1m"
#define MF_DIM    "\033[2m"
#define MF_RED    "\033[31m"
#define MF_GREEN  "\033[32m"
#define MF_YELLOW "\033[33m"
#define MF_RESET  "\033[0m"

/* Cells of a line; 0 where the stream is no terminal, 80 where a terminal does not say. */
int mf_terminal_columns(FILE *stream);

/* Cells that UTF-8 bytes take, one a character. */
int mf_text_cells(const char *text, size_t bytes);

/* Cuts a UTF-8 line, in place, to less than the stream's columns, so that it stays one line; not where it is
 * no terminal. */
void mf_text_fit(FILE *stream, char *line);

/* Prints a text that stands after `used` cells of a line, going on at words, `indent` cells in, where a line
 * of the terminal ends, and ends the line. Where the stream is no terminal it stays one line. */
void mf_print_wrapped(FILE *stream, const char *text, int used, int indent);

/* Prints a help text, its paragraphs laid out anew for the terminal (elsewhere for a manual page, 72 cells).
 * A line goes on with the paragraph when the one before it has at least 70 cells and begins as far in, or
 * when it begins with ten spaces or more; of "  --flag   what it does" the meaning keeps its column. */
void mf_print_help(FILE *stream, const char *text);

#endif
