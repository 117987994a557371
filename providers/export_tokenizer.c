#include "providers/export_tokenizer.h"

#include "common/files.h"
#include "common/json.h"
#include "providers/gguf_pieces.h"
#include "providers/gguf_words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6
};
enum { JSON_BYTES = 256 << 20, TEMPLATE_BYTES = 1 << 20, PAD_NAME_BYTES = 32 };

/* The parts of the folder; borrowed from the documents that own them. */
struct source {
    json_t *tokenizer, *config; /* config: may be NULL */
    char *template;             /* NULL: none */
    const json_t *vocabulary, *merges;
    const char *pre;          /* llama.cpp's name of the pre-tokenizer; of SentencePiece "default" */
    const char *unknown;      /* of SentencePiece: the text of the unknown token; NULL: none */
    const char *first, *last; /* tokens that every text gets; NULL: none */
    bool pieces;              /* SentencePiece's BPE, not that of bytes */
    bool prefix;              /* of SentencePiece: a text begins with a blank */
};

/* Texts and types by id. */
struct table {
    const char **text; /* borrowed, or into `pads` */
    int32_t *type;
    char *pads;
    char *spaced; /* user-defined tokens of SentencePiece, with blanks, one after the other */
    size_t count;
};

static enum mf_status out_of_memory(const char *what, struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "%s: out of memory", what);
    return MF_ERROR_OUT_OF_MEMORY;
}

static enum mf_status refuse(const char *what, struct mf_error *error) {
    return mf_error_set(
        error, MF_ERROR_UNSUPPORTED_FIELD,
        "output: gguf: the tokenizer's %s cannot be written as GGUF by this version; leave gguf "
        "out and write merged_16bit instead",
        what);
}

/* ---- what the tokenizer does ---- */

static bool of_type(const json_t *value, const char *type) {
    const char *text = json_string_value(json_object_get(value, "type"));
    return text && !strcmp(text, type);
}

/* A member that is false or absent (or, with `otherwise`, true when absent). */
static bool flag(const json_t *object, const char *name, bool otherwise) {
    const json_t *value = json_object_get(object, name);
    return value ? json_is_true(value) : otherwise;
}

static bool empty_text(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return !value || json_is_null(value) || (json_is_string(value) && !json_string_length(value));
}

static bool has_text(const json_t *object, const char *name, const char *text) {
    const char *value = json_string_value(json_object_get(object, name));
    return value && !strcmp(value, text);
}

/* "\u2581" for each blank. */
static bool replaces_blanks(const json_t *value) {
    return of_type(value, "Replace") && has_text(json_object_get(value, "pattern"), "String", " ") &&
           has_text(value, "content", "\xe2\x96\x81");
}

static bool prepends(const json_t *value) {
    return of_type(value, "Prepend") && has_text(value, "prepend", "\xe2\x96\x81");
}

/* SentencePiece's way with blanks: in the normalizer (Llama 2, Mistral, Phi-3, Gemma) or as Metaspace. */
static bool marks_blanks(struct source *source) {
    const json_t *normalizer = json_object_get(source->tokenizer, "normalizer");
    const json_t *list = json_object_get(normalizer, "normalizers");
    const json_t *pre = json_object_get(source->tokenizer, "pre_tokenizer");
    const bool none = !pre || json_is_null(pre);
    /* What Gemma has: there is no blank left to split at. */
    const bool split = of_type(pre, "Split") && has_text(json_object_get(pre, "pattern"), "String", " ");
    if (replaces_blanks(normalizer))
        return none || split;
    source->prefix = true;
    if (of_type(normalizer, "Sequence"))
        return json_array_size(list) == 2 && prepends(json_array_get(list, 0)) &&
               replaces_blanks(json_array_get(list, 1)) && none;
    source->prefix = !has_text(pre, "prepend_scheme", "never");
    return (!normalizer || json_is_null(normalizer)) && of_type(pre, "Metaspace") &&
           has_text(pre, "replacement", "\xe2\x96\x81") && !flag(pre, "split", true);
}

