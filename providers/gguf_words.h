/* Pre-tokenizers of byte-level BPE that llama.cpp has names for. Private to providers/. */
#ifndef MF_PROVIDERS_GGUF_WORDS_H
#define MF_PROVIDERS_GGUF_WORDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct mf_gguf_words {
    const char *name;    /* `tokenizer.ggml.pre` */
    const char *pattern; /* how tokenizer.json splits a text; NULL: as GPT-2 does */
    bool digits;         /* digits one by one before that */
    bool composed;       /* text is brought to NFC before; llama.cpp does not, whoever wrote the file */
    bool ignore_merges;  /* a word that is a token is taken as it is */
};

/* Of a parsed tokenizer.json, by its normalizer, pre_tokenizer and model; NULL: of another effect than those
 * that have a name. Static. */
const struct mf_gguf_words *mf_gguf_words_of(const json_t *tokenizer);

/* By a name of `length` bytes; NULL: not known. Static. */
const struct mf_gguf_words *mf_gguf_words(const char *name, size_t length);
const char *mf_gguf_words_list(void); /* "smollm, gpt-2, ..."; static */

/* The member "pre_tokenizer" of a tokenizer.json; freed by the caller. NULL: out of memory. */
json_t *mf_gguf_words_json(const struct mf_gguf_words *words);

/* {"type": "ByteLevel", ...}; freed by the caller. */
json_t *mf_gguf_byte_level(bool add_prefix_space, bool use_regex);

#endif
