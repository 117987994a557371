/* What a model hub says over HTTP: Hugging Face's API, and mirrors that speak it. */
#ifndef MF_PROVIDERS_HUB_CLIENT_H
#define MF_PROVIDERS_HUB_CLIENT_H

#include "common/error.h"
#include "common/http_client.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* From the variables that Hugging Face's own library reads: HF_ENDPOINT, HF_TOKEN (else the file
 * HF_TOKEN_PATH, $HF_HOME/token), HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE, HF_HUB_CACHE, HF_HOME. */
struct mf_hub_settings {
    char *endpoint; /* "https://huggingface.co" */
    char *token;    /* NULL: none */
    char *cache;    /* the folder of models--organisation--name */
    bool offline;
};
enum mf_status mf_hub_settings_load(struct mf_hub_settings *settings, struct mf_error *error);
void mf_hub_settings_free(struct mf_hub_settings *settings); /* a zeroed one too */

struct mf_hub_client {
    const struct mf_hub_settings *settings; /* borrowed */
    struct mf_http_client *http;
    struct mf_http_options options; /* for mf_download() */
    char *authorization;            /* header line; NULL: no token */
};
/* `cancelled` (may be NULL) ends requests. */
enum mf_status mf_hub_client_open(const struct mf_hub_settings *settings, bool (*cancelled)(void *),
                                  void *context, struct mf_hub_client *client, struct mf_error *error);
void mf_hub_client_close(struct mf_hub_client *client); /* a zeroed one too */

/* Statuses of the calls below:
 *     MF_ERROR_MODEL_NOT_FOUND   no such repository, revision or file, as far as this token may see
 *     MF_ERROR_MODEL_FORBIDDEN   gated, private or a refused token: the text says what to do
 *     MF_ERROR_HUB               cannot be reached, is busy (429) or fails (5xx), after some tries */

/* The repository at a revision: the API's object, with "sha" and "siblings" checked. */
enum mf_status mf_hub_repository(struct mf_hub_client *client, const char *id, const char *revision,
                                 json_t **object, struct mf_error *error);

struct mf_hub_file {
    char etag[130];     /* names the blob: a sha256 (64 digits) of large files, else git's sha1 (40 digits) */
    int64_t size_bytes; /* -1: not said */
};
/* Asks for a file without fetching it. *url (freed by the caller) is where mf_download() finds it. */
enum mf_status mf_hub_file(struct mf_hub_client *client, const char *id, const char *commit, const char *name,
                           struct mf_hub_file *file, char **url, struct mf_error *error);

/* What an answer that is no success means for model `id`; `what` is "revision main" or a file's name. */
enum mf_status mf_hub_refused(const struct mf_hub_client *client, const struct mf_http_response *response,
                              const char *id, const char *what, struct mf_error *error);

#endif
