#include "common/s3.h"

#include "common/aws_credentials.h"
#include "common/download.h"
#include "common/files.h"
#include "common/http_client.h"
#include "common/redact.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum {
    ATTEMPTS = 6,
    STALL_MS = 60000,
    PART_BYTES = 16 << 20,
    LEAST_PART_BYTES = 5 << 20,
    MOST_PARTS = 10000,
    PUT_ROUNDS = 2 /* an upload whose parts the server no longer knows is sent once more */
};

struct mf_s3 {
    struct mf_s3_options options; /* strings are own copies */
    char *endpoint, *region, *ca_file;
    struct mf_aws_credentials credentials;
    struct mf_http_client *client;
    struct mf_http_response response;
    char *token_header; /* NULL: none */
    unsigned char *part;
    size_t part_room;
    struct mf_digest *digest; /* of the bytes of the object that is being stored; NULL between */
};

/* ---- session ----------------------------------------------------------------------------------------- */

static struct mf_http_options http_options(const struct mf_s3 *s3, const char *sigv4) {
    return (struct mf_http_options){.stall_ms = STALL_MS,
                                    .attempts = s3->options.attempts,
                                    .ca_file = s3->ca_file,
                                    .username = s3->credentials.access_key_id,
                                    .password = s3->credentials.secret_access_key,
                                    .aws_sigv4 = sigv4,
                                    .stop = s3->options.stop,
                                    .cancelled = s3->options.cancelled,
                                    .cancelled_context = s3->options.cancelled_context};
}

static void signature_scope(const struct mf_s3 *s3, char *text, size_t bytes) {
    snprintf(text, bytes, "aws:amz:%s:s3", s3->region);
}

static enum mf_status own_copy(char **slot, const char *first, const char *second, const char *third,
                               struct mf_error *error) {
    const char *value = first ? first : second ? second : third;
    free(*slot);
    *slot = value ? strdup(value) : NULL;
    return *slot || !value ? MF_OK : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for S3");
}

/* Reads the credentials and makes a client that signs with them. */
static enum mf_status take_credentials(struct mf_s3 *s3, struct mf_error *error) {
    char scope[128];
    mf_aws_credentials_free(&s3->credentials);
    enum mf_status status = mf_aws_credentials_load(&s3->credentials, error);
    free(s3->token_header);
    s3->token_header = NULL;
    if (!status && s3->credentials.session_token &&
        asprintf(&s3->token_header, "x-amz-security-token: %s", s3->credentials.session_token) < 0) {
        s3->token_header = NULL;
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for S3");
    }
    if (!status)
        status = own_copy(&s3->region, s3->options.region, s3->credentials.region, "us-east-1", error);
    if (!status)
        status = own_copy(&s3->endpoint, s3->options.endpoint, s3->credentials.endpoint, NULL, error);
    if (status)
        return status;
    signature_scope(s3, scope, sizeof scope);
    struct mf_http_options options = http_options(s3, scope);
    mf_http_client_free(s3->client);
    s3->client = NULL;
    return mf_http_client_new(&options, &s3->client, error);
}

enum mf_status mf_s3_open(const struct mf_s3_options *options, struct mf_s3 **result,
                          struct mf_error *error) {
    char origin[512];
    *result = NULL;
    struct mf_s3 *s3 = calloc(1, sizeof *s3);
    if (!s3)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for S3");
    s3->options = *options;
    s3->options.endpoint = s3->options.region = NULL;
    s3->options.attempts = options->attempts ? options->attempts : ATTEMPTS;
    char *endpoint = NULL, *region = NULL;
    enum mf_status status = own_copy(&endpoint, options->endpoint, NULL, NULL, error);
    s3->options.endpoint = endpoint;
    if (!status)
        status = own_copy(&region, options->region, NULL, NULL, error);
    s3->options.region = region;
    if (!status)
        status = own_copy(&s3->ca_file, options->ca_file, NULL, NULL, error);
    if (!status)
        status = take_credentials(s3, error);
    if (!status && s3->endpoint && !mf_url_origin(s3->endpoint, origin, sizeof origin))
        status = mf_error_set(error, MF_ERROR_CONFIGURATION,
                              "s3: the endpoint '%.256s' is not http://host or https://host", s3->endpoint);
    if (status)
        mf_s3_close(s3);
    else
        *result = s3;
    return status;
}

