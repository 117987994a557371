/* The end of what a program wrote on its outputs, as one line of printable ASCII: for the message that says
 * how it ended. */
#ifndef MF_COMMON_LAST_WORDS_H
#define MF_COMMON_LAST_WORDS_H

#include <stdbool.h>
#include <stddef.h>

enum { MF_LAST_WORDS_BYTES = 512 };

/* Zero-initialised: nothing yet. A line break is '|', other bytes that do not print are blanks. */
struct mf_last_words {
    char text[MF_LAST_WORDS_BYTES];
    size_t length;
};

void mf_last_words_add(struct mf_last_words *words, const char *bytes, size_t count);

/* Reads what is there, at most 64 kB a call so that endless output holds nobody up, and copies it to
 * `copy_to` (-1: nowhere) as it is. The descriptor does not block. False: it is at its end, or broken. */
bool mf_last_words_read(struct mf_last_words *words, int descriptor, int copy_to);

/* Without blanks and line breaks at the end; "" where there is nothing. */
const char *mf_last_words_line(struct mf_last_words *words);

#endif
