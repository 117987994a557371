/* Datasets: rows read from a file and checked, before any tokenizer sees them. */
#ifndef MF_WORKER_TRAINER_DATASET_H
#define MF_WORKER_TRAINER_DATASET_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MF_DATASET_MIN_ROWS = 10, MF_DATASET_MAX_ROW_BYTES = 16 << 20, MF_DATASET_MAX_ROWS = 1 << 26 };
#define MF_DATASET_MAX_BYTES (INT64_C(4) << 30) /* of text, after gunzip */

/* One row of a text-generation dataset, brought to one of two forms; the other pointer is NULL.
 *     {messages: [{role, content}]}                 as it is (a content of text parts is joined)
 *     {conversations: [{from, value}]}  ShareGPT    human → user, gpt → assistant, system → system
 *     {input, output}, {prompt, completion}         user: the input, assistant: the output
 *     {instruction, input, output}      Alpaca      user: the instruction, then (when not empty) the input on
 *                                                   the next line; assistant: the output
 *     {text}                                        text: all of it is the completion */
struct mf_row {
    json_t *messages; /* array of objects with string members role and content */
    char *text;
    int64_t number; /* line of a JSONL file, element of a JSON array; from 1 */
};

struct mf_dataset {
    char *path;
    struct mf_row *row;
    size_t rows;
    char sha256[65]; /* of the file's bytes as they lie on disk */
    bool is_array;   /* a JSON array: numbers are rows, not lines */
};

/* Where rows come from, and how many there must be; all borrowed. */
struct mf_dataset_source {
    const char *path; /* of the file */
    const char *name; /* what it is called in messages and records */
    size_t min_rows;  /* training: MF_DATASET_MIN_ROWS */
    /* Asked now and then; true ends with MF_ERROR_CANCELLED. NULL: never. */
    bool (*cancelled)(void *argument);
    void *cancelled_argument;
};

/* Reads a JSONL file or a JSON array, plain or gzip, UTF-8 with or without a byte-order mark; blank lines are
 * skipped. Errors name the file, the line (or row) and the field:
 *     MF_ERROR_DATASET_NOT_FOUND   the file cannot be opened
 *     MF_ERROR_DATASET_SYNTAX      not JSON, not UTF-8, damaged gzip, over a limit above
 *     MF_ERROR_DATASET_ROW         a field is missing or has the wrong type, or no form fits
 *     MF_ERROR_DATASET_TOO_SMALL   fewer than `min_rows` rows
 * On success the caller owns *dataset until mf_dataset_destroy(); on failure it needs none. */
enum mf_status mf_dataset_load_from(const struct mf_dataset_source *source, struct mf_dataset *dataset,
                                    struct mf_error *error);
/* The same of a file by its path, never cancelled. */
enum mf_status mf_dataset_load(const char *path, size_t min_rows, struct mf_dataset *dataset,
                               struct mf_error *error);
void mf_dataset_destroy(struct mf_dataset *dataset); /* a zeroed one too */

/* "data/train.jsonl, line 7": how messages name a row. Writes at most `bytes`; returns `text`. */
char *mf_dataset_where(const struct mf_dataset *dataset, const struct mf_row *row, char *text, size_t bytes);

#endif
