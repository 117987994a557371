#include "common/redact.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* The copy in the making: always room for the NUL. */
struct copy {
    char *text;
    size_t bytes, length;
};

static void put(struct copy *copy, const char *from, size_t length) {
    size_t room = copy->bytes - 1 - copy->length;
    if (length > room) {
        length = room;
        while (length && ((unsigned char)from[length] & 0xC0) == 0x80)
            length--;
        copy->bytes = copy->length + length + 1; /* full from now on */
    }
    memcpy(copy->text + copy->length, from, length);
    copy->length += length;
}

static bool is_name_character(char c) {
    return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.';
}

/* scheme://user:PASSWORD@: the colon before PASSWORD and the @ after it, when `text` is at "://". */
static bool find_uri_password(const char *text, const char **start, const char **end) {
    size_t authority = strcspn(text + 3, "/?# \t\r\n\"'<>,");
    const char *at = NULL, *colon = NULL;
    for (const char *p = text + 3; p < text + 3 + authority; p++) {
        if (*p == '@')
            at = p;
        if (*p == ':' && !colon)
            colon = p;
    }
    if (!at || !colon || colon > at)
        return false;
    *start = colon + 1;
    *end = at;
    return true;
}

/* Special tokens of tokenizers are no secrets: "eos_token". */
static bool is_tokenizer_word(const char *begin, const char *text) {
    static const char *const words[] = {"pad_", "eos_", "bos_", "unk_", "sep_", "cls_", "mask_"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);
        if ((size_t)(text - begin) >= length && !strncasecmp(text - length, words[i], length))
            return true;
    }
    return false;
}

/* NAME=VALUE, NAME: VALUE, "NAME": "VALUE" with a telling NAME at `text`: where VALUE begins and ends. */
static bool find_named_secret(const char *begin, const char *text, const char **start, const char **end) {
    static const char *const names[] = {"password", "passwd",  "passphrase", "secret",
                                        "token",    "api_key", "apikey"};
    size_t length = 0;
    if (!strchr("pPsStTaA", *text)) /* most characters begin no name */
        return false;
    for (size_t i = 0; !length && i < sizeof names / sizeof *names; i++)
        if (!strncasecmp(text, names[i], strlen(names[i])))
            length = strlen(names[i]);
    if (!length || is_tokenizer_word(begin, text))
        return false;
    const char *p = text + length;
    p += *p == '"' || *p == '\'';
    p += strspn(p, " ");
    if ((*p != '=' && *p != ':') || !strncmp(p, "://", 3))
        return false;
    p++;
    p += strspn(p, " ");
    char quote = *p == '"' || *p == '\'' ? *p++ : 0;
    if (!strncmp(p, "secret://", 9))
        return false;
    *start = p;
    if (quote) {
        while (*p && *p != quote)
            p += p[0] == '\\' && p[1] ? 2 : 1;
        *end = p;
    } else {
        *end = p + strcspn(p, " \t\r\n,;&}\"'");
    }
    return *end > *start;
}

/* "Bearer VALUE" and "Basic VALUE" of an Authorization header; "hf_VALUE". */
static bool find_known_token(const char *begin, const char *text, const char **start, const char **end) {
    size_t shortest = 16;
    if (text > begin && is_name_character(text[-1]))
        return false;
    if (!strncasecmp(text, "bearer ", 7))
        *start = text + 7;
    else if (!strncasecmp(text, "basic ", 6))
        *start = text + 6;
    else if (!strncmp(text, "hf_", 3))
        *start = text + 3;
    else
        return false;
    *end = *start;
    while (**end && (isalnum((unsigned char)**end) || strchr("-._~+/=", **end)))
        (*end)++;
    return (size_t)(*end - *start) >= shortest;
}

char *mf_redact(const char *text, char *redacted, size_t bytes) {
    struct copy copy = {redacted, bytes, 0};
    if (!bytes)
        return redacted;
    for (const char *p = text; *p && copy.length + 1 < copy.bytes;) {
        const char *start, *end;
        if ((!strncmp(p, "://", 3) && find_uri_password(p, &start, &end)) ||
            find_named_secret(text, p, &start, &end) || find_known_token(text, p, &start, &end)) {
            put(&copy, p, (size_t)(start - p));
            put(&copy, "***", 3);
            p = end;
        } else {
            size_t length = 1;
            while (((unsigned char)p[length] & 0xC0) == 0x80 && length < 4)
                length++;
            put(&copy, p, length);
            p += length;
        }
    }
    redacted[copy.length] = 0;
    return redacted;
}
