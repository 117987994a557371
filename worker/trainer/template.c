#include "worker/trainer/template.h"

#include "common/text.h"

#include <stdlib.h>
#include <string.h>

/* Half-open stretches of a row's text that are completions. */
struct span {
    size_t first, end;
};

/* A row laid out as text, before tokenising. Reused from row to row. */
struct layout {
    struct mf_text text;
    struct span *span;
    size_t spans, span_room;
    struct mf_tokens whole, prefix;
    enum mf_special_tokens special;
    bool add_eos;
};

/* The samples in the making: offsets instead of pointers, because the pool still moves. */
struct pool {
    int32_t *data;
    size_t used, room;
};

static enum mf_status out_of_memory(struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "template: out of memory");
    return MF_ERROR_OUT_OF_MEMORY;
}

static enum mf_status add_span(struct layout *layout, size_t first, size_t end, struct mf_error *error) {
    if (layout->spans == layout->span_room) {
        size_t room = layout->span_room ? layout->span_room * 2 : 8;
        struct span *grown = realloc(layout->span, room * sizeof *grown);
        if (!grown)
            return out_of_memory(error);
        layout->span = grown;
        layout->span_room = room;
    }
    layout->span[layout->spans++] = (struct span){first, end};
    return MF_OK;
}

static enum mf_status lay_out_text(const json_t *messages, struct layout *layout, const char *where,
                                   struct mf_error *error) {
    static const char *const roles[][2] = {
        {"system", "SYSTEM:"}, {"user", "USER:"}, {"assistant", "ASSISTANT:"}};
    size_t index;
    json_t *message;
    json_array_foreach(messages, index, message) {
        const char *role = json_string_value(json_object_get(message, "role")), *label = NULL;
        for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
            if (!strcmp(role, roles[i][0]))
                label = roles[i][1];
        if (!label)
            return mf_error_set(
                error, MF_ERROR_DATASET_ROW,
                "%s: field 'messages[%zu].role' is '%.64s'; without a chat template it must be "
                "system, user or assistant",
                where, index, role);
        mf_text_printf(&layout->text, "%s%s", index ? "\n" : "", label);
        size_t first = layout->text.length;
        mf_text_printf(&layout->text, " %s", json_string_value(json_object_get(message, "content")));
        if (!strcmp(role, "assistant")) {
            enum mf_status status = add_span(layout, first, layout->text.length, error);
            if (status != MF_OK)
                return status;
        }
    }
    return MF_OK;
}

/* The length of the chat of the first `count` messages, which must be a prefix of the whole chat. */
static enum mf_status prefix_length(const struct mf_tokenizer *tokenizer, const json_t *messages,
                                    size_t count, bool prompt, const struct layout *layout,
                                    int64_t created_at_ms, const char *where, size_t *length,
                                    struct mf_error *error) {
    json_t *part = json_array();
    char *text = NULL;
    enum mf_status status = part ? MF_OK : out_of_memory(error);
    for (size_t i = 0; status == MF_OK && i < count; i++)
        if (json_array_append(part, json_array_get(messages, i)))
            status = out_of_memory(error);
    if (status == MF_OK)
        status = mf_tokenizer_render_chat(tokenizer, part, &(struct mf_chat_options){prompt, created_at_ms},
                                          &text, error);
    if (status == MF_ERROR_DATASET_ROW)
        mf_error_prefix(error, "%s", where);
    if (status == MF_OK) {
        *length = strlen(text);
        if (*length > layout->text.length || memcmp(text, layout->text.data, *length) != 0)
            status =
                mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                             "%s: the chat template writes the first %zu messages differently when others "
                             "follow, so the completion cannot be found; use train_on \"all\" or another "
                             "chat_template",
                             where, count);
    }
    free(text);
    json_decref(part);
    return status;
}

