/* Rows to tokens and labels: against Transformers (tests/golden/make_templates.py), and what overflows or
 * breaks. */
#include "kernels/cpu/threads.h"
#include "worker/trainer/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct mf_tokenizer *tokenizer;
static char path[] = "/tmp/modelforge-template-XXXXXX";

static int open_tokenizer(void **state) {
    (void)state;
    struct mf_error error;
    int descriptor = mkstemp(path);
    close(descriptor);
    return descriptor < 0 || mf_tokenizer_open("tests/golden/models/tied-gqa", &tokenizer, &error) != MF_OK;
}

static int close_tokenizer(void **state) {
    (void)state;
    mf_tokenizer_close(tokenizer);
    return unlink(path);
}

/* Loads rows given as JSON lines. */
static void load(const char *rows, struct mf_dataset *dataset) {
    struct mf_error error;
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(rows, file);
    fclose(file);
    if (mf_dataset_load(path, 1, dataset, &error) != MF_OK)
        fail_msg("%s", error.message);
}

static struct mf_template_options plain(void) {
    return (struct mf_template_options){.max_length = 1024, .model_eos = -1};
}

static void assert_ids(const char *what, size_t row, const int32_t *made, int32_t length,
                       const json_t *expected) {
    if ((size_t)length != json_array_size(expected))
        fail_msg("row %zu: %d %s, not %zu", row, length, what, json_array_size(expected));
    for (int32_t i = 0; i < length; i++)
        if (made[i] != json_integer_value(json_array_get(expected, (size_t)i)))
            fail_msg("row %zu: %s[%d] is %d, not %d", row, what, i, made[i],
                     (int)json_integer_value(json_array_get(expected, (size_t)i)));
}

static void test_golden(void **state) {
    (void)state;
    json_t *golden = json_load_file("tests/golden/templates.json", 0, NULL), *case_;
    size_t index;
    assert_non_null(golden);
    json_array_foreach(golden, index, case_) {
        char *row = json_dumps(json_object_get(case_, "row"), 0);
        struct mf_dataset dataset;
        struct mf_samples samples;
        struct mf_error error;
        struct mf_template_options options = plain();
        options.use_chat_template = json_is_true(json_object_get(case_, "chat"));
        load(row, &dataset);
        if (mf_template_apply(&dataset, tokenizer, &options, &samples, &error) != MF_OK)
            fail_msg("row %zu: %s", index, error.message);
        assert_int_equal(samples.count, 1);
        assert_ids("tokens", index, samples.sample[0].token, samples.sample[0].length,
                   json_object_get(case_, "tokens"));
        assert_ids("labels", index, samples.sample[0].label, samples.sample[0].length,
                   json_object_get(case_, "labels"));
        mf_samples_destroy(&samples);
        mf_dataset_destroy(&dataset);
        free(row);
    }
    assert_int_equal(index, 14);
    json_decref(golden);
}

static void test_train_on_all(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_samples samples;
    struct mf_error error;
    struct mf_template_options options = plain();
    options.train_on_all = true;
    load("{\"input\":\"abc\",\"output\":\"d\"}", &dataset);
    for (int chat = 0; chat < 2; chat++) {
        options.use_chat_template = chat;
        assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error), MF_OK);
        for (int32_t i = 0; i < samples.sample[0].length; i++)
            assert_int_equal(samples.sample[0].label[i], samples.sample[0].token[i]);
        assert_int_equal(samples.sample[0].labelled, samples.sample[0].length - 1);
        mf_samples_destroy(&samples);
    }
    mf_dataset_destroy(&dataset);
}

