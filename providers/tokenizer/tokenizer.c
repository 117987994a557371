#include "providers/tokenizer/tokenizer.h"

#include "common/files.h"
#include "providers/tokenizer/library.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_FILE_BYTES = 16 << 20, TEMPLATE_FILE_BYTES = 1 << 20, MESSAGE_BYTES = 1024 };

struct mf_tokenizer {
    struct mf_rust_tokenizer *library;
    struct mf_rust_chat *chat;
    char *chat_failure; /* why the folder's own template cannot be used; told when it is asked for */
    json_t *special;    /* what a template sees: bos_token, eos_token, ... */
    int32_t bos, eos, vocabulary;
    int32_t embeddings; /* ids from here on are refused */
};

static const char *const special_names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                            "pad_token", "cls_token", "mask_token"};

/* Moves a message of the library into *error; `result` is what it returned. */
static enum mf_status library_error(int result, struct mf_rust_text message, enum mf_status status,
                                    const char *where, struct mf_error *error) {
    if (result == 2)
        status = mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                              "%s: the tokenizer library gives up on it: %.*s; the file is damaged", where,
                              MESSAGE_BYTES, message.data);
    else
        mf_error_set(error, status, "%s: %.*s", where, MESSAGE_BYTES, message.data);
    mf_rust_text_free(message);
    return status;
}

/* ---- opening ---- */

/* An optional JSON file of the folder: *value stays NULL when it is not there. Whole numbers are read as
 * reals, because "model_max_length": 1000000000000000019884624838656 is what Transformers writes for "no
 * limit". */
static enum mf_status read_optional(const char *folder, const char *name, json_t **value,
                                    struct mf_error *error) {
    char *path = mf_path_join(folder, name), *text = NULL;
    size_t size = 0;
    json_error_t cause;
    enum mf_status status = MF_OK;
    if (!path)
        return mf_error_errno(error, ENOMEM, "%s", name);
    if (!mf_path_exists(path))
        goto done;
    status = mf_file_read(path, CONFIG_FILE_BYTES, &text, &size, error);
    if (status)
        goto done;
    *value = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &cause);
    if (!*value)
        status = mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "%s: line %d, column %d: %s", path, cause.line,
                              cause.column, cause.text);
    else if (!json_is_object(*value))
        status = mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "%s: not a JSON object", path);
done:
    free(text);
    free(path);
    return status;
}

static enum mf_status open_library(const char *folder, struct mf_tokenizer *tokenizer,
                                   struct mf_error *error) {
    char *path = mf_path_join(folder, "tokenizer.json"), *json = NULL;
    size_t size = 0;
    struct mf_rust_text message = {0};
    enum mf_status status;
    if (!path)
        return mf_error_errno(error, ENOMEM, "%s", folder);
    if (!mf_path_exists(path))
        status =
            mf_error_set(error, MF_ERROR_MODEL_INCOMPLETE,
                         "%s: tokenizer.json is missing; save the tokenizer with save_pretrained of a fast "
                         "tokenizer",
                         folder);
    else
        status = mf_file_read(path, MF_TOKENIZER_MAX_FILE_BYTES, &json, &size, error);
    if (status == MF_OK) {
        const int result = mf_rust_tokenizer_open(json, size, &tokenizer->library, &message);
        if (result)
            status = library_error(result, message, MF_ERROR_BAD_TOKENIZER, path, error);
    }
    if (status == MF_OK) {
        size_t vocabulary = mf_rust_tokenizer_size(tokenizer->library);
        if (vocabulary < 1 || vocabulary > INT32_MAX)
            status = mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "%s: a vocabulary of %zu tokens", path,
                                  vocabulary);
        tokenizer->vocabulary = tokenizer->embeddings = (int32_t)vocabulary;
    }
    free(json);
    free(path);
    return status;
}

