/* Fuzzing entry of tokenizers, through the C face of the Rust library. What begins with '{' is a
 * tokenizer.json when it has a "vocab", else a tokenizer_config.json; what begins with 'x' is, behind it, a
 * text to be tokenised and put together again; anything else is a chat_template.jinja. The other files are
 * good ones. */
#include "providers/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL "tests/golden/models/tied-gqa/"

static void check(enum mf_status status, const struct mf_error *error) {
    if (status != MF_OK && (!*error->message || error->status != status))
        abort();
}

static void encode(const struct mf_tokenizer *tokenizer, const char *text, size_t length) {
    struct mf_tokens tokens = {0};
    struct mf_error error;
    char *again = NULL;
    enum mf_status status = mf_tokenizer_encode(tokenizer, text, length, MF_SPECIAL_ADD, &tokens, &error);
    check(status, &error);
    for (size_t i = 0; i < tokens.count; i++)
        if (tokens.id[i] < 0 || tokens.id[i] >= mf_tokenizer_vocabulary(tokenizer))
            abort();
    if (status == MF_OK)
        check(mf_tokenizer_decode(tokenizer, tokens.id, tokens.count, false, &again, &error), &error);
    free(again);
    mf_tokens_free(&tokens);
}

static void use(struct mf_tokenizer *tokenizer, const char *text, size_t length) {
    struct mf_error error;
    json_t *messages = json_pack("[{s:s,s:s},{s:s,s:s}]", "role", "user", "content", "Who are you?", "role",
                                 "assistant", "content", "A model \xF0\x9F\xA4\x96.");
    char *chat = NULL;
    check(mf_tokenizer_render_chat(tokenizer, messages, &(struct mf_chat_options){true, 0}, &chat, &error),
          &error);
    json_decref(messages);
    if (chat && strlen(chat) < 1 << 16) /* a template may write much */
        encode(tokenizer, chat, strlen(chat));
    free(chat);
    encode(tokenizer, text, length);
    check(mf_tokenizer_set_embeddings(tokenizer, mf_tokenizer_vocabulary(tokenizer), &error), &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "USER: Gr\xC3\xBC\xC3\x9F Gott, 12 + 30?\nASSISTANT: <|im_end|> 42";
    struct mf_tokenizer *tokenizer;
    struct mf_error error;
    char folder[512];
    if (!size)
        return 0;
    const char *name = *data != '{'                         ? "chat_template.jinja"
                       : memmem(data, size, "\"vocab\"", 7) ? "tokenizer.json"
                                                            : "tokenizer_config.json";
    const bool is_text = *data == 'x';
    fuzz_copy(MODEL "tokenizer.json", "tokenizer.json");
    fuzz_copy(MODEL "tokenizer_config.json", "tokenizer_config.json");
    unlink(fuzz_path("chat_template.jinja"));
    if (!is_text)
        fuzz_put(name, data, size);
    snprintf(folder, sizeof folder, "%s", fuzz_path("tokenizer.json"));
    *strrchr(folder, '/') = 0;
    enum mf_status status = mf_tokenizer_open(folder, &tokenizer, &error);
    check(status, &error);
    if (status == MF_OK) {
        use(tokenizer, is_text ? (const char *)data + 1 : text, is_text ? size - 1 : sizeof text - 1);
        mf_tokenizer_close(tokenizer);
    }
    return 0;
}
