#include "providers/convert_tokenizer.h"

#include "common/files.h"
#include "providers/gguf_names.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4, MAX_VOCABULARY = 1 << 24 };

/* Token texts and types of the file. */
struct vocabulary {
    struct mf_gguf_text *text;
    int64_t *type;
    int64_t count;
};

static enum mf_status read_vocabulary(const struct mf_gguf *file, struct vocabulary *out,
                                      struct mf_error *error) {
    int64_t count = mf_gguf_array_length(file, "tokenizer.ggml.tokens");
    if (count < 1 || count > MAX_VOCABULARY ||
        mf_gguf_array_length(file, "tokenizer.ggml.token_type") != count)
        return mf_error_set(
            error, MF_ERROR_BAD_TOKENIZER,
            "tokenizer.ggml.tokens and tokenizer.ggml.token_type must be lists of one length");
    out->text = calloc((size_t)count, sizeof *out->text);
    out->type = calloc((size_t)count, sizeof *out->type);
    if (!out->text || !out->type)
        return mf_error_errno(error, ENOMEM, "vocabulary");
    if (!mf_gguf_strings(file, "tokenizer.ggml.tokens", out->text, (size_t)count) ||
        !mf_gguf_integers(file, "tokenizer.ggml.token_type", out->type, (size_t)count))
        return mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                            "tokenizer.ggml.tokens must hold strings and tokenizer.ggml.token_type integers");
    out->count = count;
    return MF_OK;
}

static bool text_is(struct mf_gguf_text value, const char *wanted) {
    return value.length == strlen(wanted) && !memcmp(value.data, wanted, value.length);
}

static enum mf_status not_supported(const char *key, struct mf_gguf_text value, const char *supported,
                                    struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "%s: '%.*s' is not supported (supported: %s)", key,
                        (int)(value.length < 64 ? value.length : 64), value.data, supported);
}

static enum mf_status require_bpe(const struct mf_gguf *file, struct mf_error *error) {
    static const char key[] = "tokenizer.ggml.model";
    struct mf_gguf_text value = {"", 0};
    mf_gguf_string(file, key, &value);
    return text_is(value, "gpt2") ? MF_OK : not_supported(key, value, "gpt2", error);
}

enum words { WORDS_GPT2, WORDS_SMOLLM, WORDS_QWEN2 };

static enum mf_status read_pre_tokenizer(const struct mf_gguf *file, enum words *words,
                                         struct mf_error *error) {
    static const char key[] = "tokenizer.ggml.pre";
    struct mf_gguf_text value = {"", 0};
    mf_gguf_string(file, key, &value);
    if (text_is(value, "gpt-2"))
        *words = WORDS_GPT2;
    else if (text_is(value, "smollm"))
        *words = WORDS_SMOLLM;
    else if (text_is(value, "qwen2"))
        *words = WORDS_QWEN2;
    else
        return not_supported(key, value, "smollm, gpt-2, qwen2", error);
    return MF_OK;
}

/* The post-processor is written as none. */
static enum mf_status require_unset(const struct mf_gguf *file, const char *key, struct mf_error *error) {
    bool flag = false;
    mf_gguf_boolean(file, key, &flag);
    return flag ? mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "%s: true is not supported", key) : MF_OK;
}

static json_t *text_json(struct mf_gguf_text text) {
    return json_stringn(text.data, text.length);
}

/* {token: id}; each token once. */
static enum mf_status vocabulary_json(const struct vocabulary *vocabulary, json_t **out,
                                      struct mf_error *error) {
    json_t *object = *out = json_object();
    for (int64_t i = 0; i < vocabulary->count; i++) {
        struct mf_gguf_text text = vocabulary->text[i];
        char *key = strndup(text.data, text.length);
        bool fresh = key && strlen(key) == text.length && !json_object_get(object, key);
        int failed = !fresh || json_object_set_new(object, key, json_integer(i));
        free(key);
        if (failed)
            return mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                                "tokenizer.ggml.tokens: token %lld is not UTF-8 or is there twice",
                                (long long)i);
    }
    return MF_OK;
}

