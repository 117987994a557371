#include "worker/trainer/template.h"

#include "common/text.h"
#include "worker/trainer/chat_spans.h"

#include <stdlib.h>
#include <string.h>

/* A row laid out as text, before tokenising. Reused from row to row. */
struct layout {
    struct mf_text text;
    struct mf_spans spans; /* its completions, in order */
    struct mf_tokens whole, part;
    struct mf_tokens ends;              /* of whole's words: mf_tokenizer_encode_words; empty: not needed */
    size_t anchor_bytes, anchor_tokens; /* so many tokens are exactly so many bytes of the text */
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
            enum mf_status status = mf_spans_add(&layout->spans, first, layout->text.length, error);
            if (status != MF_OK)
                return status;
        }
    }
    return MF_OK;
}

static enum mf_status lay_out_chat(const struct mf_tokenizer *tokenizer, const json_t *messages,
                                   const struct mf_template_options *options, struct layout *layout,
                                   const char *where, struct mf_error *error) {
    char *text = NULL;
    enum mf_status status = mf_tokenizer_render_chat(
        tokenizer, messages, &(struct mf_chat_options){false, options->created_at_ms}, &text, error);
    if (status == MF_ERROR_DATASET_ROW)
        mf_error_prefix(error, "%s", where);
    if (status != MF_OK)
        return status;
    mf_text_puts(&layout->text, text);
    free(text);
    status = mf_text_status(&layout->text, error);
    if (status != MF_OK || options->train_on_all)
        return status;
    const struct mf_chat_text chat = {.tokenizer = tokenizer,
                                      .messages = messages,
                                      .text = mf_text_string(&layout->text),
                                      .length = layout->text.length,
                                      .created_at_ms = options->created_at_ms,
                                      .where = where,
                                      .cancelled = options->cancelled,
                                      .cancelled_argument = options->cancelled_argument};
    return mf_chat_find_spans(&chat, &layout->spans, error);
}

static enum mf_status lay_out(const struct mf_dataset *dataset, const struct mf_row *row,
                              const struct mf_tokenizer *tokenizer, const struct mf_template_options *options,
                              struct layout *layout, struct mf_error *error) {
    char where[512];
    mf_dataset_where(dataset, row, where, sizeof where);
    mf_text_clear(&layout->text);
    layout->spans.count = 0;
    layout->special = MF_SPECIAL_ADD;
    layout->add_eos = true;
    enum mf_status status = MF_OK;
    if (row->text) {
        mf_text_puts(&layout->text, row->text);
        status = mf_spans_add(&layout->spans, 0, layout->text.length, error);
    } else if (options->use_chat_template) {
        layout->special = MF_SPECIAL_NONE;
        layout->add_eos = false;
        status = lay_out_chat(tokenizer, row->messages, options, layout, where, error);
    } else {
        status = lay_out_text(row->messages, layout, where, error);
    }
    return status == MF_OK ? mf_text_status(&layout->text, error) : status;
}

static size_t shared_tokens(const struct mf_tokens *whole, size_t first, const struct mf_tokens *part) {
    size_t shared = 0;
    while (shared < part->count && first + shared < whole->count &&
           part->id[shared] == whole->id[first + shared])
        shared++;
    return shared;
}

/* Moves the anchor on to where a word ends, TAIL_WORDS words before `bytes`: what a pre-tokenizer makes of a
 * text up to there does not depend on what follows so much later. Tokenizers without words have none. */
static void anchor_before(struct layout *layout, size_t bytes) {
    enum { TAIL_WORDS = 3 };
    size_t word[TAIL_WORDS + 1] = {0}, words = 0; /* the last ones: tokens up to the end of each */
    /* nor is it used where special tokens follow a text: they would follow the part, too */
    if (!layout->ends.count || !layout->ends.id[layout->ends.count - 1])
        return;
    for (size_t i = layout->anchor_tokens; i < layout->ends.count; i++) {
        const size_t end = (size_t)layout->ends.id[i];
        if (end > bytes)
            break;
        if (end)
            word[words++ % (TAIL_WORDS + 1)] = i + 1;
    }
    if (words <= TAIL_WORDS)
        return;
    const size_t tokens = word[words % (TAIL_WORDS + 1)], end = (size_t)layout->ends.id[tokens - 1];
    if (end <= layout->anchor_bytes || (layout->text.data[end] & 0xC0) == 0x80) /* inside a character */
        return;
    layout->anchor_tokens = tokens;
    layout->anchor_bytes = end;
}

/* The number of leading tokens that the first `bytes` of the text and the whole text share. Where the text
 * since the anchor (the last boundary, or some words before this one) has the very tokens that the whole has
 * there, that text alone is tokenised: a row's prompt would be tokenised twice, and rows of many turns would
 * take time by the square of their length. */
