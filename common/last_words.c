#include "common/last_words.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { BLOCKS = 16 };

void mf_last_words_add(struct mf_last_words *words, const char *bytes, size_t count) {
    const size_t room = sizeof words->text - 1, take = count < room ? count : room;
    if (words->length + take > room) {
        const size_t over = words->length + take - room;
        memmove(words->text, words->text + over, words->length - over);
        words->length -= over;
    }
    for (size_t i = count - take; i < count; i++) {
        const char byte = bytes[i];
        words->text[words->length++] = byte == '\n' ? '|' : byte < ' ' || byte > '~' ? ' ' : byte;
    }
    words->text[words->length] = 0;
}

bool mf_last_words_read(struct mf_last_words *words, int descriptor, int copy_to) {
    char block[4096];
    for (int i = 0; i < BLOCKS; i++) {
        const ssize_t n = read(descriptor, block, sizeof block);
        if (n <= 0)
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        if (copy_to >= 0 && write(copy_to, block, (size_t)n) < 0)
            copy_to = -1;
        mf_last_words_add(words, block, (size_t)n);
    }
    return true;
}

const char *mf_last_words_line(struct mf_last_words *words) {
    while (words->length && strchr(" |", words->text[words->length - 1]))
        words->text[--words->length] = 0;
    return words->text;
}
