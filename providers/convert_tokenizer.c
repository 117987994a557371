#include "providers/convert_tokenizer.h"

#include "common/files.h"
#include "providers/gguf_pieces.h"
#include "providers/gguf_words.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    MAX_VOCABULARY = 1 << 24
};

/* Token texts and types of the file, and what kind of tokenizer they belong to. */
struct vocabulary {
    struct mf_gguf_text *text;
    char *spaces; /* user-defined tokens of SentencePiece, with its sign for a blank */
    int64_t *type;
    int64_t count;
    const struct mf_gguf_words *words; /* of byte-level BPE; NULL: SentencePiece's */
    bool first, last, prefix;          /* begin and end tokens are added; a text begins with a blank */
};

static enum mf_status out_of_memory(const char *what, struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "%s: out of memory", what);
    return MF_ERROR_OUT_OF_MEMORY;
}

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
        return out_of_memory("vocabulary", error);
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

/* llama.cpp's own defaults for what the file leaves open. */
static enum mf_status read_kind(const struct mf_gguf *file, struct vocabulary *out, struct mf_error *error) {
    static const char key[] = "tokenizer.ggml.model", pre[] = "tokenizer.ggml.pre";
    struct mf_gguf_text value = {"", 0};
    mf_gguf_string(file, key, &value);
    if (text_is(value, "llama")) {
        out->first = out->prefix = true;
    } else if (text_is(value, "gpt2")) {
        value = (struct mf_gguf_text){"", 0};
        mf_gguf_string(file, pre, &value);
        out->words = mf_gguf_words(value.data, value.length);
        if (!out->words)
            return not_supported(pre, value, mf_gguf_words_list(), error);
        out->first = out->words->ignore_merges;
    } else {
        return not_supported(key, value, "gpt2, llama", error);
    }
    mf_gguf_boolean(file, "tokenizer.ggml.add_bos_token", &out->first);
    mf_gguf_boolean(file, "tokenizer.ggml.add_eos_token", &out->last);
    mf_gguf_boolean(file, "tokenizer.ggml.add_space_prefix", &out->prefix);
    return MF_OK;
}

/* The writer's way back: a blank in a user-defined token is SentencePiece's sign for one in tokenizer.json.
 */
static enum mf_status mark_user_defined(struct vocabulary *vocabulary, struct mf_error *error) {
    static const char mark[] = "\xe2\x96\x81";
    size_t bytes = 1;
    for (int64_t i = 0; i < vocabulary->count; i++)
        if (vocabulary->type[i] == TOKEN_USER_DEFINED)
            bytes += 3 * vocabulary->text[i].length;
    char *to = vocabulary->spaces = malloc(bytes);
    if (!to)
        return out_of_memory("vocabulary", error);
    for (int64_t i = 0; i < vocabulary->count; i++) {
        if (vocabulary->type[i] != TOKEN_USER_DEFINED)
            continue;
        const struct mf_gguf_text from = vocabulary->text[i];
        char *start = to;
        for (size_t k = 0; k < from.length; k++) {
            if (from.data[k] == ' ') {
                memcpy(to, mark, sizeof mark - 1);
                to += sizeof mark - 1;
            } else {
                *to++ = from.data[k];
            }
        }
        vocabulary->text[i] = (struct mf_gguf_text){start, (size_t)(to - start)};
    }
    return MF_OK;
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
        return out_of_memory("merges", error);
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
        const bool unknown = !vocabulary->words && vocabulary->type[i] == TOKEN_UNKNOWN;
        if (!unknown && vocabulary->type[i] != TOKEN_CONTROL && vocabulary->type[i] != TOKEN_USER_DEFINED)
            continue;
        json_t *content = text_json(vocabulary->text[i]);
        json_t *token = content
                            ? json_pack("{s:I, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content",
                                        content, "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0,
                                        "special", vocabulary->type[i] != TOKEN_USER_DEFINED)
                            : NULL;
        if (!token || json_array_append_new(list, token))
            return mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                                "tokenizer.ggml.tokens: token %lld is not UTF-8", (long long)i);
    }
    return MF_OK;
}

/* [[left, right], ...] from the scores of SentencePiece. */
static enum mf_status pieces_json(const struct mf_gguf *file, const struct vocabulary *vocabulary,
                                  const json_t *tokens, json_t **out, struct mf_error *error) {
    const size_t count = (size_t)vocabulary->count;
    char **text = calloc(count + 1, sizeof *text);
    uint8_t *role = calloc(count + 1, sizeof *role);
    double *score = calloc(count + 1, sizeof *score);
    enum mf_status status = text && role && score ? MF_OK : out_of_memory("scores", error);
    for (size_t i = 0; i < count && status == MF_OK; i++) {
        role[i] = vocabulary->type[i] == TOKEN_NORMAL         ? MF_GGUF_PIECE_MADE
                  : vocabulary->type[i] == TOKEN_USER_DEFINED ? MF_GGUF_PIECE_GIVEN
                                                              : MF_GGUF_PIECE_NONE;
        if (!(text[i] = strndup(vocabulary->text[i].data, vocabulary->text[i].length)))
            status = out_of_memory("scores", error);
    }
    if (status == MF_OK && (mf_gguf_array_length(file, "tokenizer.ggml.scores") != vocabulary->count ||
                            !mf_gguf_numbers(file, "tokenizer.ggml.scores", score, count)))
        status = mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                              "tokenizer.ggml.scores must be a list of one number a token");
    for (size_t i = 0; i < count && status == MF_OK; i++)
        if (!isfinite(score[i])) /* what has no order cannot be sorted */
            status = mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "tokenizer.ggml.scores: %g of token %zu",
                                  score[i], i);
    if (status == MF_OK)
        status = mf_gguf_merges(tokens, text, role, count, score, out, error);
    for (size_t i = 0; text && i < count; i++)
        free(text[i]);
    free(score);
    free(role);
    free(text);
    return status;
}

