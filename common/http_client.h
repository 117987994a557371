/* HTTP over libcurl: bounded in size and time, with retries and back-off. */
#ifndef MF_COMMON_HTTP_CLIENT_H
#define MF_COMMON_HTTP_CLIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/text.h"

/* Zero means the default in brackets. Strings are copied. */
struct mf_http_options {
    int64_t timeout_ms;          /* of one attempt, all of it [30 s; none when stall_ms is set] */
    int64_t stall_ms;            /* of one attempt in which nothing moves, in whole seconds [none] */
    int64_t connect_timeout_ms;  /* [5 s] */
    size_t response_limit_bytes; /* a longer body is an error [8 MiB] */
    int attempts;                /* of one request in all [4] */
    int64_t backoff_ms;  /* before the second attempt; doubles each time, with jitter, at most 10 s [200] */
    int redirects;       /* followed at most [0: none]; never from https to http; credentials are not
                            sent to another host */
    const char *ca_file; /* PEM; NULL: the system's */
    const char *username, *password; /* HTTP basic authentication when username is set */
    const char *bearer_token;
    const char *aws_sigv4;      /* "aws:amz:REGION:SERVICE": username and password sign, as AWS does it */
    bool public_addresses_only; /* refuses to connect to loopback, link-local and private addresses */
    const atomic_bool *stop;    /* when it becomes true a request in flight ends within about a second; may be
                                   NULL; must outlive the client */
    bool (*cancelled)(void *context); /* the same as a question; asked in the calling thread; may be NULL */
    void *cancelled_context;
};

/* One connection cache. One thread at a time for a client; different clients are independent. */
struct mf_http_client;

enum mf_status mf_http_client_new(const struct mf_http_options *options, struct mf_http_client **client,
                                  struct mf_error *error);
void mf_http_client_free(struct mf_http_client *client);

/* Takes `length` bytes of a body; *error is filled and the request ends when it fails. */
typedef enum mf_status mf_http_sink(void *context, const void *bytes, size_t length, struct mf_error *error);

struct mf_http_response;

struct mf_http_request {
    const char *method;                /* "GET", "HEAD", "POST", "PUT", "DELETE" */
    const char *url;                   /* http or https; anything else is MF_ERROR_HTTP */
    const char *content_type, *accept; /* may be NULL */
    const void *body;
    size_t body_bytes;
    const char *const *headers; /* "Name: value" lines and a NULL; NULL for none */
    /* Where the body of a 2xx answer goes instead of response->body, NULL: nowhere else. `accept_body` is
     * asked before its first byte, with status and headers in place; both get `context`. An attempt that is
     * repeated sends again from its first byte: use one attempt, or begin again in accept_body. */
    mf_http_sink *sink;
    enum mf_status (*accept_body)(void *context, const struct mf_http_response *response,
                                  struct mf_error *error);
    void *context;
};

/* Zero-initialise; reused by later calls; freed with mf_http_response_free. */
struct mf_http_response {
    int status;             /* of the last attempt; 0 when no answer came */
    struct mf_text body;    /* of the last attempt */
    struct mf_text headers; /* of the last answer of the last attempt: "name: value" lines */
    int64_t retry_after_ms; /* what the server asks for; 0: nothing */
    int attempts;
};

/* MF_OK when an answer came that is not 429 or 5xx: look at response->status (a 404 is an answer).
 * MF_ERROR_HTTP when the attempts are used up on connection errors, time-outs, 429 and 5xx, or at once for a
 * bad URL, a TLS failure or a too long body. Only use it for requests that may be sent twice. */
enum mf_status mf_http_perform(struct mf_http_client *client, const struct mf_http_request *request,
                               struct mf_http_response *response, struct mf_error *error);
void mf_http_response_free(struct mf_http_response *response);

/* The value of a header, "" and false when it is not there. The name's case does not matter. A longer value
 * is cut. */
bool mf_http_header(const struct mf_http_response *response, const char *name, char *value, size_t bytes);

/* Waits before attempt n + 1 (n from 1) as mf_http_perform() does between its own; false when stopped. */
bool mf_http_pause(const struct mf_http_client *client, const struct mf_http_response *response, int n);

/* Appends `text` with everything but unreserved characters as %XX: one segment of a path, or a query value.
 */
void mf_url_escape(struct mf_text *url, const char *text);

#endif
