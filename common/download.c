#include "common/download.h"

#include "common/files.h"
#include "common/redact.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { URL_BYTES = 8192, DEFAULT_ATTEMPTS = 6 };

struct state {
    const struct mf_http_options *options;
    const struct mf_download *download;
    struct mf_http_client *client;
    char *url; /* of the present hop */
    char origin[512];
    int64_t size; /* of the file now */
    char validator[256];
    bool refused; /* trying again does not help */
    struct mf_http_response response;
};

bool mf_url_origin(const char *url, char *origin, size_t bytes) {
    size_t scheme = !strncasecmp(url, "https://", 8) ? 8 : !strncasecmp(url, "http://", 7) ? 7 : 0;
    size_t host = strcspn(url + scheme, "/?#\\");
    *origin = 0;
    if (!scheme || !host || memchr(url + scheme, '@', host) || scheme + host >= bytes)
        return false;
    for (size_t i = 0; i < scheme + host; i++)
        origin[i] = (char)tolower((unsigned char)url[i]);
    origin[scheme + host] = 0;
    return true;
}

char *mf_url_resolve(const char *base, const char *location) {
    CURLU *url = curl_url();
    char *text = NULL, *copy = NULL;
    if (url && !curl_url_set(url, CURLUPART_URL, base, 0) && !curl_url_set(url, CURLUPART_URL, location, 0) &&
        !curl_url_get(url, CURLUPART_URL, &text, 0))
        copy = strdup(text);
    curl_free(text);
    curl_url_cleanup(url);
    return copy;
}

/* ---- one attempt ------------------------------------------------------------------------------------- */

static enum mf_status begin_again(struct state *state, struct mf_error *error) {
    if (ftruncate(state->download->descriptor, 0))
        return mf_error_errno(error, errno, "cannot begin a download again");
    state->size = 0;
    return MF_OK;
}

/* The answer continues where the file ends, or is the whole. */
static enum mf_status accept_body(void *context, const struct mf_http_response *response,
                                  struct mf_error *error) {
    struct state *state = context;
    char value[256];
    if (mf_http_header(response, "ETag", value, sizeof value))
        memcpy(state->validator, value, sizeof value);
    if (response->status == 206) {
        long long from = -1;
        if (mf_http_header(response, "Content-Range", value, sizeof value) && !strncmp(value, "bytes ", 6))
            from = strtoll(value + 6, NULL, 10);
        if (from != state->size)
            return mf_error_set(error, MF_ERROR_HTTP, "GET %.512s: asked for bytes from %lld on, got '%.64s'",
                                state->origin, (long long)state->size, value);
        return MF_OK;
    }
    return state->size ? begin_again(state, error) : MF_OK;
}

static enum mf_status take(void *context, const void *bytes, size_t length, struct mf_error *error) {
    struct state *state = context;
    const struct mf_download *download = state->download;
    if ((int64_t)length > download->limit_bytes - state->size) {
        state->refused = true;
        return mf_error_set(error, MF_ERROR_HTTP, "GET %.512s: the file is longer than %lld bytes",
                            state->origin, (long long)download->limit_bytes);
    }
    if (lseek(download->descriptor, state->size, SEEK_SET) < 0)
        return mf_error_errno(error, errno, "cannot write a download");
    enum mf_status status = mf_descriptor_write(download->descriptor, bytes, length, "a download", error);
    if (!status)
        state->size += (int64_t)length;
    return status;
}

static enum mf_status ask(struct state *state, bool same_origin, struct mf_error *error) {
    char range[64], condition[300];
    const char *header[8];
    size_t count = 0;
    for (size_t i = 0; same_origin && state->download->headers && state->download->headers[i] && count < 4;
         i++)
        header[count++] = state->download->headers[i];
    if (state->size) {
        snprintf(range, sizeof range, "Range: bytes=%lld-", (long long)state->size);
        header[count++] = range;
        if (*state->validator == '"') { /* a weak one may not be used for it */
            snprintf(condition, sizeof condition, "If-Range: %s", state->validator);
            header[count++] = condition;
        }
    }
    header[count] = NULL;
    const struct mf_http_request request = {.method = "GET",
                                            .url = state->url,
                                            .headers = header,
                                            .sink = take,
                                            .accept_body = accept_body,
                                            .context = state};
    return mf_http_perform(state->client, &request, &state->response, error);
}

/* ---- hops -------------------------------------------------------------------------------------------- */

/* Another port of the same machine is no way into its network. */
static bool same_host(const char *a, const char *b) {
    const char *left = strstr(a, "//") + 2, *right = strstr(b, "//") + 2;
    const size_t length = *left == '[' ? strcspn(left, "]") : strcspn(left, ":");
    return length == (*right == '[' ? strcspn(right, "]") : strcspn(right, ":")) &&
           !strncmp(left, right, length);
}

