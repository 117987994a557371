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

/* Prints a text that stands after `used` cells of a line, going on at words, `indent` cells in, where a line
 * of the terminal ends, and ends the line. Where the stream is no terminal it stays one line. */
void mf_print_wrapped(FILE *stream, const char *text, int used, int indent);

#endif
