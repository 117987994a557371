/* Downloads into a file: resumed where they broke off, bounded, never with credentials to another host. */
#ifndef MF_COMMON_DOWNLOAD_H
#define MF_COMMON_DOWNLOAD_H

#include "common/http_client.h"

struct mf_download {
    const char *url;
    const char *const *headers; /* lines sent to the origin of `url` only; NULL for none */
    int descriptor;             /* open for writing; the bytes that it holds already are the beginning */
    int64_t limit_bytes;        /* a longer body is refused */
    int64_t expected_bytes;     /* what it must come to; -1: not known */
    int redirects;              /* followed at most */
    /* May a redirect be followed? NULL: yes, to another host only at a public address. */
    enum mf_status (*allow)(void *context, const char *url, struct mf_error *error);
    void *context;
};

struct mf_download_result {
    int status;          /* of the last answer; 0 when none came */
    int64_t size_bytes;  /* of the file */
    char etag[256];      /* as the last answer gave it, "" for none */
    struct mf_text body; /* of an answer that is no success, for its reason; freed by the caller */
};

/* GETs the rest of the file. Connection errors, 429 and 5xx are tried again with back-off while something
 * arrives in between, else options->attempts times; a server that does not know ranges sends the whole again.
 * options->redirects is not used. Never from https to http.
 *
 * MF_OK: the file is complete (not synced). MF_ERROR_HTTP with result->status: what the server answers (403,
 * 404, ...) or 0. MF_ERROR_IO, MF_ERROR_DISK_FULL: the file. What `allow` says. */
enum mf_status mf_download(const struct mf_http_options *options, const struct mf_download *download,
                           struct mf_download_result *result, struct mf_error *error);

/* "https://host:8443/path" to "https://host:8443"; false when it is no URL of http or https, or names a user.
 * `bytes` includes the NUL. */
bool mf_url_origin(const char *url, char *origin, size_t bytes);

/* What a Location header means, seen from `base`; freed by the caller, NULL when memory runs out or it means
 * nothing. */
char *mf_url_resolve(const char *base, const char *location);

#endif