/* A token is written as its text or as {"content": text, ...}. */
static const char *token_text(const json_t *value) {
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

static enum mf_status read_special(struct mf_tokenizer *tokenizer, const json_t *config,
                                   const json_t *fallback, struct mf_error *error) {
    for (size_t i = 0; i < sizeof special_names / sizeof *special_names; i++) {
        const char *text = token_text(json_object_get(config, special_names[i]));
        if (!text)
            text = token_text(json_object_get(fallback, special_names[i]));
        if (text && json_object_set_new(tokenizer->special, special_names[i], json_string(text)))
            return mf_error_errno(error, ENOMEM, "%s", special_names[i]);
    }
    return MF_OK;
}

static enum mf_status find_special(const struct mf_tokenizer *tokenizer, const char *folder, const char *name,
                                   int32_t *id, struct mf_error *error) {
    const char *text = json_string_value(json_object_get(tokenizer->special, name));
    *id = text ? mf_tokenizer_token_id(tokenizer, text) : -1;
    return text && *id < 0
               ? mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                              "%s: tokenizer_config.json: %s '%s' is not in the vocabulary of tokenizer.json",
                              folder, name, text)
               : MF_OK;
}

/* added_tokens_decoder repeats what tokenizer.json holds; where it does not, one of the files is not of this
 * model. */
static enum mf_status check_added_tokens(const struct mf_tokenizer *tokenizer, const char *folder,
                                         const json_t *config, struct mf_error *error) {
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, value) {
        const char *text = token_text(value);
        int32_t id = text ? mf_tokenizer_token_id(tokenizer, text) : -1;
        char *end;
        long wanted = strtol(key, &end, 10);
        if (id < 0 || *end || wanted != id)
            return mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                                "%s: tokenizer_config.json: added_tokens_decoder gives '%s' the id %s, "
                                "tokenizer.json gives it %d",
                                folder, text ? text : "?", key, id);
    }
    return MF_OK;
}

/* chat_template of tokenizer_config.json: a text, or a list of {name, template} with one named "default". */
static const char *configured_template(const json_t *config) {
    const json_t *value = json_object_get(config, "chat_template");
    size_t i;
    json_t *item;
    if (!json_is_array(value))
        return json_string_value(value);
    json_array_foreach(value, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && !strcmp(name, "default"))
            return json_string_value(json_object_get(item, "template"));
    }
    return NULL;
}

/* A template that cannot be used is no error until it is asked for. */
static enum mf_status read_template(struct mf_tokenizer *tokenizer, const char *folder, const json_t *config,
                                    struct mf_error *error) {
    char *path = mf_path_join(folder, "chat_template.jinja"), *file = NULL;
    enum mf_status status = MF_OK;
    struct mf_error cause;
    if (!path)
        return mf_error_errno(error, ENOMEM, "%s", folder);
    if (mf_path_exists(path))
        status = mf_file_read(path, TEMPLATE_FILE_BYTES, &file, NULL, error);
    const char *source = file ? file : configured_template(config);
    if (status == MF_OK && source && mf_tokenizer_set_chat_template(tokenizer, source, &cause)) {
        tokenizer->chat_failure = strdup(cause.message);
        if (!tokenizer->chat_failure)
            status = mf_error_errno(error, ENOMEM, "%s", folder);
    }
    free(file);
    free(path);
    return status;
}

static enum mf_status read_configuration(const char *folder, struct mf_tokenizer *tokenizer,
                                         struct mf_error *error) {
    json_t *config = NULL, *map = NULL;
    enum mf_status status;
    if ((status = read_optional(folder, "tokenizer_config.json", &config, error)) ||
        (status = read_optional(folder, "special_tokens_map.json", &map, error)) ||
        (status = read_special(tokenizer, config, map, error)) ||
        (status = find_special(tokenizer, folder, "bos_token", &tokenizer->bos, error)) ||
        (status = find_special(tokenizer, folder, "eos_token", &tokenizer->eos, error)) ||
        (status = check_added_tokens(tokenizer, folder, config, error)))
        goto done;
    status = read_template(tokenizer, folder, config, error);
done:
    json_decref(map);
    json_decref(config);
    return status;
}

enum mf_status mf_tokenizer_open(const char *folder, struct mf_tokenizer **out, struct mf_error *error) {
    *out = NULL;
    struct mf_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer || !(tokenizer->special = json_object())) {
        free(tokenizer);
        return mf_error_errno(error, ENOMEM, "%s", folder);
    }
    enum mf_status status = open_library(folder, tokenizer, error);
    if (status == MF_OK)
        status = read_configuration(folder, tokenizer, error);
    if (status)
        mf_tokenizer_close(tokenizer);
    else
        *out = tokenizer;
    return status;
}

