#include "tests/providers/tokenizer_cases.h"

#include <stdlib.h>
#include <string.h>

/* 2025-03-09 23:59:58 UTC: CREATED_AT of tokenizer_golden.py. */
static const int64_t created_at_ms = 1741564798000;

json_t *load_golden(const char *path) {
    json_error_t error;
    json_t *golden = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!golden)
        fail_msg("%s: %s", path, error.text);
    return golden;
}

static void check_ids(const struct mf_tokenizer *tokenizer, const char *name, const json_t *text,
                      enum mf_special_tokens special, const json_t *wanted) {
    struct mf_tokens tokens = {0};
    struct mf_error error;
    if (mf_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), special, &tokens,
                            &error))
        fail_msg("%s: '%s': %s", name, json_string_value(text), error.message);
    bool same = tokens.count == json_array_size(wanted);
    for (size_t i = 0; i < tokens.count && same; i++)
        same = tokens.id[i] == json_integer_value(json_array_get(wanted, i));
    if (!same)
        fail_msg("%s: '%s' (special %d): other ids than Python's", name, json_string_value(text), special);
    mf_tokens_free(&tokens);
}

static void check_decoded(const struct mf_tokenizer *tokenizer, const char *name, const json_t *ids,
                          bool skip, const json_t *wanted) {
    size_t count = json_array_size(ids);
    int32_t *id = malloc((count + 1) * sizeof *id);
    struct mf_error error;
    char *text;
    for (size_t i = 0; i < count; i++)
        id[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    if (mf_tokenizer_decode(tokenizer, id, count, skip, &text, &error))
        fail_msg("%s: %s", name, error.message);
    if (strcmp(text, json_string_value(wanted)) != 0)
        fail_msg("%s: decoded '%s', Python says '%s'", name, text, json_string_value(wanted));
    free(text);
    free(id);
}

size_t check_texts(const struct mf_tokenizer *tokenizer, const char *name, const json_t *texts) {
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)texts, i, item) {
        const json_t *text = json_object_get(item, "text"), *ids = json_object_get(item, "ids");
        check_ids(tokenizer, name, text, MF_SPECIAL_NONE, ids);
        check_ids(tokenizer, name, text, MF_SPECIAL_ADD, json_object_get(item, "special"));
        check_decoded(tokenizer, name, ids, false, json_object_get(item, "decoded"));
        check_decoded(tokenizer, name, ids, true, json_object_get(item, "skipped"));
    }
    return json_array_size(texts);
}

size_t check_chats(const struct mf_tokenizer *tokenizer, const char *name, const json_t *chats) {
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)chats, i, item) {
        const struct mf_chat_options options = {
            .add_generation_prompt = json_is_true(json_object_get(item, "add_generation_prompt")),
            .created_at_ms = created_at_ms,
        };
        const char *wanted = json_string_value(json_object_get(item, "text"));
        const char *refusal = json_string_value(json_object_get(item, "error"));
        struct mf_error error;
        char *text = NULL;
        enum mf_status status =
            mf_tokenizer_render_chat(tokenizer, json_object_get(item, "messages"), &options, &text, &error);
        if (refusal && (status != MF_ERROR_DATASET_ROW || !strstr(error.message, refusal)))
            fail_msg("%s: chat %zu: expected '%s', got '%s'", name, i, refusal,
                     status ? error.message : text);
        if (wanted && status)
            fail_msg("%s: chat %zu: %s", name, i, error.message);
        if (wanted && strcmp(text, wanted) != 0)
            fail_msg("%s: chat %zu:\n%s\nPython says:\n%s", name, i, text, wanted);
        free(text);
    }
    return json_array_size(chats);
}