static enum mf_status open_client(struct state *state, const char *first_origin, struct mf_error *error) {
    struct mf_http_options options = *state->options;
    options.attempts = 1; /* the next one asks for another range */
    options.redirects = 0;
    if (strcmp(state->origin, first_origin) != 0) {
        options.username = options.password = options.bearer_token = options.aws_sigv4 = NULL;
        options.public_addresses_only |= !state->download->allow && !same_host(state->origin, first_origin);
    }
    mf_http_client_free(state->client);
    return mf_http_client_new(&options, &state->client, error);
}

/* Goes where a redirect leads. */
static enum mf_status follow(struct state *state, const char *first_origin, bool *same_origin,
                             struct mf_error *error) {
    const struct mf_download *download = state->download;
    char location[URL_BYTES], shown[512], origin[sizeof state->origin];
    if (!mf_http_header(&state->response, "Location", location, sizeof location))
        return mf_error_set(error, MF_ERROR_HTTP, "GET %.512s: a redirect without a Location", state->origin);
    char *url = mf_url_resolve(state->url, location);
    mf_redact(location, shown, sizeof shown);
    enum mf_status status = MF_OK;
    if (!url || !mf_url_origin(url, origin, sizeof origin) ||
        (!strncmp(state->origin, "https:", 6) && strncmp(origin, "https:", 6) != 0)) {
        free(url);
        return mf_error_set(error, MF_ERROR_HTTP, "GET %.512s: redirected to '%.400s', which is not followed",
                            state->origin, shown);
    }
    bool moved = strcmp(state->origin, origin) != 0;
    *same_origin = !strcmp(origin, first_origin);
    if (download->allow)
        status = download->allow(download->context, url, error);
    free(state->url);
    state->url = url;
    memcpy(state->origin, origin, sizeof origin);
    return status || !moved ? status : open_client(state, first_origin, error);
}

static bool is_redirect(int status) {
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* What an answer that is no success and no redirect means. */
static enum mf_status refuse(const struct state *state, struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_HTTP, "GET %.512s: the server answered %d", state->origin,
                        state->response.status);
}

static enum mf_status fetch(struct state *state, struct mf_error *error) {
    const struct mf_download *download = state->download;
    const int attempts = state->options->attempts ? state->options->attempts : DEFAULT_ATTEMPTS;
    char first_origin[sizeof state->origin];
    bool same_origin = true;
    memcpy(first_origin, state->origin, sizeof first_origin);
    enum mf_status status = open_client(state, first_origin, error);
    for (int failures = 0, hops = 0; !status;) {
        const int64_t before = state->size;
        if (download->expected_bytes >= 0 && state->size == download->expected_bytes)
            return MF_OK;
        status = ask(state, same_origin, error);
        const int answer = state->response.status;
        if (!status && is_redirect(answer)) {
            if (++hops > download->redirects)
                return mf_error_set(error, MF_ERROR_HTTP, "GET %.512s: more than %d redirects", state->origin,
                                    download->redirects);
            status = follow(state, first_origin, &same_origin, error);
            continue;
        }
        if (!status && answer == 416 && state->size) { /* the file there is another one */
            status = ++failures < attempts ? begin_again(state, error) : refuse(state, error);
            continue;
        }
        if (!status && answer / 100 != 2)
            return refuse(state, error);
        if (!status && (download->expected_bytes < 0 || state->size == download->expected_bytes))
            return MF_OK;
        if (!status) /* whole, but not what was announced */
            return mf_error_set(error, MF_ERROR_HTTP, "GET %.512s: got %lld bytes of %lld", state->origin,
                                (long long)state->size, (long long)download->expected_bytes);
        failures = state->size > before ? 1 : failures + 1;
        const bool transient = status == MF_ERROR_HTTP && !state->refused &&
                               (!answer || answer == 429 || answer >= 500 || answer / 100 == 2);
        if (transient && failures < attempts && mf_http_pause(state->client, &state->response, failures))
            status = MF_OK;
    }
    return status;
}

enum mf_status mf_download(const struct mf_http_options *options, const struct mf_download *download,
                           struct mf_download_result *result, struct mf_error *error) {
    struct state state = {.options = options, .download = download, .url = strdup(download->url)};
    struct stat about = {0};
    char shown[512];
    enum mf_status status = MF_OK;
    *result = (struct mf_download_result){0};
    if (!state.url)
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a download");
    else if (!mf_url_origin(download->url, state.origin, sizeof state.origin))
        status = mf_error_set(error, MF_ERROR_HTTP, "'%s' is no URL of http or https",
                              mf_redact(download->url, shown, sizeof shown));
    else if (fstat(download->descriptor, &about))
        status = mf_error_errno(error, errno, "a download's file");
    if (!status) {
        state.size = about.st_size;
        if (download->expected_bytes >= 0 && state.size > download->expected_bytes)
            status = begin_again(&state, error);
    }
    if (!status)
        status = fetch(&state, error);
    result->status = state.response.status;
    result->size_bytes = state.size;
    memcpy(result->etag, state.validator, sizeof result->etag);
    result->body = state.response.body;
    state.response.body = (struct mf_text){0};
    mf_http_response_free(&state.response);
    mf_http_client_free(state.client);
    free(state.url);
    return status;
}
