/* Keeps secrets out of what is logged, stored and shown. */
#ifndef MF_COMMON_REDACT_H
#define MF_COMMON_REDACT_H

#include <stddef.h>

/* Copies `text` with secrets replaced by "***": the password of scheme://user:password@host, the values after
 * password= / passwd= / secret= / token= / api_key= (":" and JSON quotes too, and names that end in these
 * words), "Bearer ..." and "Basic ...", and hf_... tokens. secret://name stays. Always NUL-terminated; cut to
 * `bytes` at a character boundary; returns `redacted`. Any thread. */
char *mf_redact(const char *text, char *redacted, size_t bytes);

#endif