static void test_overflow(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_samples samples;
    struct mf_error error;
    struct mf_template_options options = plain();
    load("{\"text\":\"abcdefghjkmopqruvxyz\"}\n{\"text\":\"xyz\"}\n{\"input\":\"abcdefghjkmopqruvxyz\","
         "\"output\":\"a\"}\n",
         &dataset);
    options.max_length = 6; /* "abcdefgh..." is cut, "xyz" fits, the last row's label is beyond the cut */
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error), MF_OK);
    assert_int_equal(samples.count, 2);
    assert_int_equal(samples.truncated_rows, 1);
    assert_int_equal(samples.dropped_rows, 1);
    assert_int_equal(samples.sample[0].length, 6);
    assert_int_equal(samples.sample[0].token[5], mf_tokenizer_token_id(tokenizer, "f"));
    assert_int_equal(samples.sample[1].row, 1);
    assert_int_equal(samples.sample[1].length, 4);
    assert_int_equal(samples.sample[1].token[3], mf_tokenizer_eos(tokenizer));
    assert_int_equal(samples.longest, 6);
    assert_int_equal(samples.tokens, 10);
    mf_samples_destroy(&samples);

    options.on_overflow = MF_OVERFLOW_DROP;
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error), MF_OK);
    assert_int_equal(samples.count, 1);
    assert_int_equal(samples.dropped_rows, 2);
    assert_int_equal(samples.truncated_rows, 0);
    mf_samples_destroy(&samples);

    options.on_overflow = MF_OVERFLOW_ERROR;
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error),
                     MF_ERROR_DATASET_ROW);
    assert_non_null(strstr(error.message, ", line 1: the row has 21 tokens, more than max_seq_length 6"));
    mf_dataset_destroy(&dataset);

    load("{\"messages\":[{\"role\":\"user\",\"content\":\"no answer\"}]}", &dataset);
    options = plain();
    options.use_chat_template = true; /* the text form would label the EOS that it adds */
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error),
                     MF_ERROR_DATASET_NO_LABELS);
    mf_dataset_destroy(&dataset);
}

static void test_refusals(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_samples samples;
    struct mf_error error;
    struct mf_tokenizer *other = NULL;
    struct mf_template_options options = plain();
    load("{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"tool\",\"content\":\"t\"}]}",
         &dataset);
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error),
                     MF_ERROR_DATASET_ROW);
    assert_non_null(strstr(error.message, ", line 1: field 'messages[1].role' is 'tool'"));
    mf_dataset_destroy(&dataset);

    load("{\"input\":\"q\",\"output\":\"a\"}", &dataset);
    assert_int_equal(mf_tokenizer_open("tests/golden/models/tied-gqa", &other, &error), MF_OK);
    /* Writes how many messages there are first: no prefix of a chat is the chat of its prefix. */
    assert_int_equal(mf_tokenizer_set_chat_template(other,
                                                    "{{ messages|length }}{% for m in messages %}"
                                                    "{{ m.content }}{% endfor %}",
                                                    &error),
                     MF_OK);
    options.use_chat_template = true;
    assert_int_equal(mf_template_apply(&dataset, other, &options, &samples, &error), MF_ERROR_BAD_TOKENIZER);
    assert_non_null(
        strstr(error.message, ", line 1: the chat template writes the first 1 messages differently"));
    assert_int_equal(mf_tokenizer_set_chat_template(other, "{{ raise_exception('no such chat') }}", &error),
                     MF_OK);
    assert_int_equal(mf_template_apply(&dataset, other, &options, &samples, &error), MF_ERROR_DATASET_ROW);
    assert_non_null(strstr(error.message, ", line 1: "));
    assert_non_null(strstr(error.message, "no such chat"));
    mf_tokenizer_close(other);
    mf_dataset_destroy(&dataset);
}

static void test_prompt_and_show(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_samples samples;
    struct mf_error error;
    struct mf_tokens tokens = {0};
    struct mf_template_options options = plain();
    char *text = NULL;
    load("{\"input\":\"abc\",\"output\":\"d\"}", &dataset);
    for (int chat = 0; chat < 2; chat++) { /* a prompt is what training put before the completion */
        options.use_chat_template = chat;
        assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error), MF_OK);
        tokens.count = 0;
        assert_int_equal(mf_template_prompt(tokenizer, chat, "abc", 0, &tokens, &error), MF_OK);
        assert_true((int32_t)tokens.count < samples.sample[0].length);
        assert_memory_equal(tokens.id, samples.sample[0].token, tokens.count * sizeof(int32_t));
        assert_int_equal(samples.sample[0].label[tokens.count - 1], MF_LABEL_NONE);
        assert_int_not_equal(samples.sample[0].label[tokens.count], MF_LABEL_NONE);
        assert_int_equal(mf_sample_show(&samples.sample[0], tokenizer, "«", "»", &text, &error), MF_OK);
        assert_string_equal(text,
                            chat ? "<|im_start|>user\nabc<|im_end|>\n<|im_start|>assistant\n«d<|im_end|>\n»"
                                 : "USER: abc\nASSISTANT:« d<|im_end|>»");
        free(text);
        mf_samples_destroy(&samples);
    }
    mf_tokens_free(&tokens);
    mf_dataset_destroy(&dataset);
}

