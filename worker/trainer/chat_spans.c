#include "worker/trainer/chat_spans.h"

#include <stdlib.h>
#include <string.h>

/* Chats up to SHORT messages are rendered prefix by prefix; in longer ones a message is seen with at most
 * WINDOW before it. WINDOW is even, so that a window begins with the role that the chat begins with:
 * templates insist on roles that alternate. */
enum { SHORT = 12, WINDOW = 4 };

static enum mf_status out_of_memory(struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "template: out of memory");
}

enum mf_status mf_spans_add(struct mf_spans *spans, size_t first, size_t end, struct mf_error *error) {
    if (spans->count == spans->capacity) {
        size_t capacity = spans->capacity ? spans->capacity * 2 : 8;
        struct mf_span *grown = realloc(spans->span, capacity * sizeof *grown);
        if (!grown)
            return out_of_memory(error);
        spans->span = grown;
        spans->capacity = capacity;
    }
    spans->span[spans->count++] = (struct mf_span){first, end};
    return MF_OK;
}

static bool is_role(const json_t *messages, size_t index, const char *role) {
    const char *text = json_string_value(json_object_get(json_array_get(messages, index), "role"));
    return text && !strcmp(text, role);
}

/* Renders messages [0, head) and [first, end). */
static enum mf_status render(const struct mf_chat_text *chat, size_t head, size_t first, size_t end,
                             bool prompt, char **text, struct mf_error *error) {
    json_t *part = json_array();
    enum mf_status status = part ? MF_OK : out_of_memory(error);
    *text = NULL;
    if (chat->cancelled && chat->cancelled(chat->cancelled_argument))
        status = mf_error_set(error, MF_ERROR_CANCELLED, "the run was cancelled");
    for (size_t i = 0; status == MF_OK && i < end; i++) {
        if (i == head && first > head)
            i = first;
        if (json_array_append(part, json_array_get(chat->messages, i)))
            status = out_of_memory(error);
    }
    if (status == MF_OK)
        status = mf_tokenizer_render_chat(
            chat->tokenizer, part, &(struct mf_chat_options){prompt, chat->created_at_ms}, text, error);
    json_decref(part);
    return status;
}

/* ---- by prefixes: what the definition says ---- */

/* How much of `text` the chat begins with, where all that follows in `text` is what the template puts behind
 * the last message of any chat (Phi-3: its end of text); 0: something else follows. The answer may lie a few
 * bytes into the next message, never a whole token. */
static size_t without_closing(const struct mf_chat_text *chat, const char *text, size_t length) {
    size_t shared = 0;
    while (shared < length && shared < chat->length && text[shared] == chat->text[shared])
        shared++;
    const size_t closing = length - shared;
    const bool closes = closing < chat->length - shared &&
                        !memcmp(chat->text + chat->length - closing, text + shared, closing);
    return closes ? shared : 0;
}

static enum mf_status prefix_length(const struct mf_chat_text *chat, size_t count, bool prompt,
                                    size_t *length, struct mf_error *error) {
    char *text;
    enum mf_status status = render(chat, 0, 0, count, prompt, &text, error);
    if (status == MF_ERROR_DATASET_ROW)
        mf_error_prefix(error, "%s", chat->where);
    if (status == MF_OK) {
        *length = strlen(text);
        const bool same = *length <= chat->length && !memcmp(text, chat->text, *length);
        if (!same && !prompt)
            *length = without_closing(chat, text, *length);
        if (!same && (prompt || !*length))
            status =
                mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                             "%s: the chat template writes the first %zu messages differently when others "
                             "follow, so the completion cannot be found; use train_on \"all\" or another "
                             "chat_template",
                             chat->where, count);
    }
    free(text);
    return status;
}

static enum mf_status find_by_prefixes(const struct mf_chat_text *chat, struct mf_spans *spans,
                                       struct mf_error *error) {
    for (size_t i = 0; i < json_array_size(chat->messages); i++) {
        size_t first = 0, end = 0;
        if (!is_role(chat->messages, i, "assistant"))
            continue;
        enum mf_status status = prefix_length(chat, i, true, &first, error);
        if (status == MF_OK)
            status = prefix_length(chat, i + 1, false, &end, error);
        if (status == MF_OK)
            status = mf_spans_add(spans, first, end, error);
        if (status != MF_OK)
            return status;
    }
    return MF_OK;
}

/* ---- by windows ---- */

/* Whether `longer` begins with `shorter` and the chat's text goes on at `at` with the rest; *at moves behind
 * it.
 */
static bool continues(const struct mf_chat_text *chat, const char *shorter, const char *longer, size_t *at) {
    const size_t known = strlen(shorter);
    if (strncmp(longer, shorter, known) != 0)
        return false;
    const size_t added = strlen(longer + known);
    if (added > chat->length - *at || memcmp(chat->text + *at, longer + known, added) != 0)
        return false;
    *at += added;
    return true;
}

/* What message `index` adds to the text that ends at *at; *fits is false where a window does not tell. */
static enum mf_status add_message(const struct mf_chat_text *chat, size_t index, size_t *at, bool *fits,
                                  struct mf_spans *spans, struct mf_error *error) {
    const size_t head = is_role(chat->messages, 0, "system");
    const size_t first = index < head + WINDOW + 2 ? 0 : index - WINDOW - (index - head) % 2;
    char *before = NULL, *prompted = NULL, *after = NULL;
    size_t completion = *at;
    enum mf_status status = MF_OK;
    if (index)
        status = render(chat, head, first, index, false, &before, error);
    if (status == MF_OK && is_role(chat->messages, index, "assistant"))
        status = render(chat, head, first, index, true, &prompted, error);
    if (status == MF_OK)
        status = render(chat, head, first, index + 1, false, &after, error);
    if (status == MF_OK) {
        const char *known = before ? before : "";
        *fits = (!prompted || continues(chat, known, prompted, &completion)) &&
                continues(chat, known, after, at) && completion <= *at;
        if (*fits && prompted)
            status = mf_spans_add(spans, completion, *at, error);
    } else if (status == MF_ERROR_DATASET_ROW) {
        *fits = false; /* the template refuses this part of the chat */
        status = MF_OK;
    }
    free(before);
    free(prompted);
    free(after);
    return status;
}

enum mf_status mf_chat_find_spans(const struct mf_chat_text *chat, struct mf_spans *spans,
                                  struct mf_error *error) {
    const size_t messages = json_array_size(chat->messages), had = spans->count;
    bool fits = messages > SHORT;
    size_t at = 0;
    for (size_t i = 0; fits && i < messages; i++) {
        enum mf_status status = add_message(chat, i, &at, &fits, spans, error);
        if (status != MF_OK)
            return status;
    }
    if (fits && at == chat->length)
        return MF_OK;
    spans->count = had;
    return find_by_prefixes(chat, spans, error);
}
