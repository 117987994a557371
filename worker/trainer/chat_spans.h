/* Where the completions of a chat lie in its rendered text. */
#ifndef MF_WORKER_TRAINER_CHAT_SPANS_H
#define MF_WORKER_TRAINER_CHAT_SPANS_H

#include "common/error.h"
#include "providers/tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A half-open stretch of a row's text. */
struct mf_span {
    size_t first, end;
};

/* A growable list owned by the caller; zero-initialise before the first use, free(spans.span) at the end. */
struct mf_spans {
    struct mf_span *span;
    size_t count, capacity;
};

enum mf_status mf_spans_add(struct mf_spans *spans, size_t first, size_t end, struct mf_error *error);

/* A chat as rendered; all borrowed. */
struct mf_chat_text {
    const struct mf_tokenizer *tokenizer;
    const json_t *messages; /* [{role, content}] */
    const char *text;       /* all messages without the generation prompt, `length` bytes and a NUL */
    size_t length;
    int64_t created_at_ms;
    const char *where; /* names the row in messages */
    bool (*cancelled)(void *argument);
    void *cancelled_argument;
};

/* Appends one span an assistant message: what the template writes after the rendered prefix with the
 * generation prompt, up to the rendered prefix that ends with this message. MF_ERROR_BAD_TOKENIZER when such
 * a prefix is not the beginning of the text; what a template puts behind the last message of any chat (Phi-3:
 * its end of text) does not count at the end of a prefix. MF_ERROR_CANCELLED when `cancelled` (NULL: never)
 * says so.
 *
 * Of a long chat not every prefix is rendered, which would take time by the square of its length, but what
 * each message adds to the few before it. Where these pieces do not make up the text, prefixes decide after
 * all. */
enum mf_status mf_chat_find_spans(const struct mf_chat_text *chat, struct mf_spans *spans,
                                  struct mf_error *error);

#endif
