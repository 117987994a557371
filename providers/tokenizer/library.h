/* The C border of the Rust library in src/: what src/lib.rs exports. Private to tokenizer.c. */
#ifndef MF_PROVIDERS_TOKENIZER_LIBRARY_H
#define MF_PROVIDERS_TOKENIZER_LIBRARY_H

#include <stddef.h>
#include <stdint.h>

struct mf_rust_tokenizer;
struct mf_rust_chat;

/* `length` bytes of UTF-8 and a NUL. */
struct mf_rust_text {
    char *data;
    size_t length;
};

struct mf_rust_ids {
    uint32_t *data;
    size_t count;
};

/* 0: success; 1: *error holds a message, freed with mf_rust_text_free; 2: it holds why the library gave up on
 * what it was opened with. */
int mf_rust_tokenizer_open(const char *json, size_t length, struct mf_rust_tokenizer **out,
                           struct mf_rust_text *error);
int mf_rust_tokenizer_encode(const struct mf_rust_tokenizer *tokenizer, const char *text, size_t length,
                             int add_special, struct mf_rust_ids *out, struct mf_rust_ids *ends,
                             struct mf_rust_text *error); /* ends: NULL, or where words end (tokenizer.h) */
int mf_rust_tokenizer_decode(const struct mf_rust_tokenizer *tokenizer, const uint32_t *ids, size_t count,
                             int skip_special, struct mf_rust_text *out, struct mf_rust_text *error);
int64_t mf_rust_tokenizer_id(const struct mf_rust_tokenizer *tokenizer, const char *token, size_t length);
size_t mf_rust_tokenizer_size(const struct mf_rust_tokenizer *tokenizer);
void mf_rust_tokenizer_free(struct mf_rust_tokenizer *tokenizer);

int mf_rust_chat_compile(const char *source, size_t length, struct mf_rust_chat **out,
                         struct mf_rust_text *error);
int mf_rust_chat_render(const struct mf_rust_chat *chat, const char *context, size_t length,
                        int64_t created_at, struct mf_rust_text *out, struct mf_rust_text *error);
void mf_rust_chat_free(struct mf_rust_chat *chat);

void mf_rust_text_free(struct mf_rust_text text);
void mf_rust_ids_free(struct mf_rust_ids ids);

#endif