static enum mf_status token_boundary(const struct mf_tokenizer *tokenizer, struct layout *layout,
                                     size_t bytes, size_t *boundary, struct mf_error *error) {
    enum mf_status status = MF_OK;
    if (bytes == layout->text.length) {
        *boundary = layout->whole.count;
        return MF_OK;
    }
    anchor_before(layout, bytes);
    if (bytes > layout->anchor_bytes && layout->anchor_bytes) {
        layout->part.count = 0;
        status = mf_tokenizer_encode(tokenizer, layout->text.data + layout->anchor_bytes,
                                     bytes - layout->anchor_bytes, MF_SPECIAL_NONE, &layout->part, error);
        if (status == MF_OK &&
            shared_tokens(&layout->whole, layout->anchor_tokens, &layout->part) == layout->part.count) {
            *boundary = layout->anchor_tokens + layout->part.count;
            layout->anchor_bytes = bytes;
            layout->anchor_tokens = *boundary;
            return MF_OK;
        }
    }
    layout->part.count = 0;
    if (status == MF_OK && bytes)
        status =
            mf_tokenizer_encode(tokenizer, layout->text.data, bytes, layout->special, &layout->part, error);
    *boundary = shared_tokens(&layout->whole, 0, &layout->part);
    if (status == MF_OK && *boundary == layout->part.count) {
        layout->anchor_bytes = bytes;
        layout->anchor_tokens = *boundary;
    }
    return status;
}

/* Labels the tokens of all completions, as far as the row is kept. */
static enum mf_status label_spans(const struct mf_tokenizer *tokenizer,
                                  const struct mf_template_options *options, struct layout *layout,
                                  int32_t *label, struct mf_error *error) {
    layout->anchor_bytes = layout->anchor_tokens = 0;
    for (size_t s = 0; s < layout->spans.count; s++) {
        size_t first = 0, end = 0;
        if (options->cancelled && options->cancelled(options->cancelled_argument))
            return mf_error_set(error, MF_ERROR_CANCELLED, "the run was cancelled");
        enum mf_status status = token_boundary(tokenizer, layout, layout->spans.span[s].first, &first, error);
        if (status == MF_OK && first < (size_t)options->max_length)
            status = token_boundary(tokenizer, layout, layout->spans.span[s].end, &end, error);
        if (status != MF_OK)
            return status;
        for (size_t i = first; i < end; i++)
            label[i] = layout->whole.id[i];
        if (first >= (size_t)options->max_length)
            break;
    }
    return MF_OK;
}