/* A chat that ends with a question has no completion there, so no end of one either. */
static void test_last_turn_of_the_user(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_samples samples;
    struct mf_error error;
    struct mf_template_options options = plain();
    char *text = NULL;
    load("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n"
         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},"
         "{\"role\":\"user\",\"content\":\"c\"}]}",
         &dataset);
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error), MF_OK);
    assert_int_equal(samples.count, 1);
    assert_int_equal(samples.dropped_rows, 1);
    assert_int_equal(mf_sample_show(&samples.sample[0], tokenizer, "«", "»", &text, &error), MF_OK);
    assert_string_equal(text, "USER: a\nASSISTANT:« b»\nUSER: c");
    free(text);
    mf_samples_destroy(&samples);
    mf_dataset_destroy(&dataset);
}

/* A token that the model has no embedding for would be read from behind the table. */
static void test_another_vocabulary(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_samples samples;
    struct mf_error error;
    struct mf_template_options options = plain();
    const int32_t all = mf_tokenizer_vocabulary(tokenizer);
    char expected[512];
    load("{\"input\":\"abc\",\"output\":\"d\"}", &dataset);
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error), MF_OK);
    int32_t largest = 0;
    for (int32_t i = 0; i < samples.sample[0].length; i++)
        largest = samples.sample[0].token[i] > largest ? samples.sample[0].token[i] : largest;
    mf_samples_destroy(&samples);
    assert_int_equal(mf_tokenizer_set_embeddings(tokenizer, largest + 1, &error), MF_OK);
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error), MF_OK);
    mf_samples_destroy(&samples);
    assert_int_equal(mf_tokenizer_set_embeddings(tokenizer, largest, &error), MF_OK);
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error),
                     MF_ERROR_BAD_TOKENIZER);
    snprintf(expected, sizeof expected,
             "%s, line 1: token %d of tokenizer.json has no embedding: the model's config.json says "
             "vocab_size %d; use the tokenizer that belongs to the model",
             path, largest, largest);
    assert_string_equal(error.message, expected);
    assert_int_equal(mf_tokenizer_set_embeddings(tokenizer, 1, &error), MF_ERROR_BAD_TOKENIZER); /* eos */
    assert_int_equal(mf_tokenizer_set_embeddings(tokenizer, all, &error), MF_OK);
    mf_dataset_destroy(&dataset);
}

/* A folder without tokenizer_config.json: the end comes from the model, or training is refused. */
static void test_no_eos_in_the_tokenizer(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_samples samples;
    struct mf_error error;
    struct mf_tokenizer *other = NULL;
    struct mf_template_options options = plain();
    load("{\"input\":\"q\",\"output\":\"a\"}", &dataset);
    assert_int_equal(mf_tokenizer_open("tests/golden/tokenizer_wordpiece", &other, &error), MF_OK);
    assert_int_equal(mf_tokenizer_eos(other), -1);
    assert_int_equal(mf_template_apply(&dataset, other, &options, &samples, &error), MF_ERROR_BAD_TOKENIZER);
    assert_non_null(strstr(error.message, "names no eos_token and config.json no eos_token_id"));
    options.model_eos = 7;
    assert_int_equal(mf_template_apply(&dataset, other, &options, &samples, &error), MF_OK);
    const struct mf_sample *sample = &samples.sample[0];
    assert_int_equal(sample->token[sample->length - 1], 7);
    assert_int_equal(sample->label[sample->length - 1], 7);
    mf_samples_destroy(&samples);
    mf_tokenizer_close(other);
    mf_dataset_destroy(&dataset);
}

/* ---- labels of all kinds of texts ---- */

static uint32_t random_state = 11;

static uint32_t random_below(uint32_t bound) {
    random_state = random_state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)random_state * bound) >> 32);
}