/* [[left, right], ...] of "left right". */
static enum mf_status merges_json(const struct mf_gguf *file, json_t **out, struct mf_error *error) {
    int64_t count = mf_gguf_array_length(file, "tokenizer.ggml.merges");
    json_t *list = *out = json_array();
    if (count < 0)
        return mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "tokenizer.ggml.merges is missing");
    struct mf_gguf_text *merge = calloc((size_t)count + 1, sizeof *merge);
    enum mf_status status = MF_OK;
    if (!merge)
        return mf_error_errno(error, ENOMEM, "merges");
    if (!mf_gguf_strings(file, "tokenizer.ggml.merges", merge, (size_t)count))
        status = mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "tokenizer.ggml.merges must hold strings");
    for (int64_t i = 0; i < count && status == MF_OK; i++) {
        const char *blank = memchr(merge[i].data, ' ', merge[i].length);
        size_t left = blank ? (size_t)(blank - merge[i].data) : 0;
        json_t *pair =
            blank ? json_pack("[s%, s%]", merge[i].data, left, blank + 1, merge[i].length - left - 1) : NULL;
        if (!pair || json_array_append_new(list, pair))
            status = mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                                  "tokenizer.ggml.merges: merge %lld is not two UTF-8 tokens", (long long)i);
    }
    free(merge);
    return status;
}

static enum mf_status added_tokens_json(const struct vocabulary *vocabulary, json_t **out,
                                        struct mf_error *error) {
    json_t *list = *out = json_array();
    for (int64_t i = 0; i < vocabulary->count; i++) {
        if (vocabulary->type[i] != TOKEN_CONTROL && vocabulary->type[i] != TOKEN_USER_DEFINED)
            continue;
        json_t *content = text_json(vocabulary->text[i]);
        json_t *token = content ? json_pack("{s:I, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i,
                                            "content", content, "single_word", 0, "lstrip", 0, "rstrip", 0,
                                            "normalized", 0, "special", vocabulary->type[i] == TOKEN_CONTROL)
                                : NULL;
        if (!token || json_array_append_new(list, token))
            return mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                                "tokenizer.ggml.tokens: token %lld is not UTF-8", (long long)i);
    }
    return MF_OK;
}

static json_t *byte_level(bool add_prefix_space, bool use_regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", add_prefix_space,
                     "trim_offsets", 1, "use_regex", use_regex);
}

/* GPT-2's byte-level words; for `smollm` after digits one by one; for `qwen2` its own words, as bytes. */
static json_t *words_json(enum words words) {
    switch (words) {
    case WORDS_SMOLLM:
        return json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Digits",
                         "individual_digits", 1, byte_level(false, true));
    case WORDS_QWEN2:
        return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers",
                         "type", "Split", "pattern", "Regex", MF_QWEN2_WORDS, "behavior", "Isolated",
                         "invert", 0, byte_level(false, false));
    case WORDS_GPT2:
        break;
    }
    return byte_level(false, true);
}

/* Takes the references. */
static json_t *tokenizer_json(enum words words, json_t *vocabulary, json_t *merges, json_t *added) {
    json_t *normalizer = words == WORDS_QWEN2 ? json_pack("{s:s}", "type", "NFC") : json_null();
    json_t *model = json_pack("{s:s, s:n, s:n, s:s, s:s, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                              "unk_token", "continuing_subword_prefix", "", "end_of_word_suffix", "",
                              "fuse_unk", 0, "byte_fallback", 0, "vocab", vocabulary, "merges", merges);
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:n, s:o, s:o}", "version", "1.0", "truncation",
                     "padding", "added_tokens", added, "normalizer", normalizer, "pre_tokenizer",
                     words_json(words), "post_processor", "decoder", byte_level(true, true), "model", model);
}

