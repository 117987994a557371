/* Token ids, decoded texts and rendered chats against Python's (tests/golden/tokenizer_golden.py). */
#include "providers/tokenizer/tokenizer.h"
#include "tests/providers/scratch.h"
#include "tests/providers/tokenizer_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const families[] = {"bytelevel", "smollm", "sentencepiece", "unigram", "wordpiece"};

static void equal_to_python(void **state) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char folder[128], golden_path[160];
        struct mf_error error;
        struct mf_tokenizer *tokenizer;
        (void)state;
        snprintf(folder, sizeof folder, "tests/golden/tokenizer_%s", families[i]);
        snprintf(golden_path, sizeof golden_path, "%s/golden.json", folder);
        json_t *golden = load_golden(golden_path);
        if (mf_tokenizer_open(folder, &tokenizer, &error))
            fail_msg("%s", error.message);
        const json_t *bos = json_object_get(golden, "bos"), *eos = json_object_get(golden, "eos");
        assert_int_equal(mf_tokenizer_bos(tokenizer), json_is_integer(bos) ? json_integer_value(bos) : -1);
        assert_int_equal(mf_tokenizer_eos(tokenizer), json_is_integer(eos) ? json_integer_value(eos) : -1);
        assert_int_equal(mf_tokenizer_vocabulary(tokenizer),
                         json_integer_value(json_object_get(golden, "vocabulary")));
        assert_true(check_texts(tokenizer, families[i], json_object_get(golden, "texts")) > 30);
        size_t chats = check_chats(tokenizer, families[i], json_object_get(golden, "chats"));
        assert_int_equal(chats, mf_tokenizer_has_chat_template(tokenizer) ? 12 : 0);
        mf_tokenizer_close(tokenizer);
        json_decref(golden);
    }
}

