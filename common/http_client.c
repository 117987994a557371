#include "common/http_client.h"

#include <curl/curl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/digest.h"
#include "common/redact.h"

enum {
    DEFAULT_TIMEOUT_MS = 30000,
    DEFAULT_CONNECT_TIMEOUT_MS = 5000,
    DEFAULT_RESPONSE_BYTES = 8 << 20,
    DEFAULT_ATTEMPTS = 4,
    DEFAULT_BACKOFF_MS = 200,
    LONGEST_BACKOFF_MS = 10000
};

struct mf_http_client {
    CURL *curl;
    struct mf_http_options options; /* strings are copies */
    char *strings[4];
};

/* One attempt in flight. */
struct transfer {
    struct mf_http_response *response;
    size_t limit_bytes;
    bool too_long;
    const atomic_bool *stop;
};

static pthread_once_t initialised = PTHREAD_ONCE_INIT;

static void initialise_library(void) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static bool stopped(const atomic_bool *stop) {
    return stop && atomic_load(stop);
}

enum mf_status mf_http_client_new(const struct mf_http_options *options, struct mf_http_client **result,
                                  struct mf_error *error) {
    const char *const strings[] = {options->ca_file, options->username, options->password,
                                   options->bearer_token};
    pthread_once(&initialised, initialise_library);
    *result = NULL;
    struct mf_http_client *client = calloc(1, sizeof *client);
    bool complete = client && (client->curl = curl_easy_init());
    for (size_t i = 0; complete && i < sizeof strings / sizeof *strings; i++)
        complete = !strings[i] || (client->strings[i] = strdup(strings[i]));
    if (!complete) {
        mf_http_client_free(client);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for an HTTP client");
    }
    struct mf_http_options *own = &client->options;
    *own = *options;
    own->ca_file = client->strings[0];
    own->username = client->strings[1];
    own->password = client->strings[2];
    own->bearer_token = client->strings[3];
    own->timeout_ms = own->timeout_ms ? own->timeout_ms : DEFAULT_TIMEOUT_MS;
    own->connect_timeout_ms = own->connect_timeout_ms ? own->connect_timeout_ms : DEFAULT_CONNECT_TIMEOUT_MS;
    own->response_limit_bytes =
        own->response_limit_bytes ? own->response_limit_bytes : DEFAULT_RESPONSE_BYTES;
    own->attempts = own->attempts ? own->attempts : DEFAULT_ATTEMPTS;
    own->backoff_ms = own->backoff_ms ? own->backoff_ms : DEFAULT_BACKOFF_MS;
    *result = client;
    return MF_OK;
}

void mf_http_client_free(struct mf_http_client *client) {
    if (!client)
        return;
    curl_easy_cleanup(client->curl);
    for (size_t i = 0; i < sizeof client->strings / sizeof *client->strings; i++)
        free(client->strings[i]);
    free(client);
}

static size_t take_body(char *data, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    size_t bytes = size * count;
    if (bytes > transfer->limit_bytes - transfer->response->body.length) {
        transfer->too_long = true;
        return 0;
    }
    mf_text_append(&transfer->response->body, data, bytes);
    return transfer->response->body.failed ? 0 : bytes;
}

static int watch_progress(void *context, curl_off_t download_total, curl_off_t download,
                          curl_off_t upload_total, curl_off_t upload) {
    (void)download_total, (void)download, (void)upload_total, (void)upload;
    return stopped(((struct transfer *)context)->stop);
}

/* http and https only, and once https stays https. */
static CURLcode allow_protocols(CURL *curl, bool secure) {
#if LIBCURL_VERSION_NUM >= 0x075500
    CURLcode code = curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    return code ? code : curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
#else
    CURLcode code = curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
    return code ? code
                : curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS,
                                   (long)(secure ? CURLPROTO_HTTPS : CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

static bool add_header(struct curl_slist **headers, const char *name, const char *value) {
    struct mf_text line = {0};
    mf_text_printf(&line, value ? "%s: %s" : "%s:", name, value ? value : "");
    struct curl_slist *longer = line.failed ? NULL : curl_slist_append(*headers, mf_text_string(&line));
    mf_text_free(&line);
    if (longer)
        *headers = longer;
    return longer != NULL;
}

/* Everything that is the same in all attempts. */
static CURLcode prepare(struct mf_http_client *client, const struct mf_http_request *request,
                        struct curl_slist *headers, struct transfer *transfer) {
    const struct mf_http_options *options = &client->options;
    CURL *curl = client->curl;
    CURLcode code = CURLE_OK;
    curl_easy_reset(curl);
#define SET(option, value) code = code ? code : curl_easy_setopt(curl, option, value)
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_USERAGENT, "modelforge/" MF_VERSION);
    SET(CURLOPT_TIMEOUT_MS, (long)options->timeout_ms);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)options->connect_timeout_ms);
    SET(CURLOPT_FOLLOWLOCATION, options->redirects > 0 ? 1L : 0L);
    SET(CURLOPT_MAXREDIRS, (long)options->redirects);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, transfer);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, watch_progress);
    SET(CURLOPT_XFERINFODATA, transfer);
    code = code ? code : allow_protocols(curl, !strncmp(request->url, "https:", 6));
    if (options->ca_file)
        SET(CURLOPT_CAINFO, options->ca_file);
    if (options->username) {
        SET(CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
        SET(CURLOPT_USERNAME, options->username);
        SET(CURLOPT_PASSWORD, options->password ? options->password : "");
    } else if (options->bearer_token) {
        SET(CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
        SET(CURLOPT_XOAUTH2_BEARER, options->bearer_token);
    }
    if (request->body) {
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_bytes);
        SET(CURLOPT_POSTFIELDS, request->body);
    }
    SET(CURLOPT_CUSTOMREQUEST, request->method);
#undef SET
    return code;
}