static void random_text(char *text, size_t bytes) {
    static const char *const pieces[] = {"hello",
                                         " world",
                                         "a",
                                         "I'm",
                                         " ",
                                         "  ",
                                         "\n",
                                         "\n\n",
                                         "\t",
                                         "12",
                                         "3.14",
                                         "!",
                                         "...",
                                         ":",
                                         "::",
                                         "USER:",
                                         "\xC3\xBC",
                                         "\xE6\x97\xA5",
                                         "\xF0\x9F\x98\x80",
                                         "</s>",
                                         "'s",
                                         "\xC2\xA0",
                                         "x=1;",
                                         "--",
                                         " the",
                                         "_",
                                         "\xCC\x81",
                                         " (",
                                         "$1"};
    const uint32_t count = 1 + random_below(12);
    size_t used = 0;
    for (uint32_t i = 0; i < count && used + 16 < bytes; i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s",
                                 pieces[random_below(sizeof pieces / sizeof *pieces)]);
}

/* How many leading tokens the text has in common with its first `bytes`, both tokenised whole. */
static size_t common_tokens(const struct mf_tokenizer *with, const char *text, size_t bytes, size_t *count) {
    struct mf_tokens whole = {0}, part = {0};
    struct mf_error error;
    size_t common = 0;
    assert_int_equal(mf_tokenizer_encode(with, text, strlen(text), MF_SPECIAL_ADD, &whole, &error), MF_OK);
    assert_int_equal(mf_tokenizer_encode(with, text, bytes, MF_SPECIAL_ADD, &part, &error), MF_OK);
    while (common < whole.count && common < part.count && whole.id[common] == part.id[common])
        common++;
    *count = whole.count;
    mf_tokens_free(&whole);
    mf_tokens_free(&part);
    return common;
}

/* A prompt is not tokenised again where it need not be; the labels are those of doing so, for every kind of
 * tokenizer. */
static void test_labels_begin_where_the_prompt_ends(void **state) {
    enum { ROWS = 400 };
    static const char *const folders[] = {"models/tied-gqa",   "tokenizer_bytelevel",
                                          "tokenizer_smollm",  "tokenizer_sentencepiece",
                                          "tokenizer_unigram", "tokenizer_wordpiece"};
    (void)state;
    for (size_t t = 0; t < sizeof folders / sizeof *folders; t++) {
        struct mf_tokenizer *with = NULL;
        struct mf_dataset dataset;
        struct mf_samples samples;
        struct mf_error error;
        struct mf_template_options options = plain();
        char folder[96], prompt[256], answer[256];
        json_t *rows = json_array();
        snprintf(folder, sizeof folder, "tests/golden/%s", folders[t]);
        assert_int_equal(mf_tokenizer_open(folder, &with, &error), MF_OK);
        for (int i = 0; i < ROWS; i++) {
            random_text(prompt, sizeof prompt);
            random_text(answer, sizeof answer);
            json_array_append_new(rows, json_pack("{s:s, s:s}", "prompt", prompt, "completion", answer));
        }
        char *text = json_dumps(rows, 0);
        load(text, &dataset);
        options.max_length = 4096;
        options.model_eos = 0;
        assert_int_equal(mf_template_apply(&dataset, with, &options, &samples, &error), MF_OK);
        assert_true(samples.count > ROWS / 2);
        for (size_t i = 0; i < samples.count; i++) {
            const struct mf_sample *sample = &samples.sample[i];
            const json_t *row = json_array_get(rows, (size_t)sample->row);
            char whole[600];
            size_t count;
            snprintf(whole, sizeof whole, "USER: %s\nASSISTANT: %s",
                     json_string_value(json_object_get(row, "prompt")),
                     json_string_value(json_object_get(row, "completion")));
            const size_t end =
                strlen(whole) - strlen(json_string_value(json_object_get(row, "completion"))) - 1;
            const size_t first = common_tokens(with, whole, end, &count);
            for (size_t j = 0; j < count; j++)
                if ((sample->label[j] != MF_LABEL_NONE) !=
                    (j >= first || (j == count - 1 && sample->token[j] == 0)))
                    fail_msg("%s: '%s': token %zu of %zu, labels from %zu on", folder, whole, j, count,
                             first);
        }
        mf_samples_destroy(&samples);
        mf_dataset_destroy(&dataset);
        mf_tokenizer_close(with);
        json_decref(rows);
        free(text);
    }
}

