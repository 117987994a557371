#include "providers/gguf_pieces.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every way to cut a piece is tried, so that the time grows with the square of its length. The longest of
 * Llama 2, Mistral, Phi-3 and Gemma have 93 bytes. */
enum { MAX_PIECE_BYTES = 512 };

static enum mf_status out_of_memory(struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "the tokenizer's merges: out of memory");
    return MF_ERROR_OUT_OF_MEMORY;
}

bool mf_gguf_merge_parts(const json_t *merge, char **left, char **right) {
    const char *text = json_string_value(merge), *blank = text ? strchr(text, ' ') : NULL;
    const char *first = json_string_value(json_array_get(merge, 0));
    const char *second = json_string_value(json_array_get(merge, 1));
    *left = *right = NULL;
    if (blank && blank != text && blank[1] && !strchr(blank + 1, ' ')) {
        *left = strndup(text, (size_t)(blank - text));
        *right = strdup(blank + 1);
    } else if (!text && first && second && json_array_size(merge) == 2) {
        *left = strdup(first);
        *right = strdup(second);
    }
    if (*left && *right)
        return true;
    free(*left);
    free(*right);
    return false;
}

/* The id of a piece that may be joined or be a part; -1: there is none. */
static int64_t id_of(const json_t *vocabulary, const uint8_t *role, size_t count, const char *text) {
    const json_t *id = json_object_get(vocabulary, text);
    const json_int_t at = json_is_integer(id) ? json_integer_value(id) : -1;
    return at >= 0 && at < (json_int_t)count && role[at] ? at : -1;
}

static enum mf_status check_length(const char *text, int64_t id, struct mf_error *error) {
    const size_t bytes = strlen(text);
    return bytes <= MAX_PIECE_BYTES
               ? MF_OK
               : mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                              "token %lld ('%.16s...') has %zu bytes; a piece may have %d", (long long)id,
                              text, bytes, MAX_PIECE_BYTES);
}

/* A way to cut a piece into two. */
struct cut {
    int64_t left, right;
};

/* All ways, from the shortest left part on; a cut is between two characters. `cut` has room for as many as
 * the text has bytes. False: out of memory. */
static bool cuts_of(const json_t *vocabulary, const uint8_t *role, size_t count, const char *text,
                    struct cut *cut, size_t *cuts) {
    char *left = strdup(text);
    *cuts = 0;
    for (size_t i = 1; left && text[i]; i++) {
        if ((text[i] & 0xC0) == 0x80) /* inside a character */
            continue;
        left[i] = 0;
        const int64_t first = id_of(vocabulary, role, count, left);
        const int64_t second = first < 0 ? -1 : id_of(vocabulary, role, count, text + i);
        left[i] = text[i];
        if (second >= 0)
            cut[(*cuts)++] = (struct cut){first, second};
    }
    free(left);
    return left != NULL;
}

/* ---- scores ---- */

struct scoring {
    const json_t *vocabulary;
    const uint8_t *role;
    size_t count, ranks;
    float *score;
    size_t *merges; /* merges that make a piece, by id */
    int64_t last;   /* the piece of the last merge */
};

static enum mf_status take_merge(struct scoring *scoring, const json_t *merge, size_t index,
                                 struct mf_error *error) {
    char *left, *right, *whole = NULL;
    enum mf_status status = MF_OK;
    if (!mf_gguf_merge_parts(merge, &left, &right))
        return mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                            "tokenizer.json: merge %zu is not two tokens without a blank", index);
    if (asprintf(&whole, "%s%s", left, right) < 0) {
        whole = NULL;
        status = out_of_memory(error);
    }
    const int64_t id = whole ? id_of(scoring->vocabulary, scoring->role, scoring->count, whole) : -1;
    if (status == MF_OK && id < 0)
        status = mf_error_set(error, MF_ERROR_BAD_TOKENIZER,
                              "tokenizer.json: merge %zu makes '%.100s', which is no token", index, whole);
    else if (status == MF_OK && id != scoring->last && scoring->merges[id])
        status = mf_error_set(error, MF_ERROR_UNSUPPORTED_FIELD,
                              "the merges of '%.100s' do not follow one another", whole);
    else if (status == MF_OK && !scoring->merges[id]++)
        scoring->score[id] = -(float)scoring->ranks++;
    scoring->last = id;
    free(whole);
    free(left);
    free(right);
    return status;
}