void mf_s3_close(struct mf_s3 *s3) {
    if (!s3)
        return;
    mf_http_response_free(&s3->response);
    mf_http_client_free(s3->client);
    mf_aws_credentials_free(&s3->credentials);
    free((char *)s3->options.endpoint);
    free((char *)s3->options.region);
    free(s3->endpoint);
    free(s3->region);
    free(s3->ca_file);
    free(s3->token_header);
    free(s3->part);
    free(s3);
}

bool mf_s3_uri_split(const char *uri, char bucket[MF_S3_BUCKET_BYTES], const char **key) {
    static const char scheme[] = "s3://";
    if (strncmp(uri, scheme, strlen(scheme)) != 0)
        return false;
    const char *name = uri + strlen(scheme);
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-");
    if (length < 3 || length >= MF_S3_BUCKET_BYTES || (name[length] && name[length] != '/'))
        return false;
    memcpy(bucket, name, length);
    bucket[length] = 0;
    *key = name + length + (name[length] == '/');
    return true;
}

/* ---- one call ---------------------------------------------------------------------------------------- */

/* A key with its slashes. libcurl signs the path as it is given for the service s3. */
static void append_key(struct mf_text *url, const char *key) {
    while (*key) {
        size_t length = strcspn(key, "/");
        char *segment = strndup(key, length);
        if (segment)
            mf_url_escape(url, segment);
        else
            url->failed = true;
        free(segment);
        key += length;
        if (*key) {
            mf_text_puts(url, "/");
            key++;
        }
    }
}

/* `query`: "a=b&c=", sorted by name and each with its "=", because libcurl 7.88 signs it as it stands. */
static enum mf_status make_url(const struct mf_s3 *s3, const char *bucket, const char *key, const char *query,
                               struct mf_text *url, struct mf_error *error) {
    const char *endpoint = s3->endpoint;
    size_t length = endpoint ? strlen(endpoint) : 0;
    while (length && endpoint[length - 1] == '/')
        length--;
    if (!endpoint && !strchr(bucket, '.')) /* a dot does not fit the certificate */
        mf_text_printf(url, "https://%s.s3.%s.amazonaws.com/", bucket, s3->region);
    else if (!endpoint)
        mf_text_printf(url, "https://s3.%s.amazonaws.com/%s/", s3->region, bucket);
    else if (s3->options.virtual_hosts)
        mf_text_printf(url, "%.*s//%s.%.*s/", (int)(strstr(endpoint, "//") - endpoint), endpoint, bucket,
                       (int)(endpoint + length - strstr(endpoint, "//") - 2), strstr(endpoint, "//") + 2);
    else
        mf_text_printf(url, "%.*s/%s/", (int)length, endpoint, bucket);
    append_key(url, key);
    if (query)
        mf_text_printf(url, "?%s", query);
    return mf_text_status(url, error);
}

/* Decodes the character reference at `at` ("&amp;", "&#39;", "&#x27;") into one byte; returns its length, 0
 * when it is none. Characters beyond ASCII stand for themselves in these answers. */