/* A tokenizer of tests/golden/chats with a family's template, in a folder of its own. */
static struct mf_tokenizer *open_family(const char *name, const json_t *golden) {
    char folder[] = "/tmp/modelforge-chats-XXXXXX", command[512];
    struct mf_tokenizer *made = NULL;
    struct mf_error error;
    assert_non_null(mkdtemp(folder));
    snprintf(command, sizeof command,
             "cp tests/golden/chats/tokenizer.json '%s/' && cp 'tests/golden/chats/%s.jinja' "
             "'%s/chat_template.jinja'",
             folder, name, folder);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "%s/tokenizer_config.json", folder);
    json_t *config = json_pack("{s:O, s:O}", "bos_token", json_object_get(golden, "bos"), "eos_token",
                               json_object_get(golden, "eos"));
    assert_int_equal(json_dump_file(config, command, 0), 0);
    json_decref(config);
    if (mf_tokenizer_open(folder, &made, &error) != MF_OK)
        fail_msg("%s: %s", name, error.message);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
    return made;
}

/* The template of a released model: renderings and refusals as Transformers', labels of the answers alone. */
static void check_family(const char *name, const json_t *golden) {
    struct mf_tokenizer *family = open_family(name, golden);
    const struct mf_template_options options = {.use_chat_template = true,
                                                .max_length = 4096,
                                                .model_eos = -1,
                                                .created_at_ms =
                                                    1741564798000}; /* CREATED_AT of the script */
    size_t index;
    json_t *item;
    json_array_foreach(json_object_get(golden, "chats"), index, item) {
        const struct mf_chat_options chat = {.add_generation_prompt =
                                                 json_is_true(json_object_get(item, "add_generation_prompt")),
                                             .created_at_ms = options.created_at_ms};
        const char *wanted = json_string_value(json_object_get(item, "text"));
        struct mf_error error;
        char *text = NULL;
        enum mf_status status =
            mf_tokenizer_render_chat(family, json_object_get(item, "messages"), &chat, &text, &error);
        if (!wanted && (status != MF_ERROR_DATASET_ROW ||
                        !strstr(error.message, json_string_value(json_object_get(item, "error")))))
            fail_msg("%s: chat %zu: expected a refusal, got %s", name, index, text ? text : error.message);
        if (wanted && (status != MF_OK || strcmp(text, wanted) != 0))
            fail_msg("%s: chat %zu:\n%s\nTransformers:\n%s", name, index, text ? text : error.message,
                     wanted);
        free(text);
    }
    json_array_foreach(json_object_get(golden, "rows"), index, item) {
        struct mf_dataset dataset;
        struct mf_samples samples;
        struct mf_error error;
        json_t *row = json_pack("{s:O}", "messages", json_object_get(item, "messages"));
        char *line = json_dumps(row, JSON_COMPACT);
        load(line, &dataset);
        enum mf_status status = mf_template_apply(&dataset, family, &options, &samples, &error);
        if (json_object_get(item, "broken")) {
            if (status != MF_ERROR_BAD_TOKENIZER || !strstr(error.message, "differently when others follow"))
                fail_msg("%s: row %zu is not refused", name, index);
        } else {
            if (status != MF_OK || samples.count != 1)
                fail_msg("%s: row %zu: %s", name, index, status == MF_OK ? "left out" : error.message);
            assert_ids(name, index, samples.sample[0].token, samples.sample[0].length,
                       json_object_get(item, "tokens"));
            assert_ids("labels", index, samples.sample[0].label, samples.sample[0].length,
                       json_object_get(item, "labels"));
            mf_samples_destroy(&samples);
        }
        mf_dataset_destroy(&dataset);
        free(line);
        json_decref(row);
    }
    mf_tokenizer_close(family);
}

static void test_families_own_templates(void **state) {
    (void)state;
    json_t *golden = json_load_file("tests/golden/chats/golden.json", 0, NULL), *family;
    const char *name;
    assert_int_equal(json_object_size(golden), 7);
    json_object_foreach(golden, name, family) check_family(name, family);
    json_decref(golden);
}