/* Whether another attempt may end differently. */
static bool worth_retrying(CURLcode code) {
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

/* Before attempt n + 1 (n from 1): doubling with jitter, or what the server asks for. */
static int64_t backoff_ms(const struct mf_http_client *client, int n) {
    curl_off_t asked_seconds = 0;
    curl_easy_getinfo(client->curl, CURLINFO_RETRY_AFTER, &asked_seconds);
    int64_t delay_ms = client->options.backoff_ms;
    for (int i = 1; i < n && delay_ms < LONGEST_BACKOFF_MS; i++)
        delay_ms *= 2;
    delay_ms = delay_ms / 2 + (int64_t)(mf_random_u64() % (uint64_t)(delay_ms / 2 + 1));
    if (asked_seconds > 0)
        delay_ms =
            asked_seconds > LONGEST_BACKOFF_MS / 1000 ? LONGEST_BACKOFF_MS : (int64_t)asked_seconds * 1000;
    return delay_ms < LONGEST_BACKOFF_MS ? delay_ms : LONGEST_BACKOFF_MS;
}

static void pause_for(int64_t delay_ms, const atomic_bool *stop) {
    int64_t end_ms = mf_clock_monotonic_ms() + delay_ms;
    for (int64_t left_ms = delay_ms; left_ms > 0 && !stopped(stop);
         left_ms = end_ms - mf_clock_monotonic_ms())
        poll(NULL, 0, left_ms > 100 ? 100 : (int)left_ms);
}

/* One attempt. *again says whether another may help. */
static enum mf_status attempt(struct mf_http_client *client, const struct mf_http_request *request,
                              struct transfer *transfer, bool *again, struct mf_error *error) {
    char reason[CURL_ERROR_SIZE] = "", url[512];
    long status = 0;
    struct mf_http_response *response = transfer->response;
    mf_text_clear(&response->body);
    response->status = 0;
    response->attempts++;
    curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, reason);
    CURLcode code = curl_easy_perform(client->curl);
    curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, NULL);
    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &status);
    response->status = (int)status;
    mf_redact(request->url, url, sizeof url);
    *again = false;
    if (stopped(transfer->stop))
        return mf_error_set(error, MF_ERROR_HTTP, "%s %s: stopped", request->method, url);
    if (transfer->too_long)
        return mf_error_set(error, MF_ERROR_HTTP, "%s %s: the answer is longer than %zu bytes",
                            request->method, url, transfer->limit_bytes);
    if (code) {
        *again = worth_retrying(code);
        return mf_error_set(error, MF_ERROR_HTTP, "%s %s: %s", request->method, url,
                            *reason ? reason : curl_easy_strerror(code));
    }
    if (status == 429 || status >= 500) {
        *again = true;
        return mf_error_set(error, MF_ERROR_HTTP, "%s %s: the server answered %ld", request->method, url,
                            status);
    }
    return MF_OK;
}

enum mf_status mf_http_perform(struct mf_http_client *client, const struct mf_http_request *request,
                               struct mf_http_response *response, struct mf_error *error) {
    struct transfer transfer = {response, client->options.response_limit_bytes, false, client->options.stop};
    struct curl_slist *headers = NULL;
    enum mf_status status = MF_OK;
    bool again = false;
    response->attempts = 0;
    response->status = 0;
    mf_text_clear(&response->body);
    /* no "Expect: 100-continue", which some servers leave unanswered */
    if (!add_header(&headers, "Expect", NULL) ||
        (request->content_type && !add_header(&headers, "Content-Type", request->content_type)) ||
        (request->accept && !add_header(&headers, "Accept", request->accept))) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the headers of a request");
        goto done;
    }
    CURLcode code = prepare(client, request, headers, &transfer);
    if (code) {
        status = mf_error_set(error, MF_ERROR_HTTP, "%s: %s", request->method, curl_easy_strerror(code));
        goto done;
    }
    do {
        if (response->attempts)
            pause_for(backoff_ms(client, response->attempts), transfer.stop);
        status = attempt(client, request, &transfer, &again, error);
    } while (status && again && response->attempts < client->options.attempts && !stopped(transfer.stop));
    if (status && response->attempts > 1 && error)
        mf_error_set(error, status, "%s (%d attempts)", error->message, response->attempts);
done:
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    return status;
}

void mf_http_response_free(struct mf_http_response *response) {
    mf_text_free(&response->body);
    *response = (struct mf_http_response){0};
}

void mf_url_escape(struct mf_text *url, const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                     strchr("-._~", *c);
        mf_text_printf(url, plain ? "%c" : "%%%02X", *c);
    }
}