/* What every text gets before and after it; null where that is nothing. */
static json_t *processor_json(const struct mf_gguf *file, const struct vocabulary *vocabulary) {
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"};
    const bool wanted[] = {vocabulary->first, vocabulary->last};
    json_t *single = json_array(), *pair = json_array(), *specials = json_object();
    for (int i = 0; i < 2; i++) {
        int64_t id = -1;
        if (wanted[i] && mf_gguf_integer(file, keys[i], &id) && id >= 0 && id < vocabulary->count) {
            json_t *token = text_json(vocabulary->text[id]);
            const char *text = json_string_value(token);
            for (int sequence = 0; text && sequence < 2; sequence++)
                json_array_append_new(sequence ? pair : single,
                                      json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", text, "type_id", 0));
            if (text)
                json_object_set_new(
                    specials, text,
                    json_pack("{s:s, s:[I], s:[s]}", "id", text, "ids", (json_int_t)id, "tokens", text));
            json_decref(token);
        }
        for (int sequence = 0; i == 0 && sequence < 2; sequence++)
            json_array_append_new(sequence ? pair : single,
                                  json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
        if (i == 0)
            json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "B", "type_id", 0));
    }
    json_t *processor = json_object_size(specials)
                            ? json_pack("{s:s, s:O, s:O, s:O}", "type", "TemplateProcessing", "single",
                                        single, "pair", pair, "special_tokens", specials)
                            : json_null();
    json_decref(specials);
    json_decref(pair);
    json_decref(single);
    return processor;
}

static json_t *blanks_json(void) {
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content",
                     "\xe2\x96\x81");
}

/* SentencePiece's blanks. */
static json_t *pieces_normalizer(bool prefix) {
    return prefix ? json_pack("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers", "type",
                              "Prepend", "prepend", "\xe2\x96\x81", blanks_json())
                  : blanks_json();
}

static json_t *pieces_decoder(bool prefix) {
    json_t *list = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String",
                             "\xe2\x96\x81", "content", " ", "type", "ByteFallback", "type", "Fuse");
    if (prefix)
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", list);
}

/* The text of the unknown token, or null. */
static json_t *unknown_json(const struct vocabulary *vocabulary) {
    for (int64_t i = 0; i < vocabulary->count && !vocabulary->words; i++)
        if (vocabulary->type[i] == TOKEN_UNKNOWN)
            return text_json(vocabulary->text[i]);
    return json_null();
}

/* Takes the references. */
static json_t *tokenizer_json(const struct mf_gguf *file, const struct vocabulary *vocabulary, json_t *tokens,
                              json_t *merges, json_t *added) {
    const struct mf_gguf_words *words = vocabulary->words;
    json_t *normalizer = !words            ? pieces_normalizer(vocabulary->prefix)
                         : words->composed ? json_pack("{s:s}", "type", "NFC")
                                           : json_null();
    json_t *model =
        json_pack("{s:s, s:n, s:o, s:s, s:s, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token",
                  unknown_json(vocabulary), "continuing_subword_prefix", "", "end_of_word_suffix", "",
                  "fuse_unk", !words, "byte_fallback", !words, "ignore_merges", words && words->ignore_merges,
                  "vocab", tokens, "merges", merges);
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                     "padding", "added_tokens", added, "normalizer", normalizer, "pre_tokenizer",
                     words ? mf_gguf_words_json(words) : json_null(), "post_processor",
                     processor_json(file, vocabulary), "decoder",
                     words ? mf_gguf_byte_level(true, true) : pieces_decoder(vocabulary->prefix), "model",
                     model);
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
    enum mf_status status;
    if ((status = read_kind(file, &vocabulary, error)) ||
        (status = read_vocabulary(file, &vocabulary, error)) ||
        (!vocabulary.words && (status = mark_user_defined(&vocabulary, error))) ||
        (status = vocabulary_json(&vocabulary, &tokens, error)) ||
        (status = vocabulary.words ? merges_json(file, &merges, error)
                                   : pieces_json(file, &vocabulary, tokens, &merges, error)) ||
        (status = added_tokens_json(&vocabulary, &added, error)))
        goto done;
    whole = tokenizer_json(file, &vocabulary, tokens, merges, added);
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
    free(vocabulary.spaces);
    free(vocabulary.text);
    return status;
}
