/* Tokenizers and chat templates of Hugging Face model folders. Token ids and rendered chats equal those of
 * Python's fast tokenizers and Transformers. The work is done by a Rust library (src/); this is its C face.
 */
#ifndef MF_PROVIDERS_TOKENIZER_TOKENIZER_H
#define MF_PROVIDERS_TOKENIZER_TOKENIZER_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MF_TOKENIZER_MAX_FILE_BYTES = 256 * 1024 * 1024, MF_TOKENIZER_MAX_TEXT_BYTES = 1 << 30 };

struct mf_tokenizer;

/* A growable list of ids owned by the caller; zero-initialise before the first use, free with mf_tokens_free.
 */
struct mf_tokens {
    int32_t *id;
    size_t count, capacity;
};

enum mf_special_tokens {
    MF_SPECIAL_NONE, /* the text alone: chat templates bring their own */
    MF_SPECIAL_ADD   /* what the tokenizer puts around a text (bos, [CLS] ... [SEP]) */
};

/* Reads tokenizer.json, tokenizer_config.json (optional) and chat_template.jinja (optional; before the
 * chat_template of tokenizer_config.json). What is put around a text is what tokenizer.json says;
 * add_bos_token and add_eos_token of tokenizer_config.json are not read, as Transformers 5 does not where
 * there is a tokenizer.json. MF_ERROR_MODEL_INCOMPLETE when tokenizer.json is missing, MF_ERROR_BAD_TOKENIZER
 * with file and reason. Freed with mf_tokenizer_close. All reading calls may run on several threads at once.
 */
enum mf_status mf_tokenizer_open(const char *folder, struct mf_tokenizer **out, struct mf_error *error);
void mf_tokenizer_close(struct mf_tokenizer *tokenizer); /* NULL is fine */

/* Appends the ids of `text` (UTF-8, `length` bytes, NUL allowed inside) to *tokens. Names of special tokens
 * in the text become special tokens, as in Python. */
enum mf_status mf_tokenizer_encode(const struct mf_tokenizer *tokenizer, const char *text, size_t length,
                                   enum mf_special_tokens special, struct mf_tokens *tokens,
                                   struct mf_error *error);

/* The same, and appends as many numbers to *ends: where in the text the token's word ends, in bytes, if the
 * token is the word's last one; else 0. Words are what the pre-tokenizer cuts a text into. */
enum mf_status mf_tokenizer_encode_words(const struct mf_tokenizer *tokenizer, const char *text,
                                         size_t length, enum mf_special_tokens special,
                                         struct mf_tokens *tokens, struct mf_tokens *ends,
                                         struct mf_error *error);

/* *text is NUL-terminated and freed by the caller with free(). Ids outside the vocabulary are left out. */
enum mf_status mf_tokenizer_decode(const struct mf_tokenizer *tokenizer, const int32_t *id, size_t count,
                                   bool skip_special, char **text, struct mf_error *error);

/* -1 when the tokenizer names none. */
int32_t mf_tokenizer_bos(const struct mf_tokenizer *tokenizer);
int32_t mf_tokenizer_eos(const struct mf_tokenizer *tokenizer);
/* The id of a token by its exact spelling, -1 when there is none. */
int32_t mf_tokenizer_token_id(const struct mf_tokenizer *tokenizer, const char *token);
/* One more than the largest id, added tokens included. */
int32_t mf_tokenizer_vocabulary(const struct mf_tokenizer *tokenizer);
/* From now on mf_tokenizer_encode() fails with MF_ERROR_BAD_TOKENIZER on ids from `rows` on, which the model
 * has no embedding for. A tokenizer may know more tokens than its model (Gemma 3 has one for images), as long
 * as no text uses them; an end-of-sequence token among them fails at once. Not while another thread uses the
 * tokenizer. */
enum mf_status mf_tokenizer_set_embeddings(struct mf_tokenizer *tokenizer, int32_t rows,
                                           struct mf_error *error);

bool mf_tokenizer_has_chat_template(const struct mf_tokenizer *tokenizer);
/* Uses this template text from now on (MF_ERROR_BAD_TOKENIZER with line and reason when it does not parse).
 * Not while another thread uses the tokenizer. */
enum mf_status mf_tokenizer_set_chat_template(struct mf_tokenizer *tokenizer, const char *source,
                                              struct mf_error *error);

struct mf_chat_options {
    bool add_generation_prompt;
    int64_t created_at_ms; /* what strftime_now prints, UTC: the request's creation time */
};

/* Renders `messages` ([{role, content}, ...], borrowed). *text is NUL-terminated, freed with free(); tokenise
 * it with MF_SPECIAL_NONE. MF_ERROR_BAD_TOKENIZER when there is no template; MF_ERROR_DATASET_ROW when the
 * template refuses these messages (its own words are in the message). */
enum mf_status mf_tokenizer_render_chat(const struct mf_tokenizer *tokenizer, const json_t *messages,
                                        const struct mf_chat_options *options, char **text,
                                        struct mf_error *error);

void mf_tokens_free(struct mf_tokens *tokens); /* leaves it ready for use again */

#endif
