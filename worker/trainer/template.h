/* Templates: rows of a dataset to token ids and labels. */
#ifndef MF_WORKER_TRAINER_TEMPLATE_H
#define MF_WORKER_TRAINER_TEMPLATE_H

#include "common/error.h"
#include "providers/tokenizer/tokenizer.h"
#include "worker/trainer/dataset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MF_LABEL_NONE = -100 };

enum mf_overflow { MF_OVERFLOW_TRUNCATE, MF_OVERFLOW_DROP, MF_OVERFLOW_ERROR };

struct mf_template_options {
    bool use_chat_template; /* messages through the tokenizer's template; a text stays a text */
    bool train_on_all;      /* label every token, not only the completion */
    enum mf_overflow on_overflow;
    int32_t max_length;    /* tokens a row, at least 2 */
    int64_t created_at_ms; /* what a template that prints today's date prints */
    int32_t model_eos;     /* config.json's end token, for a tokenizer that names none; -1: none */
    /* Asked before each row and now and then inside one, by one thread at a time; true ends with
     * MF_ERROR_CANCELLED. NULL: never. */
    bool (*cancelled)(void *argument);
    void *cancelled_argument;
};

/* One row as trained: label[i] is token[i] or MF_LABEL_NONE. The first token is never predicted, so
 * `labelled` counts the labels of positions 1 to length - 1. The arrays belong to the mf_samples. */
struct mf_sample {
    const int32_t *token, *label; /* (length) */
    int32_t length, labelled;
    int64_t row; /* index in the dataset */
};

struct mf_samples {
    struct mf_sample *sample;
    size_t count;
    int64_t tokens;         /* over all samples */
    int64_t truncated_rows; /* samples that lost their end */
    int64_t dropped_rows;   /* rows that are no sample: too long, or no label left */
    int32_t longest;        /* tokens of the longest sample, 0 when there is none */
    int32_t *pool;          /* storage of all tokens and labels */
};

/* Turns every row into a sample.
 *
 * Text form of messages: one "ROLE: content" a message (SYSTEM, USER, ASSISTANT), joined by a newline, so a
 * pair is "USER: {input}\nASSISTANT: {output}"; what follows "ASSISTANT:" is the completion. The tokenizer's
 * special tokens are added once, then its EOS (or the model's) unless it is there; that EOS is always
 * labelled, and having neither is MF_ERROR_BAD_TOKENIZER. Chat form: the
 * template's text, tokenised with special tokens off. The completion of an assistant message is what the
 * template writes after the rendered prefix with the generation prompt, up to the rendered prefix that ends
 * with this message; a prefix that is not one is MF_ERROR_BAD_TOKENIZER. A token that spans the start of a
 * completion is labelled, one that spans its end is not.
 *
 * Other errors: MF_ERROR_DATASET_ROW names file, line and field (a role that the text form does not know, a
 * row longer than max_length when on_overflow says error); MF_ERROR_DATASET_NO_LABELS when nothing is left.
 * Rows are taken by OpenMP's threads; what comes out, and which row an error names, does not depend on them.
 * On success the caller owns *samples until mf_samples_destroy(); on failure it needs none. */
enum mf_status mf_template_apply(const struct mf_dataset *dataset, const struct mf_tokenizer *tokenizer,
                                 const struct mf_template_options *options, struct mf_samples *samples,
                                 struct mf_error *error);
void mf_samples_destroy(struct mf_samples *samples); /* a zeroed one too */

/* The ids of a prompt that the model is to answer: `user` as one user message, by the chat template or in the
 * text form, as training lays it out. Appends to *tokens. */
enum mf_status mf_template_prompt(const struct mf_tokenizer *tokenizer, bool use_chat_template,
                                  const char *user, int64_t created_at_ms, struct mf_tokens *tokens,
                                  struct mf_error *error);

/* The end of the stretch of tokens from `first` on that are all labels or all none; *labelled says which. */
int32_t mf_sample_stretch(const struct mf_sample *sample, int32_t first, bool *labelled);

/* The sample as a person reads it: its text, each labelled stretch between `before` and `after`. *text is
 * freed by the caller. */
enum mf_status mf_sample_show(const struct mf_sample *sample, const struct mf_tokenizer *tokenizer,
                              const char *before, const char *after, char **text, struct mf_error *error);

#endif