static enum mf_status check_model(const json_t *model, struct mf_error *error) {
    if (!of_type(model, "BPE"))
        return refuse("model, which is not BPE,", error);
    if (!empty_text(model, "continuing_subword_prefix") || !empty_text(model, "end_of_word_suffix"))
        return refuse("model.continuing_subword_prefix or end_of_word_suffix", error);
    return MF_OK;
}

/* The one token of a template's part; NULL: it is none. */
static const char *special_of(const json_t *part) {
    return json_string_value(json_object_get(json_object_get(part, "SpecialToken"), "id"));
}

/* Tokens before and after a text, at most one each. */
static bool take_template(const json_t *processor, struct source *source) {
    const json_t *single = json_object_get(processor, "single");
    const size_t count = json_array_size(single);
    const bool begins = count && special_of(json_array_get(single, 0));
    const bool ends = count > 1 && special_of(json_array_get(single, count - 1));
    if (source->first || source->last || count != 1u + begins + ends ||
        !json_object_get(json_array_get(single, begins), "Sequence"))
        return false;
    source->first = begins ? special_of(json_array_get(single, 0)) : NULL;
    source->last = ends ? special_of(json_array_get(single, count - 1)) : NULL;
    return true;
}

static bool take_processor(const json_t *processor, struct source *source) {
    if (!processor || json_is_null(processor) || of_type(processor, "ByteLevel"))
        return true;
    if (of_type(processor, "TemplateProcessing"))
        return take_template(processor, source);
    const json_t *list = json_object_get(processor, "processors");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *part = json_array_get(list, i);
        if (!of_type(part, "ByteLevel") &&
            !(of_type(part, "TemplateProcessing") && take_template(part, source)))
            return false;
    }
    return of_type(processor, "Sequence");
}

static enum mf_status check_bytes(struct source *source, struct mf_error *error) {
    const struct mf_gguf_words *words = mf_gguf_words_of(source->tokenizer);
    if (!of_type(json_object_get(source->tokenizer, "decoder"), "ByteLevel"))
        return refuse("decoder, which is not ByteLevel,", error);
    if (!words)
        return refuse(
            "pre_tokenizer or normalizer, which is not that of GPT-2, SmolLM, Qwen 2, Llama 3, Phi-4 or "
            "Mistral Nemo,",
            error);
    source->pre = words->name;
    return MF_OK;
}

static enum mf_status check_tokenizer(struct source *source, struct mf_error *error) {
    const json_t *root = source->tokenizer, *model = json_object_get(root, "model");
    enum mf_status status = check_model(model, error);
    if (status != MF_OK)
        return status;
    source->pieces = flag(model, "byte_fallback", false);
    source->pre = "default";
    source->unknown = json_string_value(json_object_get(model, "unk_token"));
    if (!take_processor(json_object_get(root, "post_processor"), source))
        return refuse("post_processor", error);
    if (source->pieces && !marks_blanks(source))
        return refuse("normalizer or pre_tokenizer, which is not SentencePiece's,", error);
    if (source->pieces && flag(model, "ignore_merges", false))
        return refuse("model.ignore_merges", error);
    if (!source->pieces && (status = check_bytes(source, error)))
        return status;
    source->vocabulary = json_object_get(model, "vocab");
    source->merges = json_object_get(model, "merges");
    if (!json_is_object(source->vocabulary) || !json_is_array(source->merges))
        return mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                            "tokenizer.json: model.vocab or model.merges is missing");
    return MF_OK;
}

/* ---- reading ---- */

static enum mf_status read_optional(const char *folder, const char *name, json_t **value,
                                    struct mf_error *error) {
    char *path = mf_path_join(folder, name);
    enum mf_status status = MF_OK;
    if (!path)
        status = out_of_memory(name, error);
    else if (mf_path_exists(path))
        status = mf_json_read_file(path, JSON_BYTES, value, error);
    free(path);
    return status;
}

