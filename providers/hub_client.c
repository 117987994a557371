#include "providers/hub_client.h"

#include "common/download.h"
#include "common/files.h"
#include "common/json.h"
#include "common/text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { ANSWER_BYTES = 64 << 20, STALL_MS = 60000, HOPS = 5, TOKEN_FILE_BYTES = 4096, ATTEMPTS = 5 };

/* ---- settings ---------------------------------------------------------------------------------------- */

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool is_true(const char *value) {
    return value && (!strcasecmp(value, "1") || !strcasecmp(value, "true") || !strcasecmp(value, "yes") ||
                     !strcasecmp(value, "on"));
}

/* $HF_HOME, else $XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface; NULL: none of them is known. */
static char *hub_home(void) {
    const char *home = variable("HF_HOME"), *cache = variable("XDG_CACHE_HOME"), *user = variable("HOME");
    char *path = NULL;
    if (home)
        return strdup(home);
    if (!cache && !user)
        return NULL;
    int n = cache ? asprintf(&path, "%s/huggingface", cache) : asprintf(&path, "%s/.cache/huggingface", user);
    return n < 0 ? NULL : path;
}

/* The token in a file, without the line break; NULL when there is none. */
static char *token_from(const char *path) {
    char *text = NULL;
    struct mf_error ignored;
    if (!path || mf_file_read(path, TOKEN_FILE_BYTES, &text, NULL, &ignored))
        return NULL;
    size_t length = strlen(text);
    while (length && isspace((unsigned char)text[length - 1]))
        text[--length] = 0;
    if (!length) {
        free(text);
        return NULL;
    }
    return text;
}

enum mf_status mf_hub_settings_load(struct mf_hub_settings *settings, struct mf_error *error) {
    const char *endpoint = variable("HF_ENDPOINT"), *cache = variable("HF_HUB_CACHE");
    const char *token = variable("HF_TOKEN"), *token_path = variable("HF_TOKEN_PATH");
    char *home = hub_home(), *token_file = home ? mf_path_join(home, "token") : NULL;
    *settings = (struct mf_hub_settings){
        .endpoint = strdup(endpoint ? endpoint : "https://huggingface.co"),
        .token = token ? strdup(token) : token_from(token_path ? token_path : token_file),
        .cache = cache  ? strdup(cache)
                 : home ? mf_path_join(home, "hub")
                        : NULL,
        .offline = is_true(variable("HF_HUB_OFFLINE")) || is_true(variable("TRANSFORMERS_OFFLINE"))};
    char origin[512];
    enum mf_status status = MF_OK;
    free(home);
    free(token_file);
    if (!settings->endpoint || (token && !settings->token)) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the model hub");
    } else if (!settings->cache) {
        status = mf_error_set(error, MF_ERROR_CONFIGURATION,
                              "model hub: there is no folder to keep models in: set HF_HOME");
    } else {
        for (size_t length = strlen(settings->endpoint); length && settings->endpoint[length - 1] == '/';)
            settings->endpoint[--length] = 0;
        if (!mf_url_origin(settings->endpoint, origin, sizeof origin))
            status =
                mf_error_set(error, MF_ERROR_CONFIGURATION,
                             "HF_ENDPOINT: '%.200s' is not http://host or https://host", settings->endpoint);
    }
    if (status)
        mf_hub_settings_free(settings);
    return status;
}

void mf_hub_settings_free(struct mf_hub_settings *settings) {
    if (settings->token)
        explicit_bzero(settings->token, strlen(settings->token));
    free(settings->token);
    free(settings->endpoint);
    free(settings->cache);
    *settings = (struct mf_hub_settings){0};
}

/* ---- client ------------------------------------------------------------------------------------------ */

enum mf_status mf_hub_client_open(const struct mf_hub_settings *settings, bool (*cancelled)(void *),
                                  void *context, struct mf_hub_client *client, struct mf_error *error) {
    *client = (struct mf_hub_client){.settings = settings,
                                     .options = {.stall_ms = STALL_MS,
                                                 .response_limit_bytes = ANSWER_BYTES,
                                                 .attempts = ATTEMPTS,
                                                 .cancelled = cancelled,
                                                 .cancelled_context = context}};
    if (settings->token &&
        asprintf(&client->authorization, "Authorization: Bearer %s", settings->token) < 0) {
        client->authorization = NULL;
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the model hub");
    }
    return mf_http_client_new(&client->options, &client->http, error);
}

void mf_hub_client_close(struct mf_hub_client *client) {
    if (client->authorization)
        explicit_bzero(client->authorization, strlen(client->authorization));
    free(client->authorization);
    mf_http_client_free(client->http);
    *client = (struct mf_hub_client){0};
}

