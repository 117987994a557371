#include "providers/gguf_words.h"

#include <string.h>

/* The patterns are those of the models' own tokenizer.json. */
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LETTERS_WORD "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define REST         "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SIGNS        " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define PATHS        " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(ending)                                                                                        \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ending "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" ending \
    "|"

static const struct mf_gguf_words kinds[] = {
    {.name = "gpt-2"},
    {.name = "phi-2"}, /* the same */
    {.name = "smollm", .digits = true},
    {.name = "qwen2", .pattern = CONTRACTIONS LETTERS_WORD "\\p{N}|" SIGNS REST, .composed = true},
    {.name = "llama-bpe",
     .pattern = CONTRACTIONS LETTERS_WORD "\\p{N}{1,3}|" SIGNS REST,
     .ignore_merges = true},
    {.name = "dbrx", .pattern = CONTRACTIONS LETTERS_WORD "\\p{N}{1,3}|" SIGNS REST}, /* Phi-4's, too */
    {.name = "tekken", .pattern = CASED("") "\\p{N}|" PATHS REST, .ignore_merges = true},
    {.name = "gpt-4o", .pattern = CASED(CONTRACTIONS "?") "\\p{N}{1,3}|" PATHS REST},
};

enum { KINDS = sizeof kinds / sizeof *kinds };

const struct mf_gguf_words *mf_gguf_words(const char *name, size_t length) {
    for (size_t i = 0; i < KINDS; i++)
        if (strlen(kinds[i].name) == length && !memcmp(kinds[i].name, name, length))
            return &kinds[i];
    return NULL;
}

const char *mf_gguf_words_list(void) {
    return "smollm, gpt-2, phi-2, qwen2, llama-bpe, dbrx, tekken, gpt-4o";
}

/* ---- from tokenizer.json ---- */

static bool of_type(const json_t *value, const char *type) {
    const char *text = json_string_value(json_object_get(value, "type"));
    return text && !strcmp(text, type);
}

/* A member that is false or, with `otherwise`, true when absent. */
static bool flag(const json_t *object, const char *name, bool otherwise) {
    const json_t *value = json_object_get(object, name);
    return value ? json_is_true(value) : otherwise;
}

static bool is_byte_level(const json_t *value, bool use_regex) {
    return of_type(value, "ByteLevel") && !flag(value, "add_prefix_space", true) &&
           flag(value, "use_regex", true) == use_regex;
}

/* The pattern that `value` splits by, before bytes; NULL: it does something else. */
static const char *pattern_of(const json_t *value) {
    const json_t *list = json_object_get(value, "pretokenizers");
    const json_t *split = json_array_get(list, 0);
    const char *behavior = json_string_value(json_object_get(split, "behavior"));
    if (!of_type(value, "Sequence") || json_array_size(list) != 2 || !of_type(split, "Split") || !behavior ||
        strcmp(behavior, "Isolated") != 0 || flag(split, "invert", false) ||
        !is_byte_level(json_array_get(list, 1), false))
        return NULL;
    return json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
}

static bool splits_digits(const json_t *value) {
    const json_t *list = json_object_get(value, "pretokenizers");
    return of_type(value, "Sequence") && json_array_size(list) == 2 &&
           of_type(json_array_get(list, 0), "Digits") &&
           flag(json_array_get(list, 0), "individual_digits", false) &&
           is_byte_level(json_array_get(list, 1), true);
}

const struct mf_gguf_words *mf_gguf_words_of(const json_t *tokenizer) {
    const json_t *value = json_object_get(tokenizer, "pre_tokenizer");
    const json_t *normalizer = json_object_get(tokenizer, "normalizer");
    const char *pattern = pattern_of(value);
    const bool digits = splits_digits(value), composed = of_type(normalizer, "NFC");
    const bool ignore_merges = flag(json_object_get(tokenizer, "model"), "ignore_merges", false);
    if ((!pattern && !digits && !is_byte_level(value, true)) ||
        (normalizer && !json_is_null(normalizer) && !composed))
        return NULL;
    for (size_t i = 0; i < KINDS; i++)
        if (kinds[i].digits == digits && kinds[i].composed == composed &&
            kinds[i].ignore_merges == ignore_merges && !kinds[i].pattern == !pattern &&
            (!pattern || !strcmp(pattern, kinds[i].pattern)))
            return &kinds[i];
    return NULL;
}

/* ---- to tokenizer.json ---- */

json_t *mf_gguf_byte_level(bool add_prefix_space, bool use_regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", add_prefix_space,
                     "trim_offsets", 1, "use_regex", use_regex);
}

json_t *mf_gguf_words_json(const struct mf_gguf_words *words) {
    if (words->digits)
        return json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Digits",
                         "individual_digits", 1, mf_gguf_byte_level(false, true));
    if (words->pattern)
        return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers",
                         "type", "Split", "pattern", "Regex", words->pattern, "behavior", "Isolated",
                         "invert", 0, mf_gguf_byte_level(false, false));
    return mf_gguf_byte_level(false, true);
}
