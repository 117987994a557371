#include "common/http_client.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/digest.h"
#include "common/redact.h"

enum {
    DEFAULT_TIMEOUT_MS = 30000,
    DEFAULT_CONNECT_TIMEOUT_MS = 5000,
    DEFAULT_RESPONSE_BYTES = 8 << 20,
    DEFAULT_ATTEMPTS = 4,
    DEFAULT_BACKOFF_MS = 200,
    LONGEST_BACKOFF_MS = 10000,
    CONTINUE_MS = 200,          /* how long "100 Continue" is waited for */
    RETRY_AFTER_SECONDS = 3600, /* of what a server asks for, the most that is told */
    HEADER_BYTES = 64 << 10
};

struct mf_http_client {
    CURL *curl;
    struct mf_http_options options; /* strings are copies */
    char *strings[5];
};

/* One attempt in flight. */
struct transfer {
    const struct mf_http_client *client;
    const struct mf_http_request *request;
    struct mf_http_response *response;
    size_t limit_bytes;
    bool too_long;
    bool accepted;          /* the sink's owner was asked */
    bool refused_address;   /* the connection's address is none that may be used */
    struct mf_error failed; /* of the sink; status MF_OK: none */
};

static pthread_once_t initialised = PTHREAD_ONCE_INIT;

static void initialise_library(void) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static bool stopped(const struct mf_http_client *client) {
    const struct mf_http_options *options = &client->options;
    return (options->stop && atomic_load(options->stop)) ||
           (options->cancelled && options->cancelled(options->cancelled_context));
}

enum mf_status mf_http_client_new(const struct mf_http_options *options, struct mf_http_client **result,
                                  struct mf_error *error) {
    const char *const strings[] = {options->ca_file, options->username, options->password,
                                   options->bearer_token, options->aws_sigv4};
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
    own->aws_sigv4 = client->strings[4];
    own->timeout_ms = own->timeout_ms || own->stall_ms ? own->timeout_ms : DEFAULT_TIMEOUT_MS;
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

/* A status line begins the headers of another answer. */
static size_t take_header(char *data, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    struct mf_text *headers = &transfer->response->headers;
    size_t bytes = size * count, length = bytes;
    while (length && (data[length - 1] == '\r' || data[length - 1] == '\n'))
        length--;
    if (bytes > 5 && !strncmp(data, "HTTP/", 5)) {
        const char *number = memchr(data, ' ', length);
        mf_text_clear(headers);
        transfer->response->status = number ? (int)strtol(number + 1, NULL, 10) : 0;
        return bytes;
    }
    if (length && headers->length + length < HEADER_BYTES) {
        mf_text_append(headers, data, length);
        mf_text_puts(headers, "\n");
    }
    return bytes;
}

static bool take_into_sink(struct transfer *transfer, const char *data, size_t bytes) {
    const struct mf_http_request *request = transfer->request;
    enum mf_status status = MF_OK;
    if (!transfer->accepted && request->accept_body)
        status = request->accept_body(request->context, transfer->response, &transfer->failed);
    transfer->accepted = true;
    if (!status)
        status = request->sink(request->context, data, bytes, &transfer->failed);
    transfer->failed.status = status;
    return !status;
}

static size_t take_body(char *data, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    size_t bytes = size * count;
    if (transfer->request->sink && transfer->response->status / 100 == 2)
        return take_into_sink(transfer, data, bytes) ? bytes : 0;
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
    return stopped(((struct transfer *)context)->client);
}

/* Addresses that lead to this machine or its own network, where services trust whoever reaches them. */
static bool is_private(const struct sockaddr *address) {
    if (address->sa_family == AF_INET6) {
        const struct in6_addr *six = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
        if (!IN6_IS_ADDR_V4MAPPED(six))
            return IN6_IS_ADDR_LOOPBACK(six) || IN6_IS_ADDR_LINKLOCAL(six) || IN6_IS_ADDR_UNSPECIFIED(six) ||
                   (six->s6_addr[0] & 0xFE) == 0xFC;
        struct sockaddr_in four = {.sin_family = AF_INET};
        memcpy(&four.sin_addr, six->s6_addr + 12, 4);
        return is_private((const struct sockaddr *)&four);
    }
    if (address->sa_family != AF_INET)
        return true;
    const uint32_t ip = ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr);
    return ip >> 24 == 0 || ip >> 24 == 10 || ip >> 24 == 127 || ip >> 16 == 0xA9FE || ip >> 16 == 0xC0A8 ||
           ip >> 20 == 0xAC1 || ip >> 22 == 0x191;
}

