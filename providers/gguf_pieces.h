/* SentencePiece's BPE: merges of a tokenizer.json <-> scores of a GGUF file. Private to providers/.
 *
 * llama.cpp joins the two neighbours whose joined piece has the highest score, tokenizer.json those of the
 * earliest merge. Both do the same where every way to join two pieces to a third is a merge, and the merges
 * of a piece follow one another: so it is in every file made from a SentencePiece model. */
#ifndef MF_PROVIDERS_GGUF_PIECES_H
#define MF_PROVIDERS_GGUF_PIECES_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mf_gguf_piece {
    MF_GGUF_PIECE_NONE,  /* control, byte, unknown, unused */
    MF_GGUF_PIECE_GIVEN, /* found in the text before anything is joined; merges may make it, too */
    MF_GGUF_PIECE_MADE
};

/* score[id]: -0, -1, ... for the pieces that merges make, in their order, lower ones for all others. role[id]
 * is an enum mf_gguf_piece. MF_ERROR_UNSUPPORTED_FIELD names a piece for which the above does not hold,
 * MF_ERROR_BAD_TOKENIZER a merge that is none. */
enum mf_status mf_gguf_scores(const json_t *vocabulary, const json_t *merges, const uint8_t *role,
                              size_t count, float *score, struct mf_error *error);

/* [[left, right], ...] that make the pieces text[0 .. count) (NUL-terminated); freed by the caller. */
enum mf_status mf_gguf_merges(const json_t *vocabulary, char *const *text, const uint8_t *role, size_t count,
                              const double *score, json_t **merges, struct mf_error *error);

/* The two parts of a merge, which is "left right" or [left, right]: false when it is neither. */
bool mf_gguf_merge_parts(const json_t *merge, char **left, char **right);

#endif
