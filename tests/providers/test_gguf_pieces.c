/* SentencePiece's merges and scores: there and back, and pieces whose cuts would take for ever. */
#include "providers/gguf_pieces.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

enum { COUNT = 5, LONGEST = 512 };

static void merges_come_back_from_scores(void **state) {
    char *const text[COUNT] = {"a", "b", "ab", "aba", "<s>"};
    const uint8_t role[COUNT] = {MF_GGUF_PIECE_MADE, MF_GGUF_PIECE_MADE, MF_GGUF_PIECE_MADE,
                                 MF_GGUF_PIECE_MADE, MF_GGUF_PIECE_NONE};
    float score[COUNT] = {0};
    double wide[COUNT];
    struct mf_error error;
    json_t *vocabulary = json_object(), *back = NULL;
    json_t *merges = json_pack("[[s, s], [s, s]]", "a", "b", "ab", "a");
    (void)state;
    for (int i = 0; i < COUNT; i++)
        json_object_set_new(vocabulary, text[i], json_integer(i));
    assert_int_equal(mf_gguf_scores(vocabulary, merges, role, COUNT, score, &error), MF_OK);
    assert_true(score[2] > score[3] && score[3] > score[0]);
    for (int i = 0; i < COUNT; i++)
        wide[i] = (double)score[i];
    assert_int_equal(mf_gguf_merges(vocabulary, text, role, COUNT, wide, &back, &error), MF_OK);
    assert_true(json_equal(back, merges));
    json_decref(back);
    json_decref(merges);
    json_decref(vocabulary);
}

/* A piece of so many bytes is one that no model has. */
static void long_pieces_are_refused(void **state) {
    (void)state;
    for (size_t bytes = LONGEST; bytes <= LONGEST + 1; bytes++) {
        char long_text[LONGEST + 2];
        memset(long_text, 'x', bytes);
        long_text[bytes] = 0;
        char *const text[] = {"x", long_text};
        const uint8_t role[] = {MF_GGUF_PIECE_MADE, MF_GGUF_PIECE_MADE};
        const double score[] = {-1, -2};
        float scores[2];
        struct mf_error error;
        json_t *merges = NULL, *none = json_array(), *vocabulary = json_object();
        const enum mf_status wanted = bytes > LONGEST ? MF_ERROR_BAD_TOKENIZER : MF_OK;
        for (int i = 0; i < 2; i++)
            json_object_set_new(vocabulary, text[i], json_integer(i));
        assert_int_equal(mf_gguf_merges(vocabulary, text, role, 2, score, &merges, &error), wanted);
        assert_int_equal(mf_gguf_scores(vocabulary, none, role, 2, scores, &error), wanted);
        if (wanted != MF_OK)
            assert_string_equal(error.message,
                                "token 1 ('xxxxxxxxxxxxxxxx...') has 513 bytes; a piece may have 512");
        json_decref(merges);
        json_decref(none);
        json_decref(vocabulary);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(merges_come_back_from_scores),
                                       cmocka_unit_test(long_pieces_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