/* No piece can be joined in a way that is no merge. */
static enum mf_status check_piece(const struct scoring *scoring, const char *text, int64_t id,
                                  struct mf_error *error) {
    const enum mf_status status = check_length(text, id, error);
    if (status != MF_OK)
        return status;
    struct cut *cut = calloc(strlen(text) + 1, sizeof *cut);
    size_t cuts = 0;
    if (!cut || !cuts_of(scoring->vocabulary, scoring->role, scoring->count, text, cut, &cuts)) {
        free(cut);
        return out_of_memory(error);
    }
    free(cut);
    return cuts == scoring->merges[id] ? MF_OK
                                       : mf_error_set(error, MF_ERROR_UNSUPPORTED_FIELD,
                                                      "'%.100s' has %zu merges and %zu ways to be made", text,
                                                      scoring->merges[id], cuts);
}

enum mf_status mf_gguf_scores(const json_t *vocabulary, const json_t *merges, const uint8_t *role,
                              size_t count, float *score, struct mf_error *error) {
    struct scoring scoring = {vocabulary, role, count, 0, score, calloc(count + 1, sizeof(size_t)), -1};
    enum mf_status status = scoring.merges ? MF_OK : out_of_memory(error);
    size_t index;
    json_t *merge, *id;
    const char *text;
    json_array_foreach(merges, index, merge) {
        if (status == MF_OK)
            status = take_merge(&scoring, merge, index, error);
    }
    json_object_foreach((json_t *)vocabulary, text, id) {
        const int64_t at = id_of(vocabulary, role, count, text);
        if (status == MF_OK && at >= 0 && role[at] == MF_GGUF_PIECE_MADE)
            status = check_piece(&scoring, text, at, error);
    }
    for (size_t i = 0; i < count && status == MF_OK; i++)
        if (!scoring.merges[i])
            score[i] = -(float)(scoring.ranks + i);
    free(scoring.merges);
    return status;
}

/* ---- merges ---- */

struct made {
    double score;
    int64_t id, left, right;
};

static int by_score(const void *one, const void *other) {
    const struct made *a = one, *b = other;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    if (a->left != b->left)
        return a->left < b->left ? -1 : 1;
    return a->right < b->right ? -1 : a->right > b->right;
}

struct list {
    struct made *made;
    size_t count, room;
};

static bool append(struct list *list, const struct cut *cut, size_t cuts, int64_t id, double score) {
    if (list->count + cuts > list->room) {
        const size_t room = 2 * list->room + cuts + 1024;
        struct made *made = realloc(list->made, room * sizeof *made);
        if (!made)
            return false;
        list->made = made;
        list->room = room;
    }
    for (size_t i = 0; i < cuts; i++)
        list->made[list->count++] = (struct made){score, id, cut[i].left, cut[i].right};
    return true;
}

enum mf_status mf_gguf_merges(const json_t *vocabulary, char *const *text, const uint8_t *role, size_t count,
                              const double *score, json_t **merges, struct mf_error *error) {
    struct list list = {0};
    enum mf_status status = MF_OK;
    *merges = json_array();
    for (size_t i = 0; i < count && status == MF_OK; i++) {
        if (role[i] && (status = check_length(text[i], (int64_t)i, error)))
            break;
        struct cut *cut = role[i] ? calloc(strlen(text[i]) + 1, sizeof *cut) : NULL;
        size_t cuts = 0;
        if (role[i] && (!cut || !cuts_of(vocabulary, role, count, text[i], cut, &cuts) ||
                        !append(&list, cut, cuts, (int64_t)i, score[i])))
            status = out_of_memory(error);
        free(cut);
    }
    if (status == MF_OK && list.count)
        qsort(list.made, list.count, sizeof *list.made, by_score);
    for (size_t i = 0; i < list.count && status == MF_OK; i++)
        if (json_array_append_new(*merges,
                                  json_pack("[s, s]", text[list.made[i].left], text[list.made[i].right])))
            status =
                mf_error_set(error, MF_ERROR_BAD_TOKENIZER, "tokenizer.ggml.tokens: token %lld is not UTF-8",
                             (long long)list.made[i].id);
    free(list.made);
    return status;
}