static size_t decode_reference(const char *at, char *letter) {
    static const struct {
        const char *name;
        char letter;
    } named[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (!strncmp(at, named[i].name, strlen(named[i].name))) {
            *letter = named[i].letter;
            return strlen(named[i].name);
        }
    if (at[1] != '#')
        return 0;
    char *end;
    const long code = at[2] == 'x' ? strtol(at + 3, &end, 16) : strtol(at + 2, &end, 10);
    if (*end != ';' || code <= 0 || code > 126)
        return 0;
    *letter = (char)code;
    return (size_t)(end - at) + 1;
}

/* The text of the first <tag> in an XML answer; "" when it is not there. */
static const char *xml_text(const char *xml, const char *tag, char *value, size_t bytes) {
    char open[64];
    size_t length = 0;
    snprintf(open, sizeof open, "<%s>", tag);
    const char *at = strstr(xml, open);
    for (at = at ? at + strlen(open) : ""; *at && *at != '<' && length + 1 < bytes;) {
        size_t step = *at == '&' ? decode_reference(at, &value[length]) : 0;
        if (!step) {
            value[length] = *at;
            step = 1;
        }
        length++;
        at += step;
    }
    value[length] = 0;
    return value;
}

/* What the server answered, as an error. A HEAD has no text. */
static enum mf_status refused(const struct mf_s3 *s3, int answer, const struct mf_text *body,
                              const char *what, const char *bucket, const char *key, struct mf_error *error) {
    char code[128], message[512], shown[512];
    const char *xml = mf_text_string(body);
    xml_text(xml, "Code", code, sizeof code);
    mf_redact(xml_text(xml, "Message", message, sizeof message), shown, sizeof shown);
    const bool full = answer == 507 || !strcmp(code, "InsufficientCapacity") ||
                      !strcmp(code, "QuotaExceeded") || !strcmp(code, "XMinioStorageFull");
    const bool keys = answer == 401 || answer == 403;
    return mf_error_set(error, full ? MF_ERROR_DISK_FULL : MF_ERROR_IO,
                        "s3: %s s3://%s/%.512s: the server answered %d%s%s%s%s%s%s%s", what, bucket, key,
                        answer, *code ? " " : "", code, *shown ? ": " : "", shown,
                        keys ? " (credentials of " : "", keys ? s3->credentials.taken_from : "",
                        keys ? ")" : "");
}

static bool differ(const char *a, const char *b) {
    return a && b ? strcmp(a, b) != 0 : a != b;
}

/* Keys expire and are replaced in their file. An answer that may come from that: reads them again. *again
 * says whether they are others now. */
static enum mf_status renew_credentials(struct mf_s3 *s3, bool *again, struct mf_error *error) {
    static const char *const not_keys[] = {"NoSuchKey", "NoSuchBucket", "NoSuchUpload", "InvalidPart"};
    const int answer = s3->response.status;
    char code[128];
    xml_text(mf_text_string(&s3->response.body), "Code", code, sizeof code);
    *again = false;
    for (size_t i = 0; i < sizeof not_keys / sizeof *not_keys; i++)
        if (!strcmp(code, not_keys[i]))
            return MF_OK;
    if (answer < 400 || answer >= 500 || (answer == 404 && !*code))
        return MF_OK;
    struct mf_aws_credentials before = s3->credentials;
    s3->credentials = (struct mf_aws_credentials){0};
    enum mf_status status = take_credentials(s3, error);
    *again = !status && (differ(before.access_key_id, s3->credentials.access_key_id) ||
                         differ(before.secret_access_key, s3->credentials.secret_access_key) ||
                         differ(before.session_token, s3->credentials.session_token));
    mf_aws_credentials_free(&before);
    return status;
}

struct call {
    const char *method, *bucket, *key, *query;
    const void *body;
    size_t body_bytes;
};

/* s3->response holds the answer, whatever it is; MF_ERROR_IO when none came. */
static enum mf_status perform(struct mf_s3 *s3, const struct call *call, struct mf_error *error) {
    char sha256[MF_SHA256_TEXT_BYTES], header[32 + MF_SHA256_TEXT_BYTES];
    struct mf_text url = {0};
    const bool sends = !strcmp(call->method, "POST") || !strcmp(call->method, "PUT");
    bool again = true;
    enum mf_status status = mf_sha256_text(call->body ? call->body : "", call->body_bytes, sha256, error);
    if (!status)
        status = make_url(s3, call->bucket, call->key, call->query, &url, error);
    snprintf(header, sizeof header, "x-amz-content-sha256: %s", status ? "" : sha256);
    while (!status) {
        const char *const headers[] = {header, s3->token_header, NULL};
        const struct mf_http_request request = {.method = call->method,
                                                .url = mf_text_string(&url),
                                                .content_type =
                                                    call->body ? "application/octet-stream" : NULL,
                                                .body = call->body ? call->body
                                                        : sends    ? ""
                                                                   : NULL,
                                                .body_bytes = call->body_bytes,
                                                .headers = headers};
        struct mf_error reason;
        status = mf_http_perform(s3->client, &request, &s3->response, &reason);
        const int answer = s3->response.status;
        if (status && answer >= 400) /* the same answer up to the last attempt */
            status = MF_OK;
        else if (status)
            return mf_text_free(&url), mf_error_set(error, MF_ERROR_IO, "s3: %s", reason.message);
        if (!again)
            break;
        status = renew_credentials(s3, &again, error);
        if (!again)
            break;
        again = false;
    }
    mf_text_free(&url);
    return status;
}

static enum mf_status expect_success(const struct mf_s3 *s3, const struct call *call, const char *what,
                                     struct mf_error *error) {
    /* a 200 may still carry an error: completing an upload takes long, so the status is sent first */
    if (s3->response.status / 100 == 2 && !strstr(mf_text_string(&s3->response.body), "<Error>"))
        return MF_OK;
    return refused(s3, s3->response.status, &s3->response.body, what, call->bucket, call->key, error);
}

/* ---- reading ----------------------------------------------------------------------------------------- */

enum mf_status mf_s3_head(struct mf_s3 *s3, const char *bucket, const char *key, bool *found,
                          struct mf_s3_object *object, struct mf_error *error) {
    const struct call call = {.method = "HEAD", .bucket = bucket, .key = key};
    char length[32];
    *found = false;
    enum mf_status status = perform(s3, &call, error);
    if (status || s3->response.status == 404)
        return status;
    status = expect_success(s3, &call, "looking at", error);
    if (status)
        return status;
    *found = true;
    mf_http_header(&s3->response, "ETag", object->etag, sizeof object->etag);
    object->size_bytes = mf_http_header(&s3->response, "Content-Length", length, sizeof length)
                             ? strtoll(length, NULL, 10)
                             : -1;
    return MF_OK;
}

enum mf_status mf_s3_get(struct mf_s3 *s3, const char *bucket, const char *key, int descriptor,
                         int64_t limit_bytes, bool *found, struct mf_error *error) {
    struct mf_s3_object object;
    struct mf_text url = {0};
    char scope[128];
    enum mf_status status = mf_s3_head(s3, bucket, key, found, &object, error);
    if (status || !*found)
        return status;
    if (object.size_bytes > limit_bytes)
        return mf_error_set(error, MF_ERROR_IO,
                            "s3: s3://%s/%.512s holds %lld bytes, at most %lld are fetched", bucket, key,
                            (long long)object.size_bytes, (long long)limit_bytes);
    status = make_url(s3, bucket, key, NULL, &url, error);
    if (status)
        goto done;
    signature_scope(s3, scope, sizeof scope);
    const struct mf_http_options options = http_options(s3, scope);
    const char *const headers[] = {
        "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", /* of
                                                                                                     nothing
                                                                                                   */
        s3->token_header, NULL};
    const struct mf_download download = {.url = mf_text_string(&url),
                                         .headers = headers,
                                         .descriptor = descriptor,
                                         .limit_bytes = limit_bytes,
                                         .expected_bytes = object.size_bytes};
    struct mf_download_result result;
    struct mf_error reason;
    status = mf_download(&options, &download, &result, &reason);
    if (!status && *object.etag && *result.etag && strcmp(object.etag, result.etag) != 0)
        status =
            mf_error_set(error, MF_ERROR_IO, "s3: s3://%s/%.512s changed while it was fetched", bucket, key);
    else if (status == MF_ERROR_HTTP && result.status >= 400)
        status = refused(s3, result.status, &result.body, "fetching", bucket, key, error);
    else if (status == MF_ERROR_HTTP)
        status = mf_error_set(error, MF_ERROR_IO, "s3: %s", reason.message);
    else if (status)
        *error = reason;
    mf_text_free(&result.body);
done:
    mf_text_free(&url);
    return status;
}

/* "%41" to "A", in place. */
static void url_decode(char *text) {
    char *to = text;
    for (const char *from = text; *from; to++) {
        const char digits[3] = {*from == '%' ? from[1] : 0, *from == '%' && from[1] ? from[2] : 0, 0};
        if (isxdigit((unsigned char)digits[0]) && isxdigit((unsigned char)digits[1])) {
            *to = (char)strtol(digits, NULL, 16);
            from += 3;
        } else {
            *to = *from == '+' ? ' ' : *from;
            from++;
        }
    }
    *to = 0;
}

/* Visits what one page lists. */
static enum mf_status visit_page(const char *xml, mf_s3_visit *visit, void *context, struct mf_error *error) {
    char key[4096], size[32], encoding[16];
    enum mf_status status = MF_OK;
    xml_text(xml, "EncodingType", encoding, sizeof encoding); /* not every server does what it is asked */
    for (const char *at = xml; !status && (at = strstr(at, "<Contents>")); at++) {
        xml_text(at, "Key", key, sizeof key);
        xml_text(at, "Size", size, sizeof size);
        if (!strcmp(encoding, "url"))
            url_decode(key);
        status = visit(context, key, strtoll(size, NULL, 10), error);
    }
    return status;
}

enum mf_status mf_s3_list(struct mf_s3 *s3, const char *bucket, const char *prefix, mf_s3_visit *visit,
                          void *context, struct mf_error *error) {
    char token[2048] = "", more[16];
    enum mf_status status;
    do {
        struct mf_text query = {0};
        if (*token) {
            mf_text_puts(&query, "continuation-token=");
            mf_url_escape(&query, token);
            mf_text_puts(&query, "&");
        }
        mf_text_puts(&query, "encoding-type=url&list-type=2&prefix=");
        mf_url_escape(&query, prefix);
        const struct call call = {
            .method = "GET", .bucket = bucket, .key = "", .query = mf_text_string(&query)};
        status = mf_text_status(&query, error);
        if (!status)
            status = perform(s3, &call, error);
        if (!status)
            status = expect_success(s3, &call, "listing", error);
        mf_text_free(&query);
        if (status)
            break;
        char *page = mf_text_take(&s3->response.body); /* a visitor may call again */
        if (!page)
            break;
        xml_text(page, "NextContinuationToken", token, sizeof token);
        xml_text(page, "IsTruncated", more, sizeof more);
        status = visit_page(page, visit, context, error);
        free(page);
    } while (!status && !strcmp(more, "true") && *token);
    return status;
}

/* ---- writing ----------------------------------------------------------------------------------------- */

enum mf_status mf_s3_delete(struct mf_s3 *s3, const char *bucket, const char *key, struct mf_error *error) {
    const struct call call = {.method = "DELETE", .bucket = bucket, .key = key};
    enum mf_status status = perform(s3, &call, error);
    return status || s3->response.status == 404 ? status : expect_success(s3, &call, "removing", error);
}

static enum mf_status read_part(struct mf_s3 *s3, int descriptor, int64_t offset, size_t bytes,
                                struct mf_error *error) {
    if (bytes > s3->part_room) {
        free(s3->part);
        s3->part_room = 0;
        if (!(s3->part = malloc(bytes)))
            return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "s3: no memory for %zu bytes of a part",
                                bytes);
        s3->part_room = bytes;
    }
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(descriptor, s3->part + done, bytes - done, (off_t)(offset + (int64_t)done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mf_error_errno(error, errno, "s3: reading what is to be stored");
        if (n == 0)
            return mf_error_set(error, MF_ERROR_IO, "s3: what is to be stored became shorter meanwhile");
        done += (size_t)n;
    }
    return mf_digest_update(s3->digest, s3->part, bytes, error);
}

static enum mf_status put_whole(struct mf_s3 *s3, const char *bucket, const char *key, int descriptor,
                                int64_t size, char etag[128], struct mf_error *error) {
    enum mf_status status = read_part(s3, descriptor, 0, (size_t)size, error);
    const struct call call = {.method = "PUT",
                              .bucket = bucket,
                              .key = key,
                              .body = size ? s3->part : NULL,
                              .body_bytes = (size_t)size};
    if (!status)
        status = perform(s3, &call, error);
    if (!status)
        status = expect_success(s3, &call, "storing", error);
    if (!status)
        mf_http_header(&s3->response, "ETag", etag, 128);
    return status;
}

/* Sends all parts; `list` becomes the body that completes the upload. */
static enum mf_status put_parts(struct mf_s3 *s3, const char *bucket, const char *key, int descriptor,
                                int64_t size, int64_t part_bytes, const char *upload, struct mf_text *list,
                                struct mf_error *error) {
    enum mf_status status = MF_OK;
    mf_text_puts(list, "<CompleteMultipartUpload>");
    for (int64_t offset = 0, number = 1; !status && offset < size; offset += part_bytes, number++) {
        const size_t bytes = (size_t)(size - offset < part_bytes ? size - offset : part_bytes);
        struct mf_text query = {0};
        char etag[128];
        mf_text_printf(&query, "partNumber=%lld&uploadId=", (long long)number);
        mf_url_escape(&query, upload);
        status = mf_text_status(&query, error);
        if (!status)
            status = read_part(s3, descriptor, offset, bytes, error);
        const struct call call = {.method = "PUT",
                                  .bucket = bucket,
                                  .key = key,
                                  .query = mf_text_string(&query),
                                  .body = s3->part,
                                  .body_bytes = bytes};
        if (!status)
            status = perform(s3, &call, error);
        if (!status)
            status = expect_success(s3, &call, "storing a part of", error);
        mf_text_free(&query);
        if (status)
            break;
        mf_http_header(&s3->response, "ETag", etag, sizeof etag);
        mf_text_printf(list, "<Part><PartNumber>%lld</PartNumber><ETag>%s</ETag></Part>", (long long)number,
                       etag);
    }
    mf_text_puts(list, "</CompleteMultipartUpload>");
    return status ? status : mf_text_status(list, error);
}

static enum mf_status put_multipart(struct mf_s3 *s3, const char *bucket, const char *key, int descriptor,
                                    int64_t size, int64_t part_bytes, char etag[128],
                                    struct mf_error *error) {
    const struct call begin = {.method = "POST", .bucket = bucket, .key = key, .query = "uploads="};
    struct mf_text list = {0}, query = {0};
    char upload[1024];
    enum mf_status status = perform(s3, &begin, error);
    if (!status)
        status = expect_success(s3, &begin, "storing", error);
    if (status)
        return status;
    xml_text(mf_text_string(&s3->response.body), "UploadId", upload, sizeof upload);
    mf_text_puts(&query, "uploadId=");
    mf_url_escape(&query, upload);
    status = mf_text_status(&query, error);
    if (!status)
        status = put_parts(s3, bucket, key, descriptor, size, part_bytes, upload, &list, error);
    const struct call complete = {.method = "POST",
                                  .bucket = bucket,
                                  .key = key,
                                  .query = mf_text_string(&query),
                                  .body = mf_text_string(&list),
                                  .body_bytes = list.length};
    if (!status)
        status = perform(s3, &complete, error);
    if (!status)
        status = expect_success(s3, &complete, "completing", error);
    if (!status) {
        xml_text(mf_text_string(&s3->response.body), "ETag", etag, 128);
    } else { /* parts that nobody completes are paid for */
        const struct call abort = {.method = "DELETE", .bucket = bucket, .key = key, .query = complete.query};
        struct mf_error ignored;
        (void)perform(s3, &abort, &ignored);
    }
    mf_text_free(&list);
    mf_text_free(&query);
    return status;
}

static enum mf_status put_once(struct mf_s3 *s3, const char *bucket, const char *key, int descriptor,
                               int64_t size, struct mf_error *error) {
    const int64_t wanted = s3->options.part_bytes ? s3->options.part_bytes : PART_BYTES;
    int64_t part = wanted > LEAST_PART_BYTES ? wanted : LEAST_PART_BYTES;
    if (size / part >= MOST_PARTS)
        part = size / (MOST_PARTS - 1) + 1;
    char etag[128] = "";
    struct mf_s3_object stored = {0};
    bool found = false;
    enum mf_status status = size > part ? put_multipart(s3, bucket, key, descriptor, size, part, etag, error)
                                        : put_whole(s3, bucket, key, descriptor, size, etag, error);
    if (!status)
        status = mf_s3_head(s3, bucket, key, &found, &stored, error);
    if (!status && (!found || stored.size_bytes != size || !*etag || strcmp(stored.etag, etag) != 0))
        status = mf_error_set(
            error, MF_ERROR_IO,
            "s3: s3://%s/%.512s was stored as ETag %.64s and read back as %lld bytes, ETag %.64s", bucket,
            key, *etag ? etag : "none", found ? (long long)stored.size_bytes : -1LL, stored.etag);
    return status;
}

enum mf_status mf_s3_put(struct mf_s3 *s3, const char *bucket, const char *key, int descriptor, int64_t size,
                         char sha256[MF_SHA256_TEXT_BYTES], struct mf_error *error) {
    uint8_t digest[MF_SHA256_BYTES];
    enum mf_status status = MF_ERROR_IO;
    for (int round = 0; status == MF_ERROR_IO && round < PUT_ROUNDS; round++) {
        status = mf_digest_begin(MF_DIGEST_SHA256, &s3->digest, error);
        if (!status)
            status = put_once(s3, bucket, key, descriptor, size, error);
        if (status)
            mf_digest_cancel(s3->digest);
        else
            status = mf_digest_finish(s3->digest, digest, error);
        s3->digest = NULL;
    }
    if (!status)
        mf_hex(digest, sizeof digest, sha256);
    return status;
}