/* The address is looked at where it is used: a name cannot change its meaning in between. */
static curl_socket_t open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address) {
    struct transfer *transfer = context;
    (void)purpose;
    if (is_private(&address->addr)) {
        transfer->refused_address = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
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

static bool add_lines(struct curl_slist **headers, const char *const *line) {
    for (; line && *line; line++) {
        struct curl_slist *longer = curl_slist_append(*headers, *line);
        if (!longer)
            return false;
        *headers = longer;
    }
    return true;
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
    SET(CURLOPT_HEADERFUNCTION, take_header);
    SET(CURLOPT_HEADERDATA, transfer);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, watch_progress);
    SET(CURLOPT_XFERINFODATA, transfer);
    code = code ? code : allow_protocols(curl, !strncmp(request->url, "https:", 6));
    if (options->ca_file)
        SET(CURLOPT_CAINFO, options->ca_file);
    if (options->stall_ms) {
        SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
        SET(CURLOPT_LOW_SPEED_TIME, (long)(options->stall_ms + 999) / 1000);
    }
    if (options->public_addresses_only) {
        SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
        SET(CURLOPT_OPENSOCKETDATA, transfer);
    }
    if (options->username) {
        if (options->aws_sigv4) {
            SET(CURLOPT_AWS_SIGV4, options->aws_sigv4);
            SET(CURLOPT_EXPECT_100_TIMEOUT_MS, (long)CONTINUE_MS);
        }
        if (!options->aws_sigv4)
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
    if (!strcmp(request->method, "HEAD"))
        SET(CURLOPT_NOBODY, 1L);
    else
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
static int64_t backoff_ms(const struct mf_http_client *client, const struct mf_http_response *response,
                          int n) {
    int64_t delay_ms = client->options.backoff_ms;
    for (int i = 1; i < n && delay_ms < LONGEST_BACKOFF_MS; i++)
        delay_ms *= 2;
    delay_ms = delay_ms / 2 + (int64_t)(mf_random_u64() % (uint64_t)(delay_ms / 2 + 1));
    if (response->retry_after_ms > 0)
        delay_ms = response->retry_after_ms;
    return delay_ms < LONGEST_BACKOFF_MS ? delay_ms : LONGEST_BACKOFF_MS;
}

bool mf_http_pause(const struct mf_http_client *client, const struct mf_http_response *response, int n) {
    const int64_t delay_ms = backoff_ms(client, response, n);
    int64_t end_ms = mf_clock_monotonic_ms() + delay_ms;
    for (int64_t left_ms = delay_ms; left_ms > 0 && !stopped(client);
         left_ms = end_ms - mf_clock_monotonic_ms())
        poll(NULL, 0, left_ms > 100 ? 100 : (int)left_ms);
    return !stopped(client);
}

/* One attempt. *again says whether another may help. */
static enum mf_status attempt(struct mf_http_client *client, const struct mf_http_request *request,
                              struct transfer *transfer, bool *again, struct mf_error *error) {
    char reason[CURL_ERROR_SIZE] = "", url[512];
    long status = 0;
    struct mf_http_response *response = transfer->response;
    curl_off_t asked_seconds = 0;
    mf_text_clear(&response->body);
    mf_text_clear(&response->headers);
    response->status = 0;
    response->attempts++;
    transfer->accepted = transfer->refused_address = false;
    transfer->failed.status = MF_OK;
    curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, reason);
    CURLcode code = curl_easy_perform(client->curl);
    curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, NULL);
    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(client->curl, CURLINFO_RETRY_AFTER, &asked_seconds);
    response->status = (int)status;
    response->retry_after_ms =
        asked_seconds > RETRY_AFTER_SECONDS ? RETRY_AFTER_SECONDS * 1000 : (int64_t)asked_seconds * 1000;
    mf_redact(request->url, url, sizeof url);
    *again = false;
    if (transfer->failed.status) {
        if (error)
            *error = transfer->failed;
        return transfer->failed.status;
    }
    if (stopped(client))
        return mf_error_set(error, MF_ERROR_HTTP, "%s %s: stopped", request->method, url);
    if (transfer->too_long)
        return mf_error_set(error, MF_ERROR_HTTP, "%s %s: the answer is longer than %zu bytes",
                            request->method, url, transfer->limit_bytes);
    if (code && transfer->refused_address)
        return mf_error_set(error, MF_ERROR_HTTP,
                            "%s %s: the name leads to a private address, which this download may not use",
                            request->method, url);
    if (!code && request->sink && status / 100 == 2 && !transfer->accepted && request->accept_body) {
        enum mf_status accepted = request->accept_body(request->context, response, error); /* empty body */
        if (accepted)
            return accepted;
    }
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
    struct transfer transfer = {.client = client,
                                .request = request,
                                .response = response,
                                .limit_bytes = client->options.response_limit_bytes};
    struct curl_slist *headers = NULL;
    enum mf_status status = MF_OK;
    bool again = false;
    response->attempts = 0;
    response->status = 0;
    mf_text_clear(&response->body);
    /* no "Expect: 100-continue", which some servers leave unanswered; under a signature it stays, because
     * libcurl 7.88 signs a header that is only taken away as if it were sent */
    if ((!client->options.aws_sigv4 && !add_header(&headers, "Expect", NULL)) ||
        (request->content_type && !add_header(&headers, "Content-Type", request->content_type)) ||
        (request->accept && !add_header(&headers, "Accept", request->accept)) ||
        !add_lines(&headers, request->headers)) {
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
            (void)mf_http_pause(client, response, response->attempts);
        status = attempt(client, request, &transfer, &again, error);
    } while (status && again && response->attempts < client->options.attempts && !stopped(client));
    if (status && response->attempts > 1 && error)
        mf_error_set(error, status, "%s (%d attempts)", error->message, response->attempts);
done:
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    return status;
}

void mf_http_response_free(struct mf_http_response *response) {
    mf_text_free(&response->body);
    mf_text_free(&response->headers);
    *response = (struct mf_http_response){0};
}

bool mf_http_header(const struct mf_http_response *response, const char *name, char *value, size_t bytes) {
    const size_t length = strlen(name);
    *value = 0;
    for (const char *line = mf_text_string(&response->headers); *line; line += strcspn(line, "\n") + 1) {
        if (strncasecmp(line, name, length) != 0 || line[length] != ':')
            continue;
        const char *from = line + length + 1 + strspn(line + length + 1, " \t");
        snprintf(value, bytes, "%.*s", (int)strcspn(from, "\n"), from);
        return true;
    }
    return false;
}

void mf_url_escape(struct mf_text *url, const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                     strchr("-._~", *c);
        mf_text_printf(url, plain ? "%c" : "%%%02X", *c);
    }
}