static void appends_to_a_list(void **state) {
    struct mf_error error;
    struct mf_tokenizer *tokenizer;
    struct mf_tokens tokens = {0}, both = {0};
    (void)state;
    assert_int_equal(mf_tokenizer_open("tests/golden/tokenizer_bytelevel", &tokenizer, &error), MF_OK);
    assert_int_equal(mf_tokenizer_encode(tokenizer, "a b", 3, MF_SPECIAL_ADD, &tokens, &error), MF_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(mf_tokenizer_encode(tokenizer, "a b", 3, MF_SPECIAL_ADD, &both, &error), MF_OK);
    assert_int_equal(both.count, 3 * tokens.count);
    assert_memory_equal(both.id + 2 * tokens.count, tokens.id, tokens.count * sizeof *tokens.id);
    mf_tokens_free(&both);
    assert_null(both.id);
    mf_tokens_free(&tokens);
    mf_tokenizer_close(tokenizer);
}

static void refuses_bad_text(void **state) {
    struct mf_error error;
    struct mf_tokenizer *tokenizer;
    struct mf_tokens tokens = {0};
    (void)state;
    assert_int_equal(mf_tokenizer_open("tests/golden/tokenizer_smollm", &tokenizer, &error), MF_OK);
    assert_int_equal(mf_tokenizer_encode(tokenizer, "ab\xff", 3, MF_SPECIAL_NONE, &tokens, &error),
                     MF_ERROR_DATASET_ROW);
    assert_string_equal(error.message, "the text cannot be tokenised: not UTF-8 at byte 2");
    assert_int_equal(tokens.count, 0);
    const int32_t outside[] = {-1, 1 << 30, 0};
    char *text;
    assert_int_equal(mf_tokenizer_decode(tokenizer, outside, 3, false, &text, &error), MF_OK);
    assert_string_equal(text, "<|endoftext|>");
    free(text);
    mf_tokenizer_close(tokenizer);
}

/* ---- bad folders ---- */

/* A whole vocabulary: a, b, ab, </s>. */
static const char tiny[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[{\"id\":3,\"content\":\"</"
    "s>\","
    "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}],"
    "\"normalizer\":null,\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":null,\"model\":{\"type\":"
    "\"BPE\","
    "\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
    "\"fuse_unk\":false,\"byte_fallback\":false,\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"</"
    "s>\":3},\"merges\":[[\"a\",\"b\"]]}}";

static void expect_refusal(enum mf_status status, const char *part) {
    struct mf_error error;
    struct mf_tokenizer *tokenizer;
    assert_int_equal(mf_tokenizer_open(scratch_folder(), &tokenizer, &error), status);
    assert_null(tokenizer);
    if (!strstr(error.message, part))
        fail_msg("'%s' is not in: %s", part, error.message);
}

static void names_what_is_wrong_in_a_folder(void **state) {
    (void)state;
    expect_refusal(MF_ERROR_MODEL_INCOMPLETE, "tokenizer.json is missing");
    scratch_puts("tokenizer.json", "{\"version\":");
    expect_refusal(MF_ERROR_BAD_TOKENIZER, "tokenizer.json: ");
    scratch_puts("tokenizer.json", "{\"model\":{\"type\":\"Nonsense\"}}");
    expect_refusal(MF_ERROR_BAD_TOKENIZER, "tokenizer.json: ");
    scratch_puts("tokenizer.json", tiny);
    scratch_puts("tokenizer_config.json", "[1]");
    expect_refusal(MF_ERROR_BAD_TOKENIZER, "tokenizer_config.json: not a JSON object");
    scratch_puts("tokenizer_config.json", "{\"eos_token\":\"<eos>\"}");
    expect_refusal(MF_ERROR_BAD_TOKENIZER, "eos_token '<eos>' is not in the vocabulary");
    scratch_puts("tokenizer_config.json", "{\"added_tokens_decoder\":{\"7\":{\"content\":\"</s>\"}}}");
    expect_refusal(MF_ERROR_BAD_TOKENIZER, "gives '</s>' the id 7, tokenizer.json gives it 3");
}

static void special_tokens_map_and_template_file(void **state) {
    struct mf_error error;
    struct mf_tokenizer *tokenizer;
    struct mf_tokens tokens = {0};
    const struct mf_chat_options options = {.add_generation_prompt = true};
    char *text;
    (void)state;
    scratch_puts("tokenizer.json", tiny);
    scratch_puts("tokenizer_config.json",
                 "{\"chat_template\":\"from the "
                 "configuration\",\"model_max_length\":1000000000000000019884624838656}");
    scratch_puts("special_tokens_map.json", "{\"eos_token\":{\"content\":\"</s>\"}}");
    scratch_puts("chat_template.jinja", "{{ eos_token }}{{ messages | length }}{{ add_generation_prompt }}");
    assert_int_equal(mf_tokenizer_open(scratch_folder(), &tokenizer, &error), MF_OK);
    assert_int_equal(mf_tokenizer_eos(tokenizer), 3);
    assert_int_equal(mf_tokenizer_bos(tokenizer), -1);
    assert_int_equal(mf_tokenizer_encode(tokenizer, "aab", 3, MF_SPECIAL_ADD, &tokens, &error), MF_OK);
    const int32_t wanted[] = {0, 2};
    assert_int_equal(tokens.count, 2);
    assert_memory_equal(tokens.id, wanted, sizeof wanted);
    json_t *messages = json_array();
    assert_int_equal(mf_tokenizer_render_chat(tokenizer, messages, &options, &text, &error), MF_OK);
    assert_string_equal(text, "</s>0True");
    free(text);
    json_decref(messages);
    mf_tokens_free(&tokens);
    mf_tokenizer_close(tokenizer);
}

static void bad_templates_are_told_when_used(void **state) {
    struct mf_error error;
    struct mf_tokenizer *tokenizer;
    const struct mf_chat_options options = {0};
    json_t *messages = json_array();
    char *text;
    (void)state;
    scratch_puts("tokenizer.json", tiny);
    scratch_puts("tokenizer_config.json", "{\"chat_template\":\"ok\\n{% if %}\"}");
    assert_int_equal(mf_tokenizer_open(scratch_folder(), &tokenizer, &error), MF_OK);
    assert_true(mf_tokenizer_has_chat_template(tokenizer));
    assert_int_equal(mf_tokenizer_render_chat(tokenizer, messages, &options, &text, &error),
                     MF_ERROR_BAD_TOKENIZER);
    assert_non_null(strstr(error.message, "chat_template:2"));
    assert_int_equal(mf_tokenizer_set_chat_template(tokenizer, "{{ 1 ", &error), MF_ERROR_BAD_TOKENIZER);
    /* a template that never ends is stopped */
    const char *endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}"
                          "{% if false %}{% endif %}{% endfor %}{% endfor %}{% endfor %}";
    assert_int_equal(mf_tokenizer_set_chat_template(tokenizer, endless, &error), MF_OK);
    assert_int_equal(mf_tokenizer_render_chat(tokenizer, messages, &options, &text, &error),
                     MF_ERROR_DATASET_ROW);
    assert_non_null(strstr(error.message, "fuel"));
    assert_null(text);
    mf_tokenizer_close(tokenizer);

    scratch_puts("tokenizer_config.json", "{}");
    assert_int_equal(mf_tokenizer_open(scratch_folder(), &tokenizer, &error), MF_OK);
    assert_false(mf_tokenizer_has_chat_template(tokenizer));
    assert_int_equal(mf_tokenizer_render_chat(tokenizer, messages, &options, &text, &error),
                     MF_ERROR_BAD_TOKENIZER);
    assert_non_null(strstr(error.message, "no chat template"));
    mf_tokenizer_close(tokenizer);
    json_decref(messages);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_to_python),
        cmocka_unit_test(appends_to_a_list),
        cmocka_unit_test(refuses_bad_text),
        cmocka_unit_test_setup_teardown(names_what_is_wrong_in_a_folder, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(special_tokens_map_and_template_file, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(bad_templates_are_told_when_used, scratch_make, scratch_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