void mf_tokenizer_close(struct mf_tokenizer *tokenizer) {
    if (!tokenizer)
        return;
    mf_rust_chat_free(tokenizer->chat);
    mf_rust_tokenizer_free(tokenizer->library);
    json_decref(tokenizer->special);
    free(tokenizer->chat_failure);
    free(tokenizer);
}

/* ---- text and ids ---- */

static enum mf_status no_embedding(const struct mf_tokenizer *tokenizer, uint32_t id,
                                   struct mf_error *error) {
    return mf_error_set(
        error, MF_ERROR_BAD_TOKENIZER,
        "token %u of tokenizer.json has no embedding: the model's config.json says vocab_size "
        "%d; use the tokenizer that belongs to the model",
        id, tokenizer->embeddings);
}

enum mf_status mf_tokenizer_set_embeddings(struct mf_tokenizer *tokenizer, int32_t rows,
                                           struct mf_error *error) {
    tokenizer->embeddings = rows;
    return tokenizer->eos < rows ? MF_OK : no_embedding(tokenizer, (uint32_t)tokenizer->eos, error);
}

static enum mf_status append(struct mf_tokens *tokens, struct mf_rust_ids ids, struct mf_error *error) {
    const size_t wanted = tokens->count + ids.count;
    if (wanted > tokens->capacity) {
        const size_t capacity = wanted < 2 * tokens->capacity ? 2 * tokens->capacity : wanted;
        int32_t *larger = realloc(tokens->id, capacity * sizeof *larger);
        if (!larger)
            return mf_error_errno(error, ENOMEM, "%zu tokens", wanted);
        tokens->id = larger;
        tokens->capacity = capacity;
    }
    for (size_t i = 0; i < ids.count; i++)
        tokens->id[tokens->count + i] = (int32_t)ids.data[i];
    tokens->count = wanted;
    return MF_OK;
}

/* `ends` NULL: not asked for. */
static enum mf_status encode(const struct mf_tokenizer *tokenizer, const char *text, size_t length,
                             enum mf_special_tokens special, struct mf_tokens *tokens, struct mf_tokens *ends,
                             struct mf_error *error) {
    struct mf_rust_ids ids = {0}, bytes = {0};
    struct mf_rust_text message = {0};
    enum mf_status status = MF_OK;
    if (length > MF_TOKENIZER_MAX_TEXT_BYTES)
        return mf_error_set(error, MF_ERROR_DATASET_ROW, "a text of %zu bytes is longer than %d", length,
                            MF_TOKENIZER_MAX_TEXT_BYTES);
    const int result = mf_rust_tokenizer_encode(tokenizer->library, text, length, special == MF_SPECIAL_ADD,
                                                &ids, ends ? &bytes : NULL, &message);
    if (result)
        return library_error(result, message, MF_ERROR_DATASET_ROW,
                             result == 2 ? "tokenizer.json" : "the text cannot be tokenised", error);
    for (size_t i = 0; status == MF_OK && i < ids.count; i++)
        if (ids.data[i] >= (uint32_t)tokenizer->embeddings)
            status = no_embedding(tokenizer, ids.data[i], error);
    if (status == MF_OK && ends)
        status = append(ends, bytes, error);
    if (status == MF_OK)
        status = append(tokens, ids, error);
    mf_rust_ids_free(bytes);
    mf_rust_ids_free(ids);
    return status;
}

enum mf_status mf_tokenizer_encode(const struct mf_tokenizer *tokenizer, const char *text, size_t length,
                                   enum mf_special_tokens special, struct mf_tokens *tokens,
                                   struct mf_error *error) {
    return encode(tokenizer, text, length, special, tokens, NULL, error);
}

enum mf_status mf_tokenizer_encode_words(const struct mf_tokenizer *tokenizer, const char *text,
                                         size_t length, enum mf_special_tokens special,
                                         struct mf_tokens *tokens, struct mf_tokens *ends,
                                         struct mf_error *error) {
    return encode(tokenizer, text, length, special, tokens, ends, error);
}

/* Takes a text of the library as memory that free() frees. */
static enum mf_status take_text(struct mf_rust_text from, char **text, struct mf_error *error) {
    *text = malloc(from.length + 1);
    if (*text)
        memcpy(*text, from.data, from.length + 1);
    mf_rust_text_free(from);
    return *text ? MF_OK : mf_error_errno(error, ENOMEM, "text");
}

