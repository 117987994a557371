/* Comparing a tokenizer with what Python said about it. */
#ifndef MF_TESTS_PROVIDERS_TOKENIZER_CASES_H
#define MF_TESTS_PROVIDERS_TOKENIZER_CASES_H

#include "providers/tokenizer/tokenizer.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

/* A file of tests/golden/tokenizer_golden.py; fails the test when it cannot be read. New reference. */
json_t *load_golden(const char *path);
/* Every text: ids without and with special tokens, and both ways of decoding. Returns how many there were. */
size_t check_texts(const struct mf_tokenizer *tokenizer, const char *name, const json_t *texts);
/* Every chat: the rendering, or that it is refused in the template's words. Returns how many there were. */
size_t check_chats(const struct mf_tokenizer *tokenizer, const char *name, const json_t *chats);

#endif