/* chat_template.jinja comes before tokenizer_config.json's member. */
static enum mf_status read_template(const char *folder, struct source *source, struct mf_error *error) {
    char *path = mf_path_join(folder, "chat_template.jinja");
    const char *text = json_string_value(json_object_get(source->config, "chat_template"));
    enum mf_status status = MF_OK;
    if (!path)
        status = out_of_memory("chat_template.jinja", error);
    else if (mf_path_exists(path))
        status = mf_file_read(path, TEMPLATE_BYTES, &source->template, NULL, error);
    else if (text && !(source->template = strdup(text)))
        status = out_of_memory("chat_template", error);
    free(path);
    return status;
}

static enum mf_status read_source(const char *folder, struct source *source, struct mf_error *error) {
    enum mf_status status;
    if ((status = read_optional(folder, "tokenizer.json", &source->tokenizer, error)) ||
        (status = read_optional(folder, "tokenizer_config.json", &source->config, error)))
        return status;
    if (!source->tokenizer)
        return mf_error_set(error, MF_ERROR_MODEL_INCOMPLETE, "%s: tokenizer.json is missing", folder);
    if ((status = read_template(folder, source, error)))
        return status;
    return check_tokenizer(source, error);
}

static void free_source(struct source *source) {
    json_decref(source->tokenizer);
    json_decref(source->config);
    free(source->template);
}

/* ---- the vocabulary ---- */

static enum mf_status place(struct table *table, const char *text, const json_t *id, int32_t type,
                            struct mf_error *error) {
    const json_int_t at = json_is_integer(id) ? json_integer_value(id) : -1;
    if (!text || at < 0 || at >= (json_int_t)table->count)
        return mf_error_set(
            error, MF_ERROR_BAD_TOKENIZER,
            "tokenizer.json: the token '%.100s' has no id below the model's vocabulary of %zu",
            text ? text : "", table->count);
    if (table->text[at] && strcmp(table->text[at], text) != 0)
        return mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "tokenizer.json: two tokens have the id %lld",
                            (long long)at);
    table->text[at] = text;
    table->type[at] = type;
    return MF_OK;
}

/* "<0x0A>" */
static bool is_byte(const char *text) {
    return strlen(text) == 6 && !strncmp(text, "<0x", 3) && text[5] == '>' &&
           strspn(text + 3, "0123456789ABCDEF") == 2;
}

static int32_t type_of(const struct source *source, const char *text) {
    if (!source->pieces)
        return TOKEN_NORMAL;
    return is_byte(text)                                       ? TOKEN_BYTE
           : source->unknown && !strcmp(text, source->unknown) ? TOKEN_UNKNOWN
                                                               : TOKEN_NORMAL;
}

static enum mf_status place_added(const struct source *source, struct table *table, const json_t *token,
                                  struct mf_error *error) {
    const char *text = json_string_value(json_object_get(token, "content"));
    char what[160];
    if (flag(token, "lstrip", false) || flag(token, "rstrip", false) || flag(token, "single_word", false)) {
        snprintf(what, sizeof what, "added token '%.100s' with lstrip, rstrip or single_word",
                 text ? text : "");
        return refuse(what, error);
    }
    int32_t type = flag(token, "special", false) ? TOKEN_CONTROL : TOKEN_USER_DEFINED;
    if (text && type_of(source, text) == TOKEN_UNKNOWN)
        type = TOKEN_UNKNOWN;
    return place(table, text, json_object_get(token, "id"), type, error);
}

static enum mf_status fill_table(const struct source *source, struct table *table, struct mf_error *error) {
    const char *text;
    json_t *id, *token;
    size_t index;
    enum mf_status status = MF_OK;
    table->text = calloc(table->count, sizeof *table->text);
    table->type = calloc(table->count, sizeof *table->type);
    table->pads = calloc(table->count, PAD_NAME_BYTES);
    if (!table->text || !table->type || !table->pads)
        return out_of_memory("vocabulary", error);
    json_object_foreach((json_t *)source->vocabulary, text, id) {
        if ((status = place(table, text, id, type_of(source, text), error)))
            return status;
    }
    json_array_foreach(json_object_get(source->tokenizer, "added_tokens"), index, token) {
        if ((status = place_added(source, table, token, error)))
            return status;
    }
    for (size_t i = 0; i < table->count; i++) {
        if (table->text[i])
            continue;
        char *pad = table->pads + i * PAD_NAME_BYTES;
        snprintf(pad, PAD_NAME_BYTES, "[PAD%zu]", i);
        table->text[i] = pad;
        table->type[i] = TOKEN_UNUSED;
    }
    return MF_OK;
}