static enum mf_status write_json(const char *folder, const char *name, json_t *value,
                                 struct mf_error *error) {
    char *path = mf_path_join(folder, name), *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    enum mf_status status = path && text ? mf_file_write_atomic(path, text, strlen(text), 0644, error)
                                         : mf_error_errno(error, ENOMEM, "%s", name);
    free(text);
    free(path);
    return status;
}

/* Adds "bos_token": text for tokenizer.ggml.bos_token_id and so on. */
static enum mf_status add_special(const struct mf_gguf *file, const struct vocabulary *vocabulary,
                                  const char *key, const char *name, json_t *config, struct mf_error *error) {
    int64_t id;
    if (!mf_gguf_integer(file, key, &id))
        return MF_OK;
    if (id < 0 || id >= vocabulary->count)
        return mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "%s: %lld is not in the vocabulary", key,
                            (long long)id);
    if (json_object_set_new(config, name, text_json(vocabulary->text[id])))
        return mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "%s: the token is not UTF-8", key);
    return MF_OK;
}

static enum mf_status write_configuration(const struct mf_gguf *file, const struct vocabulary *vocabulary,
                                          const char *folder, struct mf_error *error) {
    json_t *config = json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                               "clean_up_tokenization_spaces", 0);
    struct mf_gguf_text template;
    int64_t length;
    enum mf_status status;
    if ((status = add_special(file, vocabulary, "tokenizer.ggml.bos_token_id", "bos_token", config, error)) ||
        (status = add_special(file, vocabulary, "tokenizer.ggml.eos_token_id", "eos_token", config, error)) ||
        (status =
             add_special(file, vocabulary, "tokenizer.ggml.padding_token_id", "pad_token", config, error)))
        goto done;
    struct mf_gguf_text family = {"", 0};
    char key[80];
    mf_gguf_string(file, "general.architecture", &family);
    snprintf(key, sizeof key, "%.*s.context_length", (int)(family.length < 40 ? family.length : 40),
             family.data);
    if (mf_gguf_integer(file, key, &length))
        json_object_set_new(config, "model_max_length", json_integer(length));
    if (mf_gguf_string(file, "tokenizer.chat_template", &template) &&
        json_object_set_new(config, "chat_template", text_json(template)))
        status = mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "tokenizer.chat_template is not UTF-8");
    if (status == MF_OK)
        status = write_json(folder, "tokenizer_config.json", config, error);
done:
    json_decref(config);
    return status;
}

enum mf_status mf_convert_tokenizer(const struct mf_gguf *file, const char *folder, int32_t *count,
                                    struct mf_error *error) {
    struct vocabulary vocabulary = {0};
    json_t *tokens = NULL, *merges = NULL, *added = NULL, *whole = NULL;
    enum words words = WORDS_GPT2;
    enum mf_status status;
    if ((status = require_bpe(file, error)) || (status = read_pre_tokenizer(file, &words, error)) ||
        (status = require_unset(file, "tokenizer.ggml.add_bos_token", error)) ||
        (status = require_unset(file, "tokenizer.ggml.add_eos_token", error)) ||
        (status = read_vocabulary(file, &vocabulary, error)) ||
        (status = vocabulary_json(&vocabulary, &tokens, error)) ||
        (status = merges_json(file, &merges, error)) ||
        (status = added_tokens_json(&vocabulary, &added, error)))
        goto done;
    whole = tokenizer_json(words, tokens, merges, added);
    tokens = merges = added = NULL;
    status = write_json(folder, "tokenizer.json", whole, error);
    if (status == MF_OK)
        status = write_configuration(file, &vocabulary, folder, error);
    *count = (int32_t)vocabulary.count;
done:
    json_decref(whole);
    json_decref(added);
    json_decref(merges);
    json_decref(tokens);
    free(vocabulary.type);
    free(vocabulary.text);
    return status;
}