static enum mf_status lay_out_chat(const struct mf_tokenizer *tokenizer, const json_t *messages,
                                   bool find_spans, int64_t created_at_ms, struct layout *layout,
                                   const char *where, struct mf_error *error) {
    char *text = NULL;
    enum mf_status status = mf_tokenizer_render_chat(
        tokenizer, messages, &(struct mf_chat_options){false, created_at_ms}, &text, error);
    if (status != MF_OK) {
        if (status == MF_ERROR_DATASET_ROW)
            mf_error_prefix(error, "%s", where);
        return status;
    }
    mf_text_puts(&layout->text, text);
    free(text);
    status = mf_text_status(&layout->text, error);
    size_t index;
    json_t *message;
    if (!find_spans || status != MF_OK)
        return status;
    json_array_foreach(messages, index, message) {
        struct span span = {0, 0};
        if (strcmp(json_string_value(json_object_get(message, "role")), "assistant") != 0)
            continue;
        status =
            prefix_length(tokenizer, messages, index, true, layout, created_at_ms, where, &span.first, error);
        if (status == MF_OK)
            status = prefix_length(tokenizer, messages, index + 1, false, layout, created_at_ms, where,
                                   &span.end, error);
        if (status == MF_OK)
            status = add_span(layout, span.first, span.end, error);
        if (status != MF_OK)
            return status;
    }
    return MF_OK;
}

static enum mf_status lay_out(const struct mf_dataset *dataset, const struct mf_row *row,
                              const struct mf_tokenizer *tokenizer, const struct mf_template_options *options,
                              struct layout *layout, struct mf_error *error) {
    char where[512];
    mf_dataset_where(dataset, row, where, sizeof where);
    mf_text_clear(&layout->text);
    layout->spans = 0;
    layout->special = MF_SPECIAL_ADD;
    layout->add_eos = true;
    enum mf_status status = MF_OK;
    if (row->text) {
        mf_text_puts(&layout->text, row->text);
        status = add_span(layout, 0, layout->text.length, error);
    } else if (options->use_chat_template) {
        layout->special = MF_SPECIAL_NONE;
        layout->add_eos = false;
        status = lay_out_chat(tokenizer, row->messages, !options->train_on_all, options->created_at_ms,
                              layout, where, error);
    } else {
        status = lay_out_text(row->messages, layout, where, error);
    }
    return status == MF_OK ? mf_text_status(&layout->text, error) : status;
}

/* The number of leading tokens that the first `bytes` of the text and the whole text share. */
static enum mf_status token_boundary(const struct mf_tokenizer *tokenizer, struct layout *layout,
                                     size_t bytes, size_t *boundary, struct mf_error *error) {
    if (bytes == layout->text.length) {
        *boundary = layout->whole.count;
        return MF_OK;
    }
    layout->prefix.count = 0;
    enum mf_status status = MF_OK;
    if (bytes)
        status =
            mf_tokenizer_encode(tokenizer, layout->text.data, bytes, layout->special, &layout->prefix, error);
    size_t shared = 0,
           most = layout->prefix.count < layout->whole.count ? layout->prefix.count : layout->whole.count;
    while (shared < most && layout->prefix.id[shared] == layout->whole.id[shared])
        shared++;
    *boundary = shared;
    return status;
}

static enum mf_status tokenize(const struct mf_tokenizer *tokenizer,
                               const struct mf_template_options *options, struct layout *layout,
                               int32_t **labels, struct mf_error *error) {
    const bool train_on_all = options->train_on_all;
    layout->whole.count = 0;
    enum mf_status status = mf_tokenizer_encode(tokenizer, mf_text_string(&layout->text), layout->text.length,
                                                layout->special, &layout->whole, error);
    if (status != MF_OK)
        return status;
    const size_t count = layout->whole.count;
    int32_t *label = malloc((count + 1) * sizeof *label);
    if (!label)
        return out_of_memory(error);
    *labels = label;
    for (size_t i = 0; i < count; i++)
        label[i] = train_on_all ? layout->whole.id[i] : MF_LABEL_NONE;
    for (size_t s = 0; !train_on_all && s < layout->spans; s++) {
        size_t first = 0, end = 0;
        status = token_boundary(tokenizer, layout, layout->span[s].first, &first, error);
        if (status == MF_OK)
            status = token_boundary(tokenizer, layout, layout->span[s].end, &end, error);
        if (status != MF_OK)
            return status;
        for (size_t i = first; i < end; i++)
            label[i] = layout->whole.id[i];
    }
    const int32_t named = mf_tokenizer_eos(tokenizer), eos = named >= 0 ? named : options->model_eos;
    /* it ends a completion: after a user's turn it would teach the model to answer nothing */
    const bool completed =
        train_on_all || (layout->spans && layout->span[layout->spans - 1].end == layout->text.length);
    if (!layout->add_eos || !completed)
        return MF_OK;
    if (eos < 0)
        return mf_error_set(
            error, MF_ERROR_BAD_TOKENIZER,
            "tokenizer_config.json names no eos_token and config.json no eos_token_id: the model "
            "would not learn to end its answers; add one of them to the model folder");
    if (count && layout->whole.id[count - 1] == eos) {
        label[count - 1] = eos;
        return MF_OK;
    }
    if (layout->whole.count == layout->whole.capacity) {
        int32_t *grown = realloc(layout->whole.id, (count + 1) * sizeof *grown);
        if (!grown)
            return out_of_memory(error);
        layout->whole.id = grown;
        layout->whole.capacity = count + 1;
    }
    layout->whole.id[layout->whole.count++] = eos;
    label[count] = eos;
    return MF_OK;
}