/* "left right", from that or from [left, right]; freed by the caller. NULL: it is neither. */
static char *merge_text(const json_t *merge) {
    char *text = NULL, *left, *right;
    if (!mf_gguf_merge_parts(merge, &left, &right))
        return NULL;
    if (strchr(left, ' ') || strchr(right, ' ') || asprintf(&text, "%s %s", left, right) < 0)
        text = NULL;
    free(left);
    free(right);
    return text;
}

static enum mf_status put_merges(const struct source *source, struct mf_gguf_writer *writer,
                                 struct mf_error *error) {
    const size_t count = json_array_size(source->merges);
    char **merge = calloc(count + 1, sizeof *merge);
    enum mf_status status = merge ? MF_OK : out_of_memory("merges", error);
    for (size_t i = 0; i < count && status == MF_OK; i++)
        if (!(merge[i] = merge_text(json_array_get(source->merges, i))))
            status = mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                                  "tokenizer.json: merge %zu is not two tokens without a blank", i);
    if (status == MF_OK && writer)
        mf_gguf_put_strings(writer, "tokenizer.ggml.merges", (const char *const *)merge, count);
    for (size_t i = 0; merge && i < count; i++)
        free(merge[i]);
    free(merge);
    return status;
}

static enum mf_status put_scores(const struct source *source, const struct table *table,
                                 struct mf_gguf_writer *writer, struct mf_error *error) {
    uint8_t *role = calloc(table->count + 1, sizeof *role);
    float *score = calloc(table->count + 1, sizeof *score);
    struct mf_error cause;
    enum mf_status status = role && score ? MF_OK : out_of_memory("scores", error);
    for (size_t i = 0; i < table->count && status == MF_OK; i++)
        role[i] = table->type[i] == TOKEN_NORMAL         ? MF_GGUF_PIECE_MADE
                  : table->type[i] == TOKEN_USER_DEFINED ? MF_GGUF_PIECE_GIVEN
                                                         : MF_GGUF_PIECE_NONE;
    if (status == MF_OK &&
        (status = mf_gguf_scores(source->vocabulary, source->merges, role, table->count, score, &cause))) {
        char what[320];
        snprintf(what, sizeof what, "model, whose merges are not SentencePiece's (%.200s),", cause.message);
        status = status == MF_ERROR_UNSUPPORTED_FIELD ? refuse(what, error)
                                                      : mf_error_set(error, status, "%s", cause.message);
    }
    if (status == MF_OK && writer)
        mf_gguf_put_numbers(writer, "tokenizer.ggml.scores", score, table->count);
    free(score);
    free(role);
    return status;
}

/* llama.cpp looks for user-defined tokens in the text as it is, where SentencePiece's blanks are none yet. */
static enum mf_status space_user_defined(struct table *table, struct mf_error *error) {
    static const char mark[] = "\xe2\x96\x81";
    size_t bytes = 1;
    for (size_t i = 0; i < table->count; i++)
        bytes += table->type[i] == TOKEN_USER_DEFINED ? strlen(table->text[i]) + 1 : 0;
    char *to = table->spaced = malloc(bytes);
    if (!to)
        return out_of_memory("vocabulary", error);
    for (size_t i = 0; i < table->count; i++) {
        if (table->type[i] != TOKEN_USER_DEFINED)
            continue;
        const char *from = table->text[i];
        table->text[i] = to;
        while (*from) {
            const bool blank = !strncmp(from, mark, sizeof mark - 1);
            *to++ = blank ? ' ' : *from;
            from += blank ? sizeof mark - 1 : 1;
        }
        *to++ = 0;
    }
    return MF_OK;
}