/* The reason that the hub gives in a header, without what would not fit a message. */
static void own_words(const struct mf_http_response *response, char *text, size_t bytes) {
    char words[400];
    *text = 0;
    if (mf_http_header(response, "X-Error-Message", words, sizeof words) &&
        mf_utf8_valid(words, strlen(words)))
        snprintf(text, bytes, " (%s)", words);
}

enum mf_status mf_hub_refused(const struct mf_hub_client *client, const struct mf_http_response *response,
                              const char *id, const char *what, struct mf_error *error) {
    const char *endpoint = client->settings->endpoint;
    const bool has_token = client->settings->token != NULL;
    const int answer = response->status;
    char code[64], words[420];
    mf_http_header(response, "X-Error-Code", code, sizeof code);
    own_words(response, words, sizeof words);
    if (!strcmp(code, "GatedRepo"))
        return mf_error_set(error, MF_ERROR_MODEL_FORBIDDEN,
                            "model_name: %s is gated: accept its conditions at %s/%s and %s%s", id, endpoint,
                            id,
                            has_token ? "give the worker a token of an account that did (HF_TOKEN)"
                                      : "give the worker a token of that account (HF_TOKEN)",
                            words);
    if (!strcmp(code, "RevisionNotFound"))
        return mf_error_set(error, MF_ERROR_MODEL_NOT_FOUND, "model_name: %s has no %s at %s", id, what,
                            endpoint);
    if (!strcmp(code, "EntryNotFound"))
        return mf_error_set(error, MF_ERROR_MODEL_NOT_FOUND, "model_name: %s has no file %s at %s", id, what,
                            endpoint);
    if (!strcmp(code, "RepoNotFound") || answer == 404)
        return mf_error_set(error, MF_ERROR_MODEL_NOT_FOUND,
                            "model_name: there is no model %s at %s, or it is private and %s", id, endpoint,
                            has_token ? "the worker's token (HF_TOKEN) may not see it"
                                      : "the worker has no token (HF_TOKEN)");
    if (answer == 401)
        return mf_error_set(
            error, MF_ERROR_MODEL_FORBIDDEN, "model_name: %s asks for %s to read %s%s", endpoint,
            has_token ? "another token than the worker's (HF_TOKEN)" : "a token (HF_TOKEN)", id, words);
    if (answer == 403)
        return mf_error_set(
            error, MF_ERROR_MODEL_FORBIDDEN, "model_name: %s does not let %s read %s%s", endpoint,
            has_token ? "the worker's token (HF_TOKEN)" : "a worker without a token (HF_TOKEN)", id, words);
    if (answer == 429)
        return mf_error_set(error, MF_ERROR_HUB,
                            "model hub: %s is asked too often for %s; it asks to wait %lld s", endpoint, id,
                            (long long)(response->retry_after_ms + 999) / 1000);
    return mf_error_set(error, MF_ERROR_HUB, "model hub: %s answered %d for %s of %s%s", endpoint, answer,
                        what, id, words);
}

/* One request to the endpoint itself. The answer stays in *response, whatever it is; MF_ERROR_HUB when none
 * came. */
static enum mf_status ask(struct mf_hub_client *client, const char *method, const char *url,
                          struct mf_http_response *response, struct mf_error *error) {
    const char *const headers[] = {"Accept-Encoding: identity", client->authorization, NULL};
    const struct mf_http_request request = {.method = method, .url = url, .headers = headers};
    struct mf_error reason;
    enum mf_status status = mf_http_perform(client->http, &request, response, &reason);
    if (!status || response->status >= 400)
        return MF_OK;
    if (client->options.cancelled && client->options.cancelled(client->options.cancelled_context))
        return mf_error_set(error, MF_ERROR_CANCELLED, "cancelled while the model hub was asked");
    return mf_error_set(error, MF_ERROR_HUB, "model hub: %s", reason.message);
}

