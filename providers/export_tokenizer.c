#include "providers/export_tokenizer.h"

#include "common/files.h"
#include "common/json.h"
#include "providers/gguf_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4, TOKEN_UNUSED = 5 };
enum { JSON_BYTES = 256 << 20, TEMPLATE_BYTES = 1 << 20, PAD_NAME_BYTES = 32 };

/* The parts of the folder; borrowed from the documents that own them. */
struct source {
    json_t *tokenizer, *config; /* config: may be NULL */
    char *template;             /* NULL: none */
    const json_t *vocabulary, *merges;
    const char *pre; /* llama.cpp's name of the pre-tokenizer */
};

/* Texts and types by id. */
struct table {
    const char **text; /* borrowed, or into `pads` */
    int32_t *type;
    char *pads;
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

/* GPT-2's words in bytes. */
static bool gpt2_words(const json_t *value) {
    return of_type(value, "ByteLevel") && !flag(value, "add_prefix_space", true) &&
           flag(value, "use_regex", true);
}

/* Qwen's words, then bytes. */
static bool qwen2_words(const json_t *list) {
    const json_t *split = json_array_get(list, 0), *bytes = json_array_get(list, 1);
    const char *words = json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
    const char *behavior = json_string_value(json_object_get(split, "behavior"));
    return json_array_size(list) == 2 && of_type(split, "Split") && words && !strcmp(words, MF_QWEN2_WORDS) &&
           behavior && !strcmp(behavior, "Isolated") && !flag(split, "invert", false) &&
           of_type(bytes, "ByteLevel") && !flag(bytes, "add_prefix_space", true) &&
           !flag(bytes, "use_regex", true);
}

/* llama.cpp's name for it, NULL when it has another effect than those that can be written. */
static const char *pre_tokenizer_name(const json_t *value) {
    if (gpt2_words(value))
        return "gpt-2";
    const json_t *list = json_object_get(value, "pretokenizers");
    if (of_type(value, "Sequence") && json_array_size(list) == 2 &&
        of_type(json_array_get(list, 0), "Digits") &&
        flag(json_array_get(list, 0), "individual_digits", false) && gpt2_words(json_array_get(list, 1)))
        return "smollm";
    return qwen2_words(list) && of_type(value, "Sequence") ? "qwen2" : NULL;
}

static enum mf_status check_model(const json_t *model, struct mf_error *error) {
    if (!of_type(model, "BPE"))
        return refuse("model, which is not byte-level BPE,", error);
    if (flag(model, "byte_fallback", false))
        return refuse("model.byte_fallback", error);
    if (flag(model, "ignore_merges", false))
        return refuse("model.ignore_merges", error);
    if (!empty_text(model, "continuing_subword_prefix") || !empty_text(model, "end_of_word_suffix"))
        return refuse("model.continuing_subword_prefix or end_of_word_suffix", error);
    return MF_OK;
}

static enum mf_status check_tokenizer(struct source *source, struct mf_error *error) {
    const json_t *root = source->tokenizer, *model = json_object_get(root, "model");
    const json_t *normalizer = json_object_get(root, "normalizer");
    const json_t *after = json_object_get(root, "post_processor");
    enum mf_status status = check_model(model, error);
    if (status != MF_OK)
        return status;
    if (after && !json_is_null(after) && !of_type(after, "ByteLevel"))
        return refuse("post_processor", error);
    if (!of_type(json_object_get(root, "decoder"), "ByteLevel"))
        return refuse("decoder, which is not ByteLevel,", error);
    source->pre = pre_tokenizer_name(json_object_get(root, "pre_tokenizer"));
    if (!source->pre)
        return refuse("pre_tokenizer, which is not GPT-2's, SmolLM's or Qwen's,", error);
    const bool composed = !strcmp(source->pre, "qwen2");
    if (composed ? !of_type(normalizer, "NFC") : normalizer && !json_is_null(normalizer))
        return refuse("normalizer", error);
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

static enum mf_status place_added(struct table *table, const json_t *token, struct mf_error *error) {
    const char *text = json_string_value(json_object_get(token, "content"));
    char what[160];
    if (flag(token, "lstrip", false) || flag(token, "rstrip", false) || flag(token, "single_word", false)) {
        snprintf(what, sizeof what, "added token '%.100s' with lstrip, rstrip or single_word",
                 text ? text : "");
        return refuse(what, error);
    }
    return place(table, text, json_object_get(token, "id"),
                 flag(token, "special", false) ? TOKEN_CONTROL : TOKEN_USER_DEFINED, error);
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
        if ((status = place(table, text, id, TOKEN_NORMAL, error)))
            return status;
    }
    json_array_foreach(json_object_get(source->tokenizer, "added_tokens"), index, token) {
        if ((status = place_added(table, token, error)))
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
    char *text = NULL;
    if (json_is_string(merge))
        return strdup(json_string_value(merge));
    const char *left = json_string_value(json_array_get(merge, 0));
    const char *right = json_string_value(json_array_get(merge, 1));
    if (!left || !right || strchr(left, ' ') || strchr(right, ' ') ||
        asprintf(&text, "%s %s", left, right) < 0)
        return NULL;
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

enum mf_status mf_export_tokenizer(const char *folder, const struct mf_architecture *architecture,
                                   struct mf_gguf_writer *writer, struct mf_error *error) {
    struct source source = {0};
    struct table table = {.count = (size_t)architecture->vocabulary};
    enum mf_status status;
    if ((status = read_source(folder, &source, error)) || (status = fill_table(&source, &table, error)))
        goto done;
    if (writer) {
        mf_gguf_put_string(writer, "tokenizer.ggml.model", "gpt2");
        mf_gguf_put_string(writer, "tokenizer.ggml.pre", source.pre);
        mf_gguf_put_strings(writer, "tokenizer.ggml.tokens", table.text, table.count);
        mf_gguf_put_integers(writer, "tokenizer.ggml.token_type", table.type, table.count);
        put_specials(&source, &table, architecture, writer);
        mf_gguf_put_boolean(writer, "tokenizer.ggml.add_bos_token", false);
        mf_gguf_put_boolean(writer, "tokenizer.ggml.add_space_prefix", false);
        if (source.template)
            mf_gguf_put_string(writer, "tokenizer.chat_template", source.template);
    }
    status = put_merges(&source, writer, error);
done:
    free_source(&source);
    free(table.text);
    free(table.type);
    free(table.pads);
    return status;
}