/* ---- special tokens ---- */

/* The id of tokenizer_config.json's token `name`, else `otherwise`; -1: none. */
static int64_t special_id(const struct source *source, const struct table *table, const char *name,
                          int64_t otherwise) {
    const json_t *value = json_object_get(source->config, name);
    const char *text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    for (size_t i = 0; text && i < table->count; i++)
        if (!strcmp(table->text[i], text))
            return (int64_t)i;
    return otherwise;
}

static void put_specials(const struct source *source, const struct table *table,
                         const struct mf_architecture *architecture, struct mf_gguf_writer *writer) {
    const struct {
        const char *name, *key;
        int64_t otherwise;
    } specials[] = {
        {"bos_token", "tokenizer.ggml.bos_token_id", architecture->bos},
        {"eos_token", "tokenizer.ggml.eos_token_id", architecture->eos_count ? architecture->eos[0] : -1},
        {"unk_token", "tokenizer.ggml.unknown_token_id", -1},
        {"pad_token", "tokenizer.ggml.padding_token_id", -1},
    };
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        const int64_t id = special_id(source, table, specials[i].name, specials[i].otherwise);
        if (id >= 0 && id < (int64_t)table->count)
            mf_gguf_put_integer(writer, specials[i].key, (uint32_t)id);
    }
}

/* Does `first` or `last`, where there is one, have the id that llama.cpp adds there? */
static bool is_special(const struct source *source, const struct table *table, const char *token,
                       const char *name, int64_t otherwise) {
    const int64_t id = special_id(source, table, name, otherwise);
    return !token || (id >= 0 && id < (int64_t)table->count && !strcmp(table->text[id], token));
}

static enum mf_status check_added(const struct source *source, const struct table *table,
                                  const struct mf_architecture *architecture, struct mf_error *error) {
    const int64_t eos = architecture->eos_count ? architecture->eos[0] : -1;
    if (!is_special(source, table, source->first, "bos_token", architecture->bos) ||
        !is_special(source, table, source->last, "eos_token", eos))
        return refuse("post_processor, which adds other tokens than bos_token and eos_token,", error);
    return MF_OK;
}

static void put_vocabulary(const struct source *source, const struct table *table,
                           const struct mf_architecture *architecture, struct mf_gguf_writer *writer) {
    mf_gguf_put_string(writer, "tokenizer.ggml.model", source->pieces ? "llama" : "gpt2");
    mf_gguf_put_string(writer, "tokenizer.ggml.pre", source->pre);
    mf_gguf_put_strings(writer, "tokenizer.ggml.tokens", table->text, table->count);
    mf_gguf_put_integers(writer, "tokenizer.ggml.token_type", table->type, table->count);
    put_specials(source, table, architecture, writer);
    mf_gguf_put_boolean(writer, "tokenizer.ggml.add_bos_token", source->first != NULL);
    mf_gguf_put_boolean(writer, "tokenizer.ggml.add_eos_token", source->last != NULL);
    mf_gguf_put_boolean(writer, "tokenizer.ggml.add_space_prefix", source->prefix);
    if (source->template)
        mf_gguf_put_string(writer, "tokenizer.chat_template", source->template);
}

enum mf_status mf_export_tokenizer(const char *folder, const struct mf_architecture *architecture,
                                   struct mf_gguf_writer *writer, struct mf_error *error) {
    struct source source = {0};
    struct table table = {.count = (size_t)architecture->vocabulary};
    enum mf_status status;
    if ((status = read_source(folder, &source, error)) || (status = fill_table(&source, &table, error)) ||
        (status = check_added(&source, &table, architecture, error)) ||
        (status = source.pieces ? put_scores(&source, &table, writer, error)
                                : put_merges(&source, writer, error)) ||
        (source.pieces && (status = space_user_defined(&table, error))))
        goto done;
    if (writer)
        put_vocabulary(&source, &table, architecture, writer);
done:
    free_source(&source);
    free(table.text);
    free(table.type);
    free(table.pads);
    free(table.spaced);
    return status;
}