/* Threads change nothing: neither the samples nor which of several faults is told. */
static void test_threads_change_nothing(void **state) {
    enum { ROWS = 2500 };
    (void)state;
    struct mf_dataset dataset;
    struct mf_samples samples[2];
    struct mf_error error;
    struct mf_template_options options = plain();
    char *text = malloc((size_t)ROWS * 128), *end = text;
    assert_non_null(text);
    options.max_length = 24;
    for (int i = 0; i < ROWS; i++)
        end += sprintf(end, "{\"input\":\"%d?\",\"output\":\"%.*s\"}\n", i, i * 7 % 61,
                       "yes, and then some more of it, and then all the rest of it too");
    load(text, &dataset);
    const int before = mf_threads();
    for (int run = 0; run < 2; run++) {
        mf_threads_set(run ? 3 : 1);
        assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples[run], &error), MF_OK);
    }
    assert_int_equal(samples[0].count, samples[1].count);
    assert_int_equal(samples[0].truncated_rows, samples[1].truncated_rows);
    assert_true(samples[0].truncated_rows > 100);
    for (size_t i = 0; i < samples[0].count; i++) {
        const struct mf_sample *one = &samples[0].sample[i], *other = &samples[1].sample[i];
        assert_int_equal(one->row, other->row);
        assert_int_equal(one->length, other->length);
        assert_memory_equal(one->token, other->token, (size_t)one->length * sizeof *one->token);
        assert_memory_equal(one->label, other->label, (size_t)one->length * sizeof *one->label);
    }
    mf_samples_destroy(&samples[0]);
    mf_samples_destroy(&samples[1]);
    options.on_overflow = MF_OVERFLOW_ERROR;
    options.max_length = 36; /* some rows from about the 40th on are longer */
    char first[sizeof error.message];
    for (int run = 0; run < 20; run++) {
        mf_threads_set(run ? 3 : 1);
        assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples[0], &error),
                         MF_ERROR_DATASET_ROW);
        if (run == 0)
            snprintf(first, sizeof first, "%s", error.message);
        assert_string_equal(error.message, first);
    }
    mf_threads_set(before);
    mf_dataset_destroy(&dataset);
    free(text);
}

static bool third_time(void *argument) {
    return ++*(int *)argument == 3;
}

static void test_cancelled_between_rows_and_inside(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_samples samples;
    struct mf_error error;
    int asked = 0;
    struct mf_template_options options = plain();
    options.cancelled = third_time;
    options.cancelled_argument = &asked;
    load("{\"text\":\"a\"}\n{\"text\":\"b\"}\n{\"text\":\"c\"}\n{\"text\":\"d\"}\n", &dataset);
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error), MF_ERROR_CANCELLED);
    assert_int_equal(asked, 3);
    mf_dataset_destroy(&dataset);
    asked = 0;
    options.use_chat_template = true;
    load(
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n",
        &dataset);
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error), MF_ERROR_CANCELLED);
    mf_dataset_destroy(&dataset);
}

/* ---- long chats ---- */

static json_t *long_chat(size_t turns, bool system) {
    json_t *messages = json_array();
    if (system)
        json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", "Be brief."));
    for (size_t i = 0; i < turns; i++) {
        json_array_append_new(messages, json_pack("{s:s, s:s++}", "role", "user", "content", "Question ",
                                                  i % 3 ? "one?" : "two?", i % 5 ? "" : " Please."));
        json_array_append_new(messages, json_pack("{s:s, s:s+}", "role", "assistant", "content",
                                                  i % 4 ? "Yes." : "No, ", i % 7 ? "never" : ""));
    }
    return messages;
}

static char *render_first(const struct mf_tokenizer *with, const json_t *messages, size_t count,
                          bool prompt) {
    struct mf_error error;
    char *text = NULL;
    json_t *part = json_copy((json_t *)messages);
    while (json_array_size(part) > count)
        json_array_remove(part, count);
    if (mf_tokenizer_render_chat(with, part, &(struct mf_chat_options){prompt, 0}, &text, &error) != MF_OK)
        fail_msg("%s", error.message);
    json_decref(part);
    return text;
}

/* Tokens that the first `text` and the whole sample share. */
static int32_t shared_with(const struct mf_tokenizer *with, const char *text,
                           const struct mf_sample *sample) {
    struct mf_tokens tokens = {0};
    struct mf_error error;
    int32_t shared = 0;
    assert_int_equal(mf_tokenizer_encode(with, text, strlen(text), MF_SPECIAL_NONE, &tokens, &error), MF_OK);
    while (shared < sample->length && (size_t)shared < tokens.count &&
           tokens.id[shared] == sample->token[shared])
        shared++;
    mf_tokens_free(&tokens);
    return shared;
}