static enum mf_status tokenize(const struct mf_tokenizer *tokenizer,
                               const struct mf_template_options *options, struct layout *layout,
                               int32_t **labels, struct mf_error *error) {
    const bool train_on_all = options->train_on_all;
    layout->whole.count = layout->ends.count = 0;
    const bool cut = !train_on_all && layout->spans.count &&
                     (layout->spans.count > 1 || layout->spans.span[0].first > 0); /* not all of the text */
    enum mf_status status =
        cut ? mf_tokenizer_encode_words(tokenizer, mf_text_string(&layout->text), layout->text.length,
                                        layout->special, &layout->whole, &layout->ends, error)
            : mf_tokenizer_encode(tokenizer, mf_text_string(&layout->text), layout->text.length,
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
    if (!train_on_all)
        status = label_spans(tokenizer, options, layout, label, error);
    if (status != MF_OK)
        return status;
    const int32_t named = mf_tokenizer_eos(tokenizer), eos = named >= 0 ? named : options->model_eos;
    /* it ends a completion: after a user's turn it would teach the model to answer nothing */
    const bool completed =
        train_on_all ||
        (layout->spans.count && layout->spans.span[layout->spans.count - 1].end == layout->text.length);
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

/* A row as it was tokenised, and what became of it. */
struct tokenized {
    int32_t *label; /* (length); NULL: not reached */
    int32_t *token; /* (length), after the labels */
    size_t length;  /* of all of the row */
};

/* Adds the row's tokens and labels as a sample, or counts it as dropped. */
static enum mf_status keep(const struct mf_dataset *dataset, size_t row,
                           const struct mf_template_options *options, const struct tokenized *tokenized,
                           struct pool *pool, struct mf_samples *samples, struct mf_error *error) {
    size_t length = tokenized->length;
    const int32_t *label = tokenized->label;
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
    memcpy(pool->data + pool->used, tokenized->token, length * sizeof *label);
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

static void layout_free(struct layout *layout) {
    mf_text_free(&layout->text);
    mf_tokens_free(&layout->whole);
    mf_tokens_free(&layout->part);
    mf_tokens_free(&layout->ends);
    free(layout->spans.span);
}

/* One row to tokens and labels of its own. */
static enum mf_status tokenize_one(const struct mf_dataset *dataset, size_t row,
                                   const struct mf_tokenizer *tokenizer,
                                   const struct mf_template_options *options, struct layout *layout,
                                   struct tokenized *out, struct mf_error *error) {
    int32_t *label = NULL;
    if (options->cancelled && options->cancelled(options->cancelled_argument))
        return mf_error_set(error, MF_ERROR_CANCELLED, "the run was cancelled");
    enum mf_status status = lay_out(dataset, &dataset->row[row], tokenizer, options, layout, error);
    if (status == MF_OK)
        status = tokenize_row(dataset, &dataset->row[row], tokenizer, options, layout, &label, error);
    const size_t length = layout->whole.count;
    int32_t *both = status == MF_OK ? realloc(label, (2 * length + 1) * sizeof *label) : NULL;
    if (status == MF_OK && !both)
        status = out_of_memory(error);
    if (status != MF_OK) {
        free(label);
        return status;
    }
    memcpy(both + length, layout->whole.id, length * sizeof *both);
    *out = (struct tokenized){.label = both, .token = both + length, .length = length};
    return MF_OK;
}

/* Rows that are tokenised side by side, before they are kept in their order. */
enum { CHUNK_ROWS = 1024 };
struct chunk {
    struct tokenized row[CHUNK_ROWS];
    size_t rows;
    size_t failed;         /* the first row that failed; `rows`: none */
    enum mf_status status; /* why */
    struct mf_error error;
};

/* Whether the run was cancelled, asked by one thread at a time; once it was, it is. */
struct asking {
    const struct mf_template_options *options;
    bool cancelled;
};

static bool ask(void *argument) {
    struct asking *asking = argument;
    bool cancelled;
#pragma omp critical(template_cancelled)
    {
        if (!asking->cancelled)
            asking->cancelled = asking->options->cancelled(asking->options->cancelled_argument);
        cancelled = asking->cancelled;
    }
    return cancelled;
}

/* Rows do not depend on each other, so whatever the threads the result is one. */
static void tokenize_chunk(const struct mf_dataset *dataset, size_t first,
                           const struct mf_tokenizer *tokenizer, const struct mf_template_options *options,
                           struct chunk *chunk) {
    struct asking asking = {.options = options};
    struct mf_template_options own = *options;
    if (options->cancelled) {
        own.cancelled = ask;
        own.cancelled_argument = &asking;
    }
    chunk->failed = chunk->rows;
#pragma omp parallel
    {
        struct layout layout = {0};
#pragma omp for schedule(dynamic, 8)
        for (size_t i = 0; i < chunk->rows; i++) {
            struct mf_error error;
            size_t failed;
            chunk->row[i] = (struct tokenized){0};
#pragma omp atomic read
            failed = chunk->failed;
            if (i > failed)
                continue;
            const enum mf_status status =
                tokenize_one(dataset, first + i, tokenizer, &own, &layout, &chunk->row[i], &error);
            if (status == MF_OK)
                continue;
#pragma omp critical(template_failed)
            if (i < chunk->failed) {
#pragma omp atomic write
                chunk->failed = i;
                chunk->error = error;
                chunk->status = status;
            }
        }
        layout_free(&layout);
    }
}

static enum mf_status apply(const struct mf_dataset *dataset, const struct mf_tokenizer *tokenizer,
                            const struct mf_template_options *options, struct chunk *chunk, struct pool *pool,
                            struct mf_samples *samples, struct mf_error *error) {
    enum mf_status status = MF_OK;
    for (size_t first = 0; status == MF_OK && first < dataset->rows; first += CHUNK_ROWS) {
        chunk->rows = dataset->rows - first < CHUNK_ROWS ? dataset->rows - first : CHUNK_ROWS;
        tokenize_chunk(dataset, first, tokenizer, options, chunk);
        for (size_t i = 0; i < chunk->rows; i++) {
            if (status == MF_OK && i < chunk->failed)
                status = keep(dataset, first + i, options, &chunk->row[i], pool, samples, error);
            free(chunk->row[i].label);
        }
        if (status == MF_OK && chunk->failed < chunk->rows) {
            *error = chunk->error;
            status = chunk->status;
        }
    }
    if (status == MF_OK && !samples->count)
        status = mf_error_set(error, MF_ERROR_DATASET_NO_LABELS,
                              "%s: none of its %zu rows has a token to train on (max_seq_length %d)",
                              dataset->path, dataset->rows, options->max_length);
    return status;
}

enum mf_status mf_template_apply(const struct mf_dataset *dataset, const struct mf_tokenizer *tokenizer,
                                 const struct mf_template_options *options, struct mf_samples *samples,
                                 struct mf_error *error) {
    struct chunk *chunk = malloc(sizeof *chunk);
    struct pool pool = {0};
    *samples =
        (struct mf_samples){.sample = calloc(dataset->rows ? dataset->rows : 1, sizeof *samples->sample)};
    enum mf_status status = chunk && samples->sample ? MF_OK : out_of_memory(error);
    if (status == MF_OK && options->use_chat_template && !mf_tokenizer_has_chat_template(tokenizer))
        status =
            mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                         "use_chat_template: the tokenizer has no chat template; set chat_template or leave "
                         "use_chat_template false");
    if (status == MF_OK)
        status = apply(dataset, tokenizer, options, chunk, &pool, samples, error);
    free(chunk);
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