enum mf_status mf_tokenizer_decode(const struct mf_tokenizer *tokenizer, const int32_t *id, size_t count,
                                   bool skip_special, char **text, struct mf_error *error) {
    *text = NULL;
    struct mf_rust_text result = {0}, message = {0};
    uint32_t *known = malloc((count + 1) * sizeof *known);
    if (!known)
        return mf_error_errno(error, ENOMEM, "%zu tokens", count);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (id[i] >= 0)
            known[kept++] = (uint32_t)id[i];
    int failed = mf_rust_tokenizer_decode(tokenizer->library, known, kept, skip_special, &result, &message);
    free(known);
    return failed ? library_error(failed, message, MF_ERROR_BAD_TOKENIZER,
                                  failed == 2 ? "tokenizer.json" : "the tokens cannot be decoded", error)
                  : take_text(result, text, error);
}

int32_t mf_tokenizer_bos(const struct mf_tokenizer *tokenizer) {
    return tokenizer->bos;
}

int32_t mf_tokenizer_eos(const struct mf_tokenizer *tokenizer) {
    return tokenizer->eos;
}

int32_t mf_tokenizer_token_id(const struct mf_tokenizer *tokenizer, const char *token) {
    int64_t id = mf_rust_tokenizer_id(tokenizer->library, token, strlen(token));
    return id > INT32_MAX ? -1 : (int32_t)id;
}

int32_t mf_tokenizer_vocabulary(const struct mf_tokenizer *tokenizer) {
    return tokenizer->vocabulary;
}

void mf_tokens_free(struct mf_tokens *tokens) {
    free(tokens->id);
    *tokens = (struct mf_tokens){0};
}

/* ---- chat templates ---- */

bool mf_tokenizer_has_chat_template(const struct mf_tokenizer *tokenizer) {
    return tokenizer->chat || tokenizer->chat_failure;
}

enum mf_status mf_tokenizer_set_chat_template(struct mf_tokenizer *tokenizer, const char *source,
                                              struct mf_error *error) {
    struct mf_rust_chat *chat = NULL;
    struct mf_rust_text message = {0};
    const int failed = mf_rust_chat_compile(source, strlen(source), &chat, &message);
    if (failed)
        return library_error(failed, message, MF_ERROR_BAD_TOKENIZER, "chat template", error);
    mf_rust_chat_free(tokenizer->chat);
    tokenizer->chat = chat;
    free(tokenizer->chat_failure);
    tokenizer->chat_failure = NULL;
    return MF_OK;
}

/* The variables that Transformers gives a template. */
static char *chat_context(const struct mf_tokenizer *tokenizer, const json_t *messages,
                          const struct mf_chat_options *options) {
    json_t *context = json_copy(tokenizer->special);
    if (!context)
        return NULL;
    json_object_set(context, "messages", (json_t *)messages);
    json_object_set_new(context, "tools", json_null());
    json_object_set_new(context, "documents", json_null());
    json_object_set_new(context, "add_generation_prompt", json_boolean(options->add_generation_prompt));
    char *text = json_dumps(context, JSON_COMPACT);
    json_decref(context);
    return text;
}

enum mf_status mf_tokenizer_render_chat(const struct mf_tokenizer *tokenizer, const json_t *messages,
                                        const struct mf_chat_options *options, char **text,
                                        struct mf_error *error) {
    *text = NULL;
    if (!tokenizer->chat)
        return mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "%s",
                            tokenizer->chat_failure ? tokenizer->chat_failure
                                                    : "this model has no chat template; give one in "
                                                      "chat_template or set use_chat_template to false");
    char *context = chat_context(tokenizer, messages, options);
    if (!context)
        return mf_error_errno(error, ENOMEM, "chat template");
    struct mf_rust_text result = {0}, message = {0};
    int64_t seconds = options->created_at_ms / 1000;
    int failed = mf_rust_chat_render(tokenizer->chat, context, strlen(context), seconds, &result, &message);
    free(context);
    return failed ? library_error(failed, message, MF_ERROR_DATASET_ROW, "chat template", error)
                  : take_text(result, text, error);
}