/* Long chats are not rendered prefix by prefix: labels must be those of the definition all the same. */
static void check_long_chat(const char *folder, const char *template, bool system) {
    struct mf_tokenizer *with;
    struct mf_dataset dataset;
    struct mf_samples samples;
    struct mf_error error;
    struct mf_template_options options = plain();
    json_t *messages = long_chat(20, system), *row = json_pack("{s:O}", "messages", messages);
    char *text = json_dumps(row, 0);
    options.use_chat_template = true;
    options.max_length = 100000;
    assert_int_equal(mf_tokenizer_open(folder, &with, &error), MF_OK);
    assert_int_equal(mf_tokenizer_set_chat_template(with, template, &error), MF_OK);
    load(text, &dataset);
    if (mf_template_apply(&dataset, with, &options, &samples, &error) != MF_OK)
        fail_msg("%s: %s", template, error.message);
    const struct mf_sample *sample = &samples.sample[0];
    for (size_t i = 0, token = 0; i < json_array_size(messages); i++) {
        if (strcmp(json_string_value(json_object_get(json_array_get(messages, i), "role")), "assistant") != 0)
            continue;
        char *before = render_first(with, messages, i, true),
             *after = render_first(with, messages, i + 1, false);
        const int32_t first = shared_with(with, before, sample), end = shared_with(with, after, sample);
        assert_true(first < end);
        for (; (int32_t)token < end; token++)
            assert_int_equal(sample->label[token],
                             (int32_t)token < first ? MF_LABEL_NONE : sample->token[token]);
        free(before);
        free(after);
    }
    mf_samples_destroy(&samples);
    mf_dataset_destroy(&dataset);
    mf_tokenizer_close(with);
    free(text);
    json_decref(row);
    json_decref(messages);
}

static const char alternating[] =
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\\n\\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% if m.role == 'user' %}"
    "[INST] {{ (system if loop.first else '') + m.content }} [/INST]{% else %} {{ m.content | trim }}{{ "
    "eos_token }}"
    "{% endif %}{% endfor %}";
static const char marks[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/* Numbers its turns, so that a message seen with a few before it is written in another way. */
static const char numbered[] =
    "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ messages | length + 1 }} assistant:{% endif %}";

static void test_long_chats(void **state) {
    (void)state;
    static const char *const folders[] = {"tests/golden/models/tied-gqa",
                                          "tests/golden/tokenizer_sentencepiece",
                                          "tests/golden/tokenizer_unigram"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        for (int system = 0; system < 2; system++) {
            check_long_chat(folders[i], alternating, system);
            check_long_chat(folders[i], marks, system);
            check_long_chat(folders[i], numbered, system);
        }
}

/* Time grows with the length of a chat, not with its square: 8,000 messages took more than 6 s. */
static void test_very_long_chat(void **state) {
    (void)state;
    struct mf_dataset dataset;
    struct mf_samples samples;
    struct mf_error error;
    struct mf_template_options options = plain();
    json_t *row = json_pack("{s:o}", "messages", long_chat(4000, true));
    char *text = json_dumps(row, 0);
    options.use_chat_template = true;
    options.max_length = 1 << 20;
    load(text, &dataset);
    const clock_t before = clock();
    assert_int_equal(mf_template_apply(&dataset, tokenizer, &options, &samples, &error), MF_OK);
    assert_true(clock() - before < (clock_t)5 * CLOCKS_PER_SEC);
    assert_true(samples.sample[0].labelled > 4000);
    mf_samples_destroy(&samples);
    mf_dataset_destroy(&dataset);
    free(text);
    json_decref(row);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_eos_in_the_tokenizer),
        cmocka_unit_test(test_labels_begin_where_the_prompt_ends),
        cmocka_unit_test(test_families_own_templates),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_cancelled_between_rows_and_inside),
        cmocka_unit_test(test_long_chats),
        cmocka_unit_test(test_very_long_chat),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_train_on_all),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_prompt_and_show),
        cmocka_unit_test(test_another_vocabulary),
        cmocka_unit_test(test_last_turn_of_the_user),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