static enum mf_status tokenize_row(const struct mf_dataset *dataset, const struct mf_row *row,
                                   const struct mf_tokenizer *tokenizer,
                                   const struct mf_template_options *options, struct layout *layout,
                                   int32_t **labels, struct mf_error *error) {
    enum mf_status status = tokenize(tokenizer, options, layout, labels, error);
    char where[512];
    if (status == MF_ERROR_DATASET_ROW || status == MF_ERROR_BAD_TOKENIZER)
        mf_error_prefix(error, "%s", mf_dataset_where(dataset, row, where, sizeof where));
    return status;
}

/* Adds the row's tokens and labels as a sample, or counts it as dropped. */
static enum mf_status keep(const struct mf_dataset *dataset, size_t row,
                           const struct mf_template_options *options, const struct layout *layout,
                           const int32_t *label, struct pool *pool, struct mf_samples *samples,
                           struct mf_error *error) {
    size_t length = layout->whole.count;
    const bool too_long = length > (size_t)options->max_length;
    if (too_long && options->on_overflow == MF_OVERFLOW_ERROR) {
        char where[512];
        return mf_error_set(
            error, MF_ERROR_DATASET_ROW,
            "%s: the row has %zu tokens, more than max_seq_length %d, and on_overflow is \"error\"",
            mf_dataset_where(dataset, &dataset->row[row], where, sizeof where), length, options->max_length);
    }
    if (too_long)
        length = (size_t)options->max_length;
    int32_t labelled = 0;
    for (size_t i = 1; i < length; i++)
        labelled += label[i] != MF_LABEL_NONE;
    if (!labelled || (too_long && options->on_overflow == MF_OVERFLOW_DROP)) {
        samples->dropped_rows++;
        return MF_OK;
    }
    if (pool->used + 2 * length > pool->room) {
        size_t room = (pool->used + 2 * length) * 2;
        int32_t *grown = realloc(pool->data, room * sizeof *grown);
        if (!grown)
            return out_of_memory(error);
        pool->data = grown;
        pool->room = room;
    }
    memcpy(pool->data + pool->used, layout->whole.id, length * sizeof *label);
    memcpy(pool->data + pool->used + length, label, length * sizeof *label);
    pool->used += 2 * length;
    samples->sample[samples->count++] =
        (struct mf_sample){.length = (int32_t)length, .labelled = labelled, .row = (int64_t)row};
    samples->tokens += (int64_t)length;
    samples->truncated_rows += too_long;
    if ((int32_t)length > samples->longest)
        samples->longest = (int32_t)length;
    return MF_OK;
}

static void point_into_pool(struct mf_samples *samples, int32_t *pool) {
    samples->pool = pool;
    for (size_t i = 0; i < samples->count; i++) {
        samples->sample[i].token = pool;
        samples->sample[i].label = pool + samples->sample[i].length;
        pool += 2 * samples->sample[i].length;
    }
}