static bool is_redirect(int status) {
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Follows redirects within the endpoint (a renamed repository); one that leads elsewhere is an answer. `url`
 * is replaced by the last one asked. */
static enum mf_status ask_following(struct mf_hub_client *client, const char *method, char **url,
                                    struct mf_http_response *response, struct mf_error *error) {
    char location[8192];
    for (int hop = 0;; hop++) {
        enum mf_status status = ask(client, method, *url, response, error);
        if (status || !is_redirect(response->status) ||
            !mf_http_header(response, "Location", location, sizeof location) || *location != '/' ||
            location[1] == '/' || hop == HOPS)
            return status;
        char *next = mf_url_resolve(*url, location);
        if (!next)
            return mf_error_set(error, MF_ERROR_HUB, "model hub: %s redirects to nowhere",
                                client->settings->endpoint);
        free(*url);
        *url = next;
    }
}

/* ---- calls ------------------------------------------------------------------------------------------- */

/* "organisation/name" and "a/file.json" keep their slashes. */
static void append_path(struct mf_text *url, const char *path) {
    while (*path) {
        char *part = strndup(path, strcspn(path, "/"));
        if (part)
            mf_url_escape(url, part);
        else
            url->failed = true;
        path += part ? strlen(part) : strlen(path);
        free(part);
        if (*path == '/') {
            mf_text_puts(url, "/");
            path++;
        }
    }
}

static bool is_commit(const char *text) {
    return strlen(text) == 40 && strspn(text, "0123456789abcdef") == 40;
}

static enum mf_status check_repository(const struct mf_hub_client *client, const char *id,
                                       const json_t *object, struct mf_error *error) {
    const char *sha = json_string_value(json_object_get(object, "sha"));
    size_t i;
    const json_t *file;
    bool fine = sha && is_commit(sha) && json_is_array(json_object_get(object, "siblings"));
    json_array_foreach(json_object_get(object, "siblings"), i, file) fine =
        fine && json_is_string(json_object_get(file, "rfilename"));
    return fine ? MF_OK
                : mf_error_set(error, MF_ERROR_HUB,
                               "model hub: %s does not describe %s with its commit and files",
                               client->settings->endpoint, id);
}

enum mf_status mf_hub_repository(struct mf_hub_client *client, const char *id, const char *revision,
                                 json_t **object, struct mf_error *error) {
    struct mf_text text = {0};
    struct mf_http_response response = {0};
    char what[256], *url;
    *object = NULL;
    mf_text_printf(&text, "%s/api/models/", client->settings->endpoint);
    append_path(&text, id);
    mf_text_puts(&text, "/revision/");
    mf_url_escape(&text, revision);
    enum mf_status status = mf_text_status(&text, error);
    url = status ? NULL : mf_text_take(&text);
    if (!status)
        status = ask_following(client, "GET", &url, &response, error);
    snprintf(what, sizeof what, "revision %.200s", revision);
    if (!status && response.status != 200)
        status = mf_hub_refused(client, &response, id, what, error);
    if (!status &&
        (status = mf_json_parse(mf_text_string(&response.body), response.body.length, id, object, error)))
        status = mf_error_set(error, MF_ERROR_HUB, "model hub: %s does not answer with JSON for %s",
                              client->settings->endpoint, id);
    if (!status)
        status = check_repository(client, id, *object, error);
    if (status) {
        json_decref(*object);
        *object = NULL;
    }
    mf_http_response_free(&response);
    mf_text_free(&text);
    free(url);
    return status;
}

/* W/"abc" and "abc" to abc; false for what must not name a file. */
static bool normalise_etag(const char *raw, char *etag, size_t bytes) {
    raw += !strncmp(raw, "W/", 2) ? 2 : 0;
    size_t length = strlen(raw);
    if (length >= 2 && *raw == '"' && raw[length - 1] == '"') {
        raw++;
        length -= 2;
    }
    if (!length || length >= bytes || *raw == '.')
        return false;
    snprintf(etag, bytes, "%.*s", (int)length, raw);
    return strspn(etag, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.") == length;
}

static enum mf_status read_metadata(const struct mf_hub_client *client,
                                    const struct mf_http_response *response, const char *id, const char *name,
                                    struct mf_hub_file *file, struct mf_error *error) {
    char raw[256], size[32];
    const bool away = is_redirect(response->status);
    if (!mf_http_header(response, "X-Linked-Etag", raw, sizeof raw))
        mf_http_header(response, "ETag", raw, sizeof raw);
    if (!normalise_etag(raw, file->etag, sizeof file->etag))
        return mf_error_set(error, MF_ERROR_HUB, "model hub: %s gives %s of %s no usable ETag",
                            client->settings->endpoint, name, id);
    bool said = mf_http_header(response, "X-Linked-Size", size, sizeof size) ||
                (!away && mf_http_header(response, "Content-Length", size, sizeof size));
    file->size_bytes = said ? strtoll(size, NULL, 10) : -1;
    return MF_OK;
}

enum mf_status mf_hub_file(struct mf_hub_client *client, const char *id, const char *commit, const char *name,
                           struct mf_hub_file *file, char **url, struct mf_error *error) {
    struct mf_text text = {0};
    struct mf_http_response response = {0};
    *url = NULL;
    mf_text_printf(&text, "%s/", client->settings->endpoint);
    append_path(&text, id);
    mf_text_puts(&text, "/resolve/");
    mf_url_escape(&text, commit);
    mf_text_puts(&text, "/");
    append_path(&text, name);
    enum mf_status status = mf_text_status(&text, error);
    if (!status) {
        *url = mf_text_take(&text);
        status = ask_following(client, "HEAD", url, &response, error);
    }
    if (!status && response.status != 200 && !is_redirect(response.status))
        status = mf_hub_refused(client, &response, id, name, error);
    if (!status)
        status = read_metadata(client, &response, id, name, file, error);
    if (status) {
        free(*url);
        *url = NULL;
    }
    mf_http_response_free(&response);
    mf_text_free(&text);
    return status;
}