static enum mf_status apply(const struct mf_dataset *dataset, const struct mf_tokenizer *tokenizer,
                            const struct mf_template_options *options, struct layout *layout,
                            struct pool *pool, struct mf_samples *samples, struct mf_error *error) {
    for (size_t row = 0; row < dataset->rows; row++) {
        int32_t *label = NULL;
        if (options->cancelled && options->cancelled(options->cancelled_argument))
            return mf_error_set(error, MF_ERROR_CANCELLED, "the run was cancelled");
        enum mf_status status = lay_out(dataset, &dataset->row[row], tokenizer, options, layout, error);
        if (status == MF_OK)
            status = tokenize_row(dataset, &dataset->row[row], tokenizer, options, layout, &label, error);
        if (status == MF_OK)
            status = keep(dataset, row, options, layout, label, pool, samples, error);
        free(label);
        if (status != MF_OK)
            return status;
    }
    if (!samples->count)
        return mf_error_set(error, MF_ERROR_DATASET_NO_LABELS,
                            "%s: none of its %zu rows has a token to train on (max_seq_length %d)",
                            dataset->path, dataset->rows, options->max_length);
    return MF_OK;
}

static void layout_free(struct layout *layout) {
    mf_text_free(&layout->text);
    mf_tokens_free(&layout->whole);
    mf_tokens_free(&layout->prefix);
    free(layout->span);
}

enum mf_status mf_template_apply(const struct mf_dataset *dataset, const struct mf_tokenizer *tokenizer,
                                 const struct mf_template_options *options, struct mf_samples *samples,
                                 struct mf_error *error) {
    struct layout layout = {0};
    struct pool pool = {0};
    *samples =
        (struct mf_samples){.sample = calloc(dataset->rows ? dataset->rows : 1, sizeof *samples->sample)};
    enum mf_status status = samples->sample ? MF_OK : out_of_memory(error);
    if (status == MF_OK && options->use_chat_template && !mf_tokenizer_has_chat_template(tokenizer))
        status =
            mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                         "use_chat_template: the tokenizer has no chat template; set chat_template or leave "
                         "use_chat_template false");
    if (status == MF_OK)
        status = apply(dataset, tokenizer, options, &layout, &pool, samples, error);
    layout_free(&layout);
    point_into_pool(samples, pool.data);
    if (status != MF_OK)
        mf_samples_destroy(samples);
    return status;
}

void mf_samples_destroy(struct mf_samples *samples) {
    free(samples->sample);
    free(samples->pool);
    *samples = (struct mf_samples){0};
}

enum mf_status mf_template_prompt(const struct mf_tokenizer *tokenizer, bool use_chat_template,
                                  const char *user, int64_t created_at_ms, struct mf_tokens *tokens,
                                  struct mf_error *error) {
    char *text = NULL;
    enum mf_status status = MF_OK;
    if (use_chat_template) {
        json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", user);
        status = messages
                     ? mf_tokenizer_render_chat(tokenizer, messages,
                                                &(struct mf_chat_options){true, created_at_ms}, &text, error)
                     : mf_error_set(error, MF_ERROR_INVALID_FIELD, "the prompt is not UTF-8");
        json_decref(messages);
    } else {
        struct mf_text plain = {0};
        mf_text_printf(&plain, "USER: %s\nASSISTANT:", user);
        status = mf_text_status(&plain, error);
        text = mf_text_take(&plain);
    }
    if (status == MF_OK)
        status = mf_tokenizer_encode(tokenizer, text, strlen(text),
                                     use_chat_template ? MF_SPECIAL_NONE : MF_SPECIAL_ADD, tokens, error);
    free(text);
    return status;
}

int32_t mf_sample_stretch(const struct mf_sample *sample, int32_t first, bool *labelled) {
    int32_t end = first;
    *labelled = sample->label[first] != MF_LABEL_NONE;
    while (end < sample->length && (sample->label[end] != MF_LABEL_NONE) == *labelled)
        end++;
    return end;
}

enum mf_status mf_sample_show(const struct mf_sample *sample, const struct mf_tokenizer *tokenizer,
                              const char *before, const char *after, char **text, struct mf_error *error) {
    struct mf_text shown = {0};
    enum mf_status status = MF_OK;
    for (int32_t first = 0; first < sample->length && status == MF_OK;) {
        bool labelled;
        char *part = NULL;
        const int32_t end = mf_sample_stretch(sample, first, &labelled);
        status =
            mf_tokenizer_decode(tokenizer, sample->token + first, (size_t)(end - first), false, &part, error);
        if (status == MF_OK)
            mf_text_printf(&shown, "%s%s%s", labelled ? before : "", part, labelled ? after : "");
        free(part);
        first = end;
    }
    if (status == MF_OK)
        status = mf_text_status(&shown, error);
    *text = mf_text_take(&shown);
    if (status != MF_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}
